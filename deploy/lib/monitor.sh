# What a monitor does, by openssl alone: a key, and a signature.
# Sourced by serve and setup.
# shellcheck shell=sh

# make_monitor_key FOLDER: key.priv in the monitor's form, the 32-byte seed, which is
# what DER ends with; and key.pub, base64.
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

# sign_batch FOLDER: prints the signature of batch.json by key.priv there, as base64.
# openssl wants to seek in a key's file, so that can't be a pipe.
sign_batch() {
	monitor_key_der "$1/key.priv" >"$1/key.der"
	openssl pkeyutl -sign -rawin -in "$1/batch.json" -inkey "$1/key.der" -keyform DER | base64 -w 0
	rm -f "$1/key.der"
}
