# Tests the installation as a monitor and a dashboard would use it. Sourced by setup.
# shellcheck shell=sh disable=SC2154 # set by setup

scratch_folder() {
	[ -n "$scratch" ] || scratch=$(mktemp -d)
}

# Connects to this machine under the name in the certificate, and trusts that certificate:
# its authority may be unknown here.
fetch() {
	[ "$scheme" = http ] || set -- --cacert "$tls/server.crt" "$@"
	curl -q -s --max-time 40 --noproxy '*' --connect-to "::$site_at" "$@"
}

# try SECONDS COMMAND…: repeats a command, which sets $answer, until it succeeds.
try() {
	tries=$1
	shift
	until "$@"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		sleep 1
	done
}

check_everything() {
	scratch_folder
	choose_url
	traces=steep-setup-$(openssl rand -hex 6)
	make_monitor_key "$scratch"
	steepctl monitor add "$traces" "$(cat "$scratch/key.pub")" >/dev/null || exit 1
	steepctl token add "$traces" --expires 1 >"$scratch/token" || exit 1
	printf '[{"id":"evt_%s","source":"%s","timestamp":"%s","type":"session","payload":{}}]' \
		"$traces" "$traces" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$scratch/batch.json"
	signature=$(sign_batch "$scratch")
	try 20 page_is_there || fail "$url/ does not serve the page: $answer"
	try 20 batch_is_stored || fail "$url/ingest did not accept a signed batch: $answer"
	try 20 batch_is_counted || fail "$url/query did not count the stored event: $answer"
	remove_traces || fail "cannot remove the test's event, monitor and token, $traces"
}

# The first name in the certificate.
choose_url() {
	if [ "$scheme" = http ]; then
		url=$(url_of http "$site_at")
		return
	fi
	site_host=$(openssl x509 -in "$tls/server.crt" -noout -ext subjectAltName 2>/dev/null |
		tr ',' '\n' | sed -nE 's/^ *(DNS|IP Address)://p' | head -n 1)
	[ -n "$site_host" ] || fail "$tls/server.crt names no host"
	case $site_host in
	\**) site_host=steep${site_host#\*} ;;
	*:*) site_host="[$site_host]" ;;
	esac
	url=$(url_of https "$site_host:$site_port")
}

page_is_there() {
	answer=$(fetch -S -o /dev/null -w '%{http_code}' "$url/" 2>&1) || return 1
	[ "$answer" = 200 ]
}

batch_is_stored() {
	answer=$(fetch -S -H 'Content-Type: application/json' -H "X-Source-ID: $traces" -H "X-Signature: $signature" \
		--data-binary @"$scratch/batch.json" "$url/ingest" 2>&1) || return 1
	case $answer in
	*'"inserted":1,'* | *'"duplicates":1,'*) return 0 ;;
	esac
	return 1
}

# curl reads the token from standard input, as others can read its arguments.
batch_is_counted() {
	answer=$(printf 'header = "Authorization: Bearer %s"\n' "$(sed 's/.* //' "$scratch/token")" |
		fetch -S -K - "$url/query?days=7&source=$traces" 2>&1) || return 1
	case $answer in
	*"\"source\":\"$traces\""*'"eventCount":1'*) return 0 ;;
	esac
	return 1
}

# Removes what the test stored, also after a failure.
remove_traces() {
	removed=0
	if [ -n "$traces" ]; then
		psql -X -q -v ON_ERROR_STOP=1 -v source="$traces" -f "$sql/admin/delete-test-event.sql" || removed=1
		steepctl monitor remove "$traces" >/dev/null 2>&1 || removed=1
		steepctl token remove "$traces" >/dev/null 2>&1 || removed=1
	fi
	traces=''
	[ -z "$scratch" ] || rm -rf "$scratch"
	scratch=''
	return "$removed"
}
