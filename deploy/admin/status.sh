# steepctl status: one sentence for each thing checked, and the exit status of a
# monitoring plugin: 0 OK, 1 warning, 2 critical, 3 unknown. Sourced by steepctl.
# shellcheck shell=sh disable=SC2154 # set by steepctl

# shellcheck source-path=SCRIPTDIR source=nginx.sh
. "$admin/nginx.sh"

# The worst level, all lines, and the sentences of the worst level.
verdict=OK lines='' worst=''

# rank LEVEL: unknown is worse than a warning and better than critical.
rank() {
	case $1 in
	OK) echo 0 ;;
	WARNING) echo 1 ;;
	UNKNOWN) echo 2 ;;
	CRITICAL) echo 3 ;;
	esac
}

# note LEVEL SENTENCE
note() {
	case $1 in
	ok) level=OK line=$2 ;;
	warning) level=WARNING line="WARNING: $2" ;;
	critical) level=CRITICAL line="CRITICAL: $2" ;;
	*) level=UNKNOWN line="UNKNOWN: $2" ;;
	esac
	lines="$lines$line
"
	[ "$level" != OK ] || return 0
	if [ "$(rank "$level")" -gt "$(rank "$verdict")" ]; then
		verdict=$level worst=$2
	elif [ "$level" = "$verdict" ]; then
		worst="$worst $2"
	fi
}

# Prints how many connections the programs may open, as far as their settings are known here.
known_connections() {
	if [ -r /etc/steep/ingest.env ]; then
		most_connections /etc/steep/ingest.env /etc/steep/query.env
	else
		case ${STEEP_CONNECTIONS-} in
		'' | *[!0-9]* | 0* | ????*) ;;
		*) echo $((2 * (STEEP_CONNECTIONS + 2))) ;;
		esac
	fi
}

check_database() {
	command -v psql >/dev/null || {
		note unknown 'psql is not installed.'
		return
	}
	known=$(cd -- "${STEEP_MIGRATIONS:-$sql/migrations}" && sha256sum -- *.sql) ||
		refuse 'cannot find the migrations'
	answer=$(run_sql status.sql -v known="$known" -v access="$(cat "$sql/access.sql")" \
		-v connections="$(known_connections)" 2>&1) || :
	while IFS='	' read -r level sentence; do
		case $level in
		ok | warning | critical) note "$level" "$sentence" ;;
		*'no connection'*) note critical "${level#steepctl: }." ;;
		?*) note unknown "${level#steepctl: }." ;;
		esac
	done <<END
$answer
END
}

has_services() {
	command -v systemctl >/dev/null && systemctl cat steep-ingest.service >/dev/null 2>&1
}

# last_words UNIT [LINES]: prints the last error in the last lines of a unit's journal, else
# the last line.
last_words() {
	journalctl -q -o cat -n "${2:-10}" "_SYSTEMD_UNIT=$1" 2>/dev/null |
		awk '/still could not bind/ { next }
			/emerg|error|ERROR|cannot|invalid/ { found = $0 } { last = $0 }
			END { if (last != "") print ": " (found != "" ? found : last) }'
}

check_settings() {
	for file in /etc/steep/*.env; do
		[ -r "$file" ] || continue
		fault=$(settings_fault "$file")
		[ -z "$fault" ] || note warning "$fault."
	done
	file=/etc/steep/prune.env fault=''
	[ ! -r "$file" ] || fault=$(retention_fault "$file")
	[ -z "$fault" ] || note warning "$fault."
}

# The error log of nginx would have this only in its own words. Another package of nginx may
# run it as another user than at the time of setup.
check_nginx_user() {
	[ "$(id -u)" -eq 0 ] && [ -S /run/steep/ingest.sock ] && command -v nginx >/dev/null || return 0
	account=$(nginx_account)
	runuser -u "${account% *}" -g "${account#* }" -- test -w /run/steep/ingest.sock 2>/dev/null ||
		note critical "nginx runs as user ${account% *}, which cannot connect to /run/steep/ingest.sock; run steepctl setup."
}

# Sets $master and $configuration to the process of the nginx that serves the site, and to what
# it reads: that of the service, or of the deploy/run whose site is checked.
find_nginx() {
	if has_services; then
		master=$(cat /run/nginx.pid 2>/dev/null) configuration=$(nginx_configuration)
	else
		state=${STEEP_STATE:-$here/../var}
		[ -r "$state/run.env" ] && [ "$(setting_of "$state/run.env" STEEP_URL)" = "${STEEP_URL-}" ] || return 1
		master=$(cat "$state/run/nginx.pid" 2>/dev/null) configuration=$(cat "$state/nginx/nginx.conf")
	fi
}

# Each worker of nginx has a limit of its own, and they do not share the connections evenly.
# Where it is reached, nginx closes idle connections, then refuses new ones.
check_connections() {
	find_nginx || return 0
	limit=$(printf '%s\n' "$configuration" | sed -nE 's/^[^#]*worker_connections[[:space:]]+([0-9]+);.*/\1/p' | head -n 1)
	limit=${limit:-512} most='' files=''
	# None if nginx is down, which the other checks report; any of them may end meanwhile.
	workers=$(cat "/proc/$master/task/$master/children" 2>/dev/null) || :
	for worker in $workers; do
		files=$(sed -nE 's/^Max open files +([0-9]+) .*/\1/p' "/proc/$worker/limits" 2>/dev/null) || :
		used=$(find "/proc/$worker/fd" -lname 'socket:*' 2>/dev/null | wc -l)
		[ "$used" -le "${most:-0}" ] || most=$used
	done
	if [ -z "$most" ]; then
		return
	elif [ "${files:-0}" -gt 0 ] && [ "$files" -lt "$limit" ]; then
		note warning "A worker of nginx may have $limit connections, but only $files open files; set worker_rlimit_nofile in nginx.conf to twice worker_connections."
	elif [ $((most * 5)) -ge $((limit * 4)) ]; then
		note warning "A worker of nginx has $most of its $limit connections in use; raise worker_connections in nginx.conf, and worker_rlimit_nofile to twice that."
	else
		note ok "Connections of nginx: $most in use by a worker, which may have $limit."
	fi
}

# A service that its socket starts is inactive until the first request.
check_services() {
	for unit in steep-ingest.socket steep-query.socket steep-ingest.service steep-query.service nginx.service \
		steep-prune.timer steep-prune.service; do
		state=$(systemctl is-active "$unit" 2>/dev/null) || :
		case $unit:$state in
		*:active) note ok "$unit is active." ;;
		# Earlier lines are those of earlier days.
		steep-prune.service:failed) note warning "$unit failed$(last_words "$unit" 1)." ;;
		steep-prune.service:* | steep-ingest.service:inactive | steep-query.service:inactive) ;;
		steep-prune.timer:*) note warning "$unit is $state: old events are not deleted." ;;
		*) note critical "$unit is ${state:-missing}$(last_words "$unit")." ;;
		esac
	done
}

# fetch PATH: prints the HTTP status, 000 if there is no answer. The request holds no
# secret, so the certificate need not name localhost.
fetch() {
	set -- -q -s -S -o /dev/null -w '%{http_code}' --max-time 20 --noproxy '*' "$url$1"
	if [ -n "${STEEP_CA-}" ]; then
		set -- --cacert "$STEEP_CA" "$@"
	elif [ -z "${STEEP_URL-}" ] || [ "$url" = https://localhost ]; then
		set -- --insecure "$@"
	fi
	curl "$@" 2>"$errors" || :
}

# check_program NAME STATUS: STATUS is what the program answers without credentials.
check_program() {
	code=$(fetch "/$1")
	case $code in
	"$2") ;;
	000)
		note critical "Nothing answers at $url: $(sed -n '1s/^curl: ([0-9]*) //p' "$errors")."
		return
		;;
	*)
		case $(fetch "/healthz/$1") in
		200) note critical "$1.fcgi runs but does not answer requests ($code from $url/$1)." ;;
		*) note critical "$1.fcgi does not answer ($code from $url/$1)." ;;
		esac
		return
		;;
	esac
	code=$(fetch "/readyz/$1")
	case $code in
	200) note ok "$1.fcgi is ready." ;;
	404) note ok "$1.fcgi answers." ;;
	*) note critical "$1.fcgi is not ready ($code from $url/readyz/$1): it has not read its credentials, cannot reach the database, or its statements fail there; its log says why." ;;
	esac
}

check_certificate() {
	case $url in http://*)
		note ok 'The certificate was not checked: TLS ends in front of the site. To check the site through the proxy, set STEEP_URL to its URL there.'
		return
		;;
	esac
	address=${url#https://} address=${address%%/*}
	case $address in *:*[0-9]) ;; *) address=$address:443 ;; esac
	certificate=$(timeout 20 openssl s_client -connect "$address" -servername "${address%:*}" </dev/null 2>/dev/null |
		openssl x509 2>/dev/null) || return 0
	end=$(printf '%s\n' "$certificate" | openssl x509 -noout -enddate)
	end=${end#notAfter=}
	if ! printf '%s\n' "$certificate" | openssl x509 -noout -checkend 0 >/dev/null; then
		note critical "The certificate expired at $end."
	elif ! printf '%s\n' "$certificate" | openssl x509 -noout -checkend 1209600 >/dev/null; then
		note warning "The certificate expires at $end."
	else
		note ok "The certificate is valid until $end."
	fi
}

# Prints the address of this machine's site.
site_url() {
	listen=/etc/nginx/snippets/steep/listen.conf
	address=$(site_address "$listen" 2>/dev/null)
	url_of "$(site_scheme "$listen" 2>/dev/null | grep . || echo https)" "${address:-localhost}"
}

# Through the site, as clients do.
check_programs() {
	url=${STEEP_URL:-$(site_url)} url=${url%/}
	command -v curl >/dev/null || {
		note unknown 'The programs were not checked: curl is not installed.'
		return
	}
	errors=$(mktemp)
	check_program ingest 405
	check_program query 401
	check_certificate
	rm -f "$errors"
}

# Prints what was found as a JSON document, with ? in place of control characters and without
# the bytes that are not UTF-8, which a log or a setting may contain.
print_document() {
	printf 'STEEP %s: %s\n%s' "$verdict" "${worst:-all is well.}" "$lines" |
		iconv -c -f UTF-8 -t UTF-8 | tr '\001-\011\013-\037\177' '[?*]' | sed -E '
			s/[\\"]/\\&/g
			1 s/^STEEP ([A-Z]+): (.*)/{"status": "\1", "message": "\2", "checks": [/
			1 ! {
				/^(WARNING|CRITICAL|UNKNOWN): / ! s/^/OK: /
				s/^([A-Z]+): (.*)/{"status": "\1", "message": "\2"}/
				$ ! s/$/,/
				$ s/$/]}/
			}'
}

status() {
	if has_services; then
		check_services
		check_nginx_user
		check_settings
		check_programs
	elif [ -n "${STEEP_URL-}" ]; then
		check_programs
	else
		note ok 'The programs were not checked: there is no service steep-ingest here, and STEEP_URL is not set.'
	fi
	check_connections
	check_database
	if [ -n "$json" ]; then
		print_document
	else
		printf 'STEEP %s: %s\n' "$verdict" "${worst:-all is well.}"
		printf '%s' "$lines"
	fi
	case $verdict in
	OK) exit 0 ;;
	WARNING) exit 1 ;;
	CRITICAL) exit 2 ;;
	*) exit 3 ;;
	esac
}
