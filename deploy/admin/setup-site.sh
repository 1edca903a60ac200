# The certificate and the site. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # what setup sets

tls=/etc/steep/tls
site=/etc/nginx/sites-enabled/steep
listen=/etc/nginx/snippets/steep/listen.conf

# Before anything is changed.
check_certificate_given() {
	[ -n "$certificate" ] || return 0
	problem=$(certificate_problem "$certificate" "$key")
	[ -z "$problem" ] || fail "$certificate $problem"
}

# certificate_problem FILE KEY: prints why nginx or a client would not take it.
certificate_problem() {
	if [ ! -r "$1" ] || [ ! -r "$2" ]; then
		echo 'or its key is missing'
	elif ! public=$(openssl x509 -in "$1" -noout -pubkey 2>/dev/null); then
		echo 'is no certificate in PEM'
	elif [ "$public" != "$(openssl pkey -in "$2" -pubout -passin pass: 2>/dev/null)" ]; then
		echo "is not of the key $2"
	elif ! openssl x509 -in "$1" -noout -checkend 0 >/dev/null 2>&1; then
		echo "is out of date"
	fi
}

# nginx finds the certificate in one place; what is somewhere else is linked to from
# there, so that a renewal takes effect with nginx's next reload.
prepare_certificate() {
	[ -n "$name" ] || name=$(hostname -f 2>/dev/null || hostname)
	kind=$(kind_of_name "$name")
	mkdir -p "$tls"
	live=/etc/letsencrypt/live/$name
	if [ -n "$certificate" ]; then
		link_certificate "$certificate" "$key"
	elif is_somebody_elses "$tls/server.crt"; then
		problem=$(certificate_problem "$tls/server.crt" "$tls/server.key")
		[ -z "$problem" ] || fail "$(readlink "$tls/server.crt" || echo "$tls/server.crt") $problem"
	elif [ "$kind" = DNS ] && [ -e "$live/fullchain.pem" ]; then
		link_certificate "$live/fullchain.pem" "$live/privkey.pem"
	elif [ -n "$(certificate_problem "$tls/server.crt" "$tls/server.key")" ] ||
		! openssl x509 -in "$tls/server.crt" -noout -checkend 2592000 >/dev/null ||
		! is_for "$tls/server.crt"; then
		make_self_signed_certificate
	fi
	say "the certificate is $(readlink -f "$tls/server.crt")"
}

# kind_of_name NAME: prints DNS or IP, as certificates tell them apart; nothing for what
# is neither a host's name nor its address.
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

# Whether an operator put it there, and not make_self_signed_certificate: nothing of
# theirs is overwritten.
is_somebody_elses() {
	[ ! -L "$1" ] || return 0
	[ -e "$1" ] || return 1
	[ "$(openssl x509 -in "$1" -noout -subject -issuer -nameopt RFC2253 2>/dev/null)" != 'subject=CN=steep
issuer=CN=steep' ]
}

# Where they lie in $tls already there is nothing to link.
link_certificate() {
	[ "$1" = "$tls/server.crt" ] || ln -sfn -- "$1" "$tls/server.crt"
	[ "$2" = "$tls/server.key" ] || ln -sfn -- "$2" "$tls/server.key"
	case $1 in /etc/letsencrypt/live/*) reload_after_renewal ;; esac
}

# certbot calls what is in this folder when it has renewed a certificate.
reload_after_renewal() {
	hook=/etc/letsencrypt/renewal-hooks/deploy/steep
	mkdir -p "${hook%/*}"
	printf '#!/bin/sh\n# steepctl setup: nginx takes up the new certificate.\nexec systemctl reload nginx\n' >"$hook"
	chmod 755 "$hook"
}

# 825 days is the longest that every client takes.
make_self_signed_certificate() {
	[ -n "$kind" ] || fail "no certificate can be made for $name; --name gives another"
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
		-out "$scratch/server.crt" 2>/dev/null || fail "no certificate can be made for $name; --name gives another"
	mv -f "$scratch/server.key" "$scratch/server.crt" "$tls/"
}

# Sets $here_https and $port_https.
read_port() {
	here_https=$(site_address "$listen")
	port_https=${here_https##*:}
	[ -n "$port_https" ] || fail "$listen names no port"
}

# nginx goes on with its old configuration where it can't have the port, and says so
# in its log only.
check_port_is_free() {
	read_port
	for inode in $(listeners "$port_https"); do
		is_of_nginx "$inode" || fail "port $port_https is in use by another program than nginx; $listen chooses another"
	done
}

is_of_nginx() {
	pid=$(cat /run/nginx.pid 2>/dev/null) || return 1
	for descriptor in "/proc/$pid/fd"/*; do
		[ "$(readlink "$descriptor")" != "socket:[$1]" ] || return 0
	done
	return 1
}

enable_site() {
	if [ ! -e "$site" ]; then
		ln -sfn ../sites-available/steep "$site"
		new_site=yes
	fi
	output=$(nginx -t -q 2>&1) || fail "nginx does not take the site: $(printf '%s\n' "$output" | grep -m 1 emerg); $listen says where it listens"
	systemctl enable --quiet nginx.service
	systemctl reload-or-restart nginx.service || fail_with_journal nginx.service
}

disable_site() {
	[ -n "$new_site" ] || return 0
	rm -f "$site"
	systemctl reload nginx.service 2>/dev/null || :
}
