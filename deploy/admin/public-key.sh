# A monitor's public key, in the forms that people have it in. Sourced by steepctl.
# shellcheck shell=sh disable=SC2154 # set by steepctl

# content_of KEY: prints standard input for -, the content of a file, or else KEY itself.
content_of() {
	if [ "$1" = - ]; then
		read_text
	elif [ -e "$1" ] && [ ! -d "$1" ]; then
		[ -r "$1" ] || refuse "cannot read $1"
		read_text <"$1"
	else
		printf '%s' "$1"
	fi
}

# public_key KEY: prints the base64 of its 32 bytes. Editors on Windows begin a file with a
# byte order mark.
public_key() {
	text=$(content_of "$1")
	text=$(trim "${text#"$(printf '\357\273\277')"}")
	case $text in
	# The last is how PKCS #8 begins in base64 (RFC 8410).
	*'PRIVATE KEY-----'* | MC4CAQAwBQYDK2VwBCIE*) refuse 'this is a private key, which nobody but the monitor should have; use its public key' ;;
	*'-----BEGIN PUBLIC KEY-----'*'-----END PUBLIC KEY-----')
		text=${text#*'-----BEGIN PUBLIC KEY-----'}
		text=$(printf '%s' "${text%'-----END PUBLIC KEY-----'}" | tr -d '[:space:]')
		;;
	'ssh-ed25519'[[:blank:]]*) text=$(openssh_key "$text") ;;
	esac
	check_key "$text"
}

# openssh_key LINE: prints the base64 of the 32 bytes behind ssh-ed25519, and nothing if the
# line is invalid. RFC 8709: 51 bytes, of which the first 19 are the same in every key, and
# so are all but four bits of the first 26 characters.
openssh_key() {
	case $1 in *'
'*) return ;; esac
	set -f
	# shellcheck disable=SC2086 # the type, the key and a comment
	set -- $1
	case ${#2}:$2 in
	*:*[!A-Za-z0-9+/]*) ;;
	68:AAAAC3NzaC1lZDI1NTE5AAAAI[A-P]*) printf '%s' "$2" | base64 -d | tail -c 32 | base64 ;;
	esac
}

refuse_key() {
	refuse 'not an Ed25519 public key, and not a file with one: expected the base64 of its 32 bytes or of its SubjectPublicKeyInfo, PEM, or a line that begins with ssh-ed25519'
}

# Prints a public key as the base64 of its 32 bytes. openssl accepts keys that libsodium
# refuses, so the program that will use the key checks it. Others can read its arguments, so
# it is given nothing else that a file may contain, such as a private key.
check_key() {
	case ${#1}:$1 in
	*:*[!A-Za-z0-9+/=]*) refuse_key ;;
	44:* | 60:*) ;;
	*) refuse_key ;;
	esac
	program=$(ingest_program)
	checked=$("$program" --check-key "$1" 2>&1) || case $checked in
	'not an Ed25519 public key'*) refuse_key ;;
	*) refuse "$checked" ;;
	esac
	printf '%s' "$checked"
}
