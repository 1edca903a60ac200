# A private certificate authority, and a server certificate for this machine. Sourced by
# serve.
# shellcheck shell=sh

month=2592000

make_certificates() {
	if ! openssl x509 -in tls/ca.crt -noout -checkend "$month" >/dev/null 2>&1 ||
		[ ! -s tls/ca.key ]; then
		make_authority
		make_server_certificate
	elif ! server_certificate_is_good; then
		make_server_certificate
	fi
}

# Valid for a month at least, signed by our authority, and of the present key.
server_certificate_is_good() {
	openssl x509 -in tls/server.crt -noout -checkend "$month" >/dev/null 2>&1 &&
		openssl verify -CAfile tls/ca.crt tls/server.crt >/dev/null 2>&1 &&
		[ "$(openssl x509 -in tls/server.crt -noout -pubkey)" = \
			"$(openssl pkey -in tls/server.key -pubout 2>/dev/null)" ]
}

# The constraints limit it to this machine's own names, in case its key is ever stolen.
make_authority() {
	cat >tls/ca.conf <<'END'
[req]
prompt = no
string_mask = utf8only
distinguished_name = name
x509_extensions = extensions
[name]
CN = steep demonstration authority
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical, permitted;DNS:localhost, permitted;IP:127.0.0.1/255.255.255.255, permitted;IP:0:0:0:0:0:0:0:1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
END
	make_tls_key tls/ca.key
	openssl req -new -x509 -sha256 -days 3650 -config tls/ca.conf -key tls/ca.key -out tls/ca.crt.new
	mv tls/ca.crt.new tls/ca.crt
}

# Browsers refuse a certificate that is valid for more than 398 days.
make_server_certificate() {
	cat >tls/server.conf <<'END'
[req]
prompt = no
distinguished_name = name
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
END
	make_tls_key tls/server.key
	openssl req -new -sha256 -config tls/server.conf -key tls/server.key -out tls/server.csr
	openssl x509 -req -sha256 -days 397 -in tls/server.csr -CA tls/ca.crt -CAkey tls/ca.key \
		-set_serial "0x$(openssl rand -hex 16)" -extfile tls/server.conf -extensions extensions \
		-out tls/server.crt.new 2>/dev/null
	mv tls/server.crt.new tls/server.crt
	rm -f tls/server.csr
}
