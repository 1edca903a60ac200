# What steepctl asks the database, through psql. Sourced by steepctl.
# shellcheck shell=sh disable=SC2034,SC2154 # set by steepctl, and read by other files of it

# In a checkout: the database of deploy/run, if it is running. Else that of the installed
# programs, as PostgreSQL's administrator if it is on this machine.
choose_database() {
	[ -z "${PGHOST-}" ] || return 0
	if [ -d "$here/admin" ]; then
		take_settings "${STEEP_STATE:-$here/../var}/run.env" PGUSER STEEP_URL STEEP_CA
	else
		take_settings /etc/steep/ingest.env
		case ${PGHOST-} in /*) export PGUSER="${PGUSER:-postgres}" ;; esac
	fi
}

# take_settings FILE [NAME…]: exports the database's variables from FILE, and those named.
take_settings() {
	[ -r "$1" ] || return 0
	file=$1
	shift
	for variable in PGHOST PGPORT PGDATABASE "$@"; do
		value=$(setting_of "$file" "$variable")
		[ -z "$value" ] || export "$variable=$value"
	done
}

# run_sql FILE [-v NAME=VALUE]…: runs a file of sql/; an error ends steepctl with one
# sentence. Sets $errors to what psql wrote to standard error.
run_sql() {
	file=$sql/$1
	shift
	{
		errors=$(psql -X -q -A -t -F '	' -v ON_ERROR_STOP=1 ${json:+"$json"} "$@" -f "$sql/admin/session.sql" -f "$file" 2>&1 1>&3 3>&-)
	} 3>&1 || {
		# 128 + SIGPIPE: the reader of the output has ended.
		[ $? -ne 141 ] || exit 141
		refuse "$(sentence "$errors")"
	}
}

# run_steps UNIT FILE [-v NAME=VALUE]…: runs a file of sql/ that prepares steps, then the steps,
# and shows their progress. Sets $prepared to the words that the file's :begin returned, of which
# the first is the number of UNITs to change, and $changed to how many the steps changed.
run_steps() {
	unit=$1 file=$sql/$2
	shift 2
	run_reporting "$unit" "$@" -f "$file" -f "$sql/admin/steps.sql"
}

# run_reporting UNIT ARGUMENT…: runs psql with files that report their progress, as read_report
# describes. Sets $prepared and $changed.
run_reporting() {
	unit=$1
	shift
	{
		report=$({
			psql -X -q -A -t -F '	' -v ON_ERROR_STOP=1 ${json:+"$json"} -f "$sql/admin/session.sql" "$@" 2>&1 1>&3 3>&- ||
				echo "psql ended with status $?"
		} | read_report "$unit")
	} 3>&1
	case $report in
	failed*) refuse "$(sentence "${report#failed}")" ;;
	esac
	changed=${report%% *} prepared=${report#* }
}

# read_report UNIT: reads psql's errors: "prepared" with the number of UNITs expected, and
# others; then, as INFO or NOTICE, how many more of them are done. Prints how many that were, and
# what was prepared; or "failed" and what psql printed.
read_report() {
	changed=0 prepared=0 messages=''
	begin_progress
	while IFS= read -r line; do
		case $line in
		'prepared '*) prepared=${line#* } ;;
		psql:*' INFO:  prepared '*) prepared=${line##* INFO:  prepared } ;;
		psql:*' INFO:  '[0-9]* | psql:*' NOTICE:  '[0-9]*)
			changed=$((changed + ${line##*:  }))
			show_progress "$changed" "${prepared%% *}" "$1"
			;;
		'psql ended with status '*)
			end_progress
			printf 'failed%s%s' "$messages" "$line"
			return 0
			;;
		*) messages="$messages$line
" ;;
		esac
	done
	end_progress
	printf '%s %s' "$changed" "$prepared"
}

# migrate [--shards]. The output of migrate is printed at its end where a line of progress would be in its way.
migrate() {
	status=0 output=''
	begin_watch run_sql admin/migrate-progress.sql -w
	if [ -n "$watch" ] && [ -t 2 ]; then
		output=$("$sql/migrate" "$@" 2>&1) || status=$?
	else
		"$sql/migrate" "$@" || status=$?
	fi
	end_watch
	[ -z "$output" ] || if [ "$status" -eq 0 ]; then
		printf '%s\n' "$output"
	else
		printf '%s\n' "$output" >&2
	fi
	return "$status"
}

sentence() {
	case $1 in
	*'] REMOTE ERROR: '*) printf '%s\n' "$1" | sed -n 's/^psql:.*\] REMOTE ERROR: //p;s/^HINT:  Remote hint: /. /p' | tr -d '\n' ;;
	*'] REMOTE '* | *'PL/Proxy function'*) printf 'a shard cannot be reached or takes too long; see steepctl shards check' ;;
	*'connection to server'* | *'could not translate'*)
		printf 'no connection to the database: %s' "$(printf '%s\n' "$1" | sed -n '
			1s/.*on socket "\([^"]*\)" failed: \(No such file.*\)/\1: \2/
			1s/.*failed: //;1s/^psql: error: //;1s/^FATAL:  //;1p')"
		;;
	*'relation "public.'*'does not exist'* | *'function public.'*'does not exist'*) printf 'the database is not migrated; run steepctl migrate' ;;
	*'lock timeout'*) printf 'another session holds a conflicting lock; see pg_stat_activity' ;;
	*'could not write'*'Broken pipe'* | *'could not print'*'Broken pipe'*) printf 'the reader of the output ended early' ;;
	*'could not write'* | *'could not print'*) printf 'the output is incomplete: %s' "$(printf '%s\n' "$1" | sed -nE 's/.*could not (write|print) [^:]*: //p' | head -n 1)" ;;
	*'permission denied'* | *'row-level security'*) printf 'permission denied; set PGUSER to a role that may administer the database' ;;
	*ERROR:*) printf '%s\n' "$1" | sed -n 's/^psql:.*:[0-9]*: ERROR:  //p;s/^HINT:  /. /p' | tr -d '\n' ;;
	*) printf 'psql failed: %s' "$1" ;;
	esac
}
