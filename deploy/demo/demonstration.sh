# A monitor, a token and a month of sample events. Sourced by serve.
# shellcheck shell=sh disable=SC2154 # set by serve

steepctl() {
	"$lib/deploy/steepctl" "$@"
}

register_demonstration() {
	[ -s monitor/key.priv ] || make_monitor_key monitor
	key=$(cat monitor/key.pub)
	steepctl monitor list | cut -f 1,2 | grep -qxF "$source	$key" ||
		steepctl monitor add "$source" "$key" >/dev/null
	if [ ! -s token ] || ! steepctl token list | cut -f 1 | grep -qxF demo; then
		make_token
	fi
}

make_token() {
	steepctl token remove demo >/dev/null 2>&1 || :
	steepctl token add demo | sed 's/.* //' >token.new
	mv token.new token
}

fetch() {
	curl -q -s --max-time 40 --noproxy '*' --cacert tls/ca.crt "$@"
}

# curl reads the token from standard input, as others can read its arguments.
query_works() {
	answer=$(printf 'header = "Authorization: Bearer %s"\n' "$(cat token)" |
		fetch -K - "$url/query?days=30") || return 1
	case $answer in
	*'"aggregates"'*) return 0 ;;
	# The token belongs to another database.
	*'"invalid_token"'*) make_token ;;
	esac
	return 1
}

# Without a signature the program itself answers missing_auth.
ingest_works() {
	case $(fetch --data '' "$url/ingest") in
	*'"missing_auth"'*) return 0 ;;
	esac
	return 1
}

# Sends the first batch as any monitor would: signed, over HTTPS.
send_samples() {
	"$lib/deploy/demo/sample-events" "$source" >monitor/batch.json
	signature=$(sign_batch monitor)
	# Retries, as a monitor does, while the program is not ready.
	for pause in 1 2 0; do
		answer=$(fetch -H 'Content-Type: application/json' -H "X-Source-ID: $source" \
			-H "X-Signature: $signature" --data-binary @monitor/batch.json "$url/ingest") || :
		case $answer in
		*'"inserted"'*)
			rm -f monitor/batch.json
			return
			;;
		esac
		sleep "$pause"
	done
	fail "the server did not accept the sample events: $answer"
}

check_answers() {
	wait_until nginx 60 query_works
	wait_until ingest 60 ingest_works
	[ "$(sql -v source="$source" -f "$lib/sql/admin/has-events.sql")" = t ] || send_samples
}
