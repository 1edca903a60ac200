# nginx and the two programs. Sourced by serve.
# shellcheck shell=sh disable=SC2154 # set by serve

# Runs before anything is started.
check_ports() {
	if [ -n "$(listeners "$port")" ]; then
		fail "port $port is in use; set another with STEEP_PORT"
	fi
	if [ -z "$metrics_port" ]; then
		until metrics_port=$(free_port) && [ "$metrics_port" != "$port" ]; do :; done
	elif [ -n "$(listeners "$metrics_port")" ]; then
		fail "port $metrics_port is in use; set another with STEEP_METRICS_PORT"
	fi
}

# The site of the tree, with the five snippets that depend on the installation.
configure_nginx() {
	rm -f nginx/snippets/steep/*
	cp "$lib/nginx/steep.conf" nginx/steep.conf
	cp "$lib"/nginx/snippets/*.conf nginx/snippets/steep/

	{
		echo "listen 127.0.0.1:$port ssl http2 default_server;"
		# nginx fails if the system has no IPv6.
		if has_local_ipv6; then
			echo "listen [::1]:$port ssl http2 default_server;"
		fi
		echo 'server_name _;'
		# Relative to this folder; the rest is relative to the state folder.
		echo 'ssl_certificate ../tls/server.crt;'
		echo 'ssl_certificate_key ../tls/server.key;'
	} | http2_form >nginx/snippets/steep/listen.conf
	{
		echo "listen 127.0.0.1:$metrics_port;"
		if has_local_ipv6; then
			echo "listen [::1]:$metrics_port;"
		fi
	} >nginx/snippets/steep/metrics-listen.conf
	# The same, with the sockets and logs of this folder.
	sed 's|unix:/run/steep/|unix:run/|' "$lib/nginx/snippets/upstream.conf" >nginx/snippets/steep/upstream.conf
	sed 's#/var/log/nginx/steep-access.log#log/access.log#;s#/var/log/nginx/steep-error.log#log/nginx-error.log#' \
		"$lib/nginx/snippets/log.conf" >nginx/snippets/steep/log.conf
	echo 'root lib/nginx/html;' >nginx/snippets/steep/page.conf

	cat >nginx/nginx.conf <<'END'
daemon off;
worker_processes auto;
worker_rlimit_nofile 8192;
worker_shutdown_timeout 3s;
pid run/nginx.pid;
error_log log/nginx-error.log warn;
events {
    worker_connections 4096;
}
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    sendfile on;
    client_body_temp_path nginx/tmp/body;
    fastcgi_temp_path nginx/tmp/fastcgi;
    proxy_temp_path nginx/tmp/proxy;
    scgi_temp_path nginx/tmp/scgi;
    uwsgi_temp_path nginx/tmp/uwsgi;
    include steep.conf;
}
END
}

# Checks the STEEP_* and VIBETEA_* variables before anything is started.
check_programs() {
	for program in ingest query; do
		PGUSER=steep_$program "$lib/build/$program.fcgi" -t || exit 1
	done
}

start_programs() {
	for program in ingest query; do
		PGUSER=steep_$program keep_listening "$program" TERM "$lib/build/$program.fcgi"
	done
}

# The prefix is relative, as nginx reads a * or [ in the path of an included file as a
# pattern.
start_nginx() {
	keep_running nginx QUIT nginx -p ./ -c nginx/nginx.conf
}
