# The certificate and the site. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # set by setup

tls=/etc/steep/tls
listen=/etc/nginx/snippets/steep/listen.conf

# Runs before anything is changed.
check_certificate_given() {
	[ -n "$certificate" ] || return 0
	[ "$(site_scheme "$listen")" = https ] || fail "the site has no use for a certificate: $listen has no listen directive with ssl"
	problem=$(certificate_problem "$certificate" "$key")
	[ -z "$problem" ] || fail "$certificate $problem"
}

# certificate_problem FILE KEY: prints why nginx or a client would refuse it.
certificate_problem() {
	if [ ! -r "$1" ] || [ ! -r "$2" ]; then
		echo 'or its key cannot be read'
	elif ! public=$(openssl x509 -in "$1" -noout -pubkey 2>/dev/null); then
		echo 'is not a certificate in PEM format'
	elif [ "$public" != "$(openssl pkey -in "$2" -pubout -passin pass: 2>/dev/null)" ]; then
		echo "does not match the key $2"
	elif ! openssl x509 -in "$1" -noout -checkend 0 >/dev/null 2>&1; then
		echo 'has expired'
	fi
}

# nginx reads the certificate from one place, which links to a certificate kept elsewhere:
# so a renewal takes effect with nginx's next reload.
prepare_certificate() {
	[ "$scheme" = https ] || return 0
	[ -n "$name" ] || name=$(hostname -f 2>/dev/null || hostname)
	kind=$(kind_of_name "$name")
	mkdir -p "$tls"
	live=/etc/letsencrypt/live/$name
	if [ -n "$certificate" ]; then
		link_certificate "$certificate" "$key"
	elif is_operators "$tls/server.crt"; then
		problem=$(certificate_problem "$tls/server.crt" "$tls/server.key")
		[ -z "$problem" ] || fail "$(readlink "$tls/server.crt" || echo "$tls/server.crt") $problem"
	elif [ "$kind" = DNS ] && [ -e "$live/fullchain.pem" ]; then
		link_certificate "$live/fullchain.pem" "$live/privkey.pem"
	elif [ -n "$(certificate_problem "$tls/server.crt" "$tls/server.key")" ] ||
		! openssl x509 -in "$tls/server.crt" -noout -checkend 2592000 >/dev/null ||
		! is_for "$tls/server.crt"; then
		make_self_signed_certificate
	fi
	say "using the certificate $(readlink -f "$tls/server.crt")"
}

# kind_of_name NAME: prints DNS for a host name, IP for an address, else nothing.
kind_of_name() {
	case $1 in
	'' | [.-]* | *[!A-Za-z0-9._:-]*) ;;
	*:*) echo IP ;;
	*[!0-9.]*) echo DNS ;;
	*) echo IP ;;
	esac
}

is_for() {
	case $kind in
	IP) openssl x509 -in "$1" -noout -checkip "$name" ;;
	*) openssl x509 -in "$1" -noout -checkhost "$name" ;;
	esac | grep -q 'does match'
}

# Whether an operator put the certificate there, which setup never overwrites.
is_operators() {
	[ ! -L "$1" ] || return 0
	[ -e "$1" ] || return 1
	[ "$(openssl x509 -in "$1" -noout -subject -issuer -nameopt RFC2253 2>/dev/null)" != 'subject=CN=steep
issuer=CN=steep' ]
}

# Files that are in $tls already need no link.
link_certificate() {
	[ "$1" = "$tls/server.crt" ] || ln -sfn -- "$1" "$tls/server.crt"
	[ "$2" = "$tls/server.key" ] || ln -sfn -- "$2" "$tls/server.key"
	case $1 in /etc/letsencrypt/live/*) reload_after_renewal ;; esac
}

# certbot runs the scripts in this folder after each renewal.
reload_after_renewal() {
	hook=/etc/letsencrypt/renewal-hooks/deploy/steep
	mkdir -p "${hook%/*}"
	printf '#!/bin/sh\n# Written by steepctl setup: makes nginx read the new certificate.\nexec systemctl reload nginx\n' >"$hook"
	chmod 755 "$hook"
}

# 825 days is the longest term that every client accepts.
make_self_signed_certificate() {
	[ -n "$kind" ] || fail "cannot create a certificate for $name; set another name with --name"
	scratch_folder
	cat >"$scratch/server.conf" <<END
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = steep
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = $kind:$name, DNS:localhost, IP:127.0.0.1, IP:::1
END
	(umask 077 && make_tls_key "$scratch/server.key")
	openssl req -new -x509 -sha256 -days 825 -config "$scratch/server.conf" -key "$scratch/server.key" \
		-out "$scratch/server.crt" 2>/dev/null || fail "cannot create a certificate for $name; set another name with --name"
	mv -f "$scratch/server.key" "$scratch/server.crt" "$tls/"
}

# Sets $scheme, $site_at and $site_port.
read_port() {
	if [ -n "$proxies" ]; then
		scheme=http site_at=$(printf 'listen %s;\n' "$address" | site_address /dev/stdin)
	else
		scheme=$(site_scheme "$listen") site_at=$(site_address "$listen")
	fi
	site_port=${site_at##*:}
	[ -n "$site_port" ] || fail "$listen has no listen directive with a port"
}

# If the port is taken, nginx keeps its old configuration and reports it in its log only.
check_port_is_free() {
	read_port
	place="in $listen"
	[ -z "$proxies" ] || place='with --listen'
	expect_free_port "$site_port" "$place"
}

# expect_free_port PORT PLACE: fails, and says where to set another port, if it is in use.
expect_free_port() {
	for inode in $(listeners "$1"); do
		is_of_nginx "$inode" || ! listeners "$1" | grep -qx "$inode" ||
			fail "port $1 is in use by a program other than nginx; set another port $2"
	done
}

is_of_nginx() {
	pid=$(cat /run/nginx.pid 2>/dev/null) || return 1
	# Until a worker ends after a reload, it may hold a socket that the master has closed.
	for process in "$pid" $(cat "/proc/$pid/task/$pid/children"); do
		for descriptor in "/proc/$process/fd"/*; do
			[ "$(readlink "$descriptor")" != "socket:[$1]" ] || return 0
		done
	done
	return 1
}

# Sets $site and $nginx_group. Runs before anything is changed.
check_nginx() {
	site=$(nginx_site)
	[ -n "$site" ] ||
		fail "nginx reads neither sites-enabled nor conf.d; add \"include /etc/nginx/sites-enabled/*;\" to the http block of /etc/nginx/nginx.conf"
	site=/etc/nginx/$site
	account=$(nginx_account) nginx_group=${account#* }
	getent group "$nginx_group" >/dev/null ||
		fail "nginx runs as user ${account% *} and group $nginx_group, and there is no such group; correct the user in /etc/nginx/nginx.conf"
	case " $(id -Gn "${account% *}" 2>/dev/null) " in *' www-data '*) nginx_group=www-data ;; esac
}

# An nginx older than 1.25.1 rejects the one form, a later one warns of the other.
adapt_http2() {
	text=$(http2_form <"$listen")
	[ "$text" = "$(cat "$listen")" ] || printf '%s\n' "$text" >"$listen"
}

enable_site() {
	listen_behind_proxy
	adapt_http2
	if [ ! -e "$site" ]; then
		mkdir -p "${site%/*}"
		ln -sfn ../sites-available/steep "$site"
		new_site=yes
	fi
	output=$(nginx -t -q 2>&1) || fail "nginx rejects the site: $(printf '%s\n' "$output" | grep -m 1 emerg); its addresses are in $listen"
	systemctl enable --quiet nginx.service
	systemctl reload-or-restart nginx.service || fail_with_journal nginx.service
}

disable_site() {
	[ -n "$new_site$new_listen" ] || return 0
	[ -z "$new_site" ] || rm -f "$site"
	systemctl reload nginx.service 2>/dev/null || :
}
