# A monitor, a token and a month of sample events. Sourced by serve.
# shellcheck shell=sh disable=SC2154 # what serve sets

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

# curl's options come on standard input, or the token would be in its arguments.
query_works() {
	answer=$(printf 'header = "Authorization: Bearer %s"\n' "$(cat token)" |
		fetch -K - "$url/query?days=30") || return 1
	case $answer in
	*'"aggregates"'*) return 0 ;;
	# The token is that of another database.
	*'"invalid_token"'*) make_token ;;
	esac
	return 1
}

# Without a signature there is only one answer, and it is the program's.
ingest_works() {
	case $(fetch --data '' "$url/ingest") in
	*'"missing_auth"'*) return 0 ;;
	esac
	return 1
}

# The first batch comes in as every other will: signed, and over https.
send_samples() {
	"$lib/deploy/demo/sample-events" "$source" >monitor/batch.json
	signature=$(sign_batch monitor)
	# As every monitor does: what is not available yet will be in a moment.
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
	fail "the sample events were not accepted: $answer"
}

check_answers() {
	wait_until nginx 60 query_works
	wait_until ingest 60 ingest_works
	[ "$(sql -v source="$source" -f "$lib/sql/admin/has-events.sql")" = t ] || send_samples
}
