# Private keys, and a monitor's signature, with openssl alone. Sourced by serve and setup.
# shellcheck shell=sh

# make_tls_key FILE: a private key for a certificate.
make_tls_key() {
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# make_monitor_key FOLDER: key.priv, the 32-byte seed that DER ends with, as monitors
# keep it; and key.pub, the public key in base64.
make_monitor_key() {
	openssl genpkey -algorithm ed25519 -outform DER | tail -c 32 >"$1/key.priv.new"
	monitor_key_der "$1/key.priv.new" |
		openssl pkey -inform DER -pubout -outform DER | tail -c 32 | base64 >"$1/key.pub"
	mv "$1/key.priv.new" "$1/key.priv"
}

# RFC 8410: these 16 bytes and the seed are the private key in PKCS #8.
monitor_key_der() {
	printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'
	cat "$1"
}

# sign_batch FOLDER: prints the base64 signature of batch.json, made with key.priv.
# openssl seeks in a key file, so it can't be a pipe.
sign_batch() {
	monitor_key_der "$1/key.priv" >"$1/key.der"
	openssl pkeyutl -sign -rawin -in "$1/batch.json" -inkey "$1/key.der" -keyform DER | base64 -w 0
	rm -f "$1/key.der"
}
