#!/bin/sh
# No payload is in PostgreSQL's log, whatever the operator logs: one private cluster with
# default settings, and one that logs everything.
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "$(dirname "$0")/tap.sh"

insert='SELECT inserted_count FROM public.bulk_insert_events(:batch::text::jsonb);'
find='SELECT * FROM public.find_invalid_events(ARRAY[:batch]::text[]);'
count='SELECT public.count_foreign_ids(:batch::text::jsonb);'
event='{"id": "evt_1", "source": "MARK", "timestamp": "2026-02-03T14:35:00Z", "type": "tool", "payload": {"x": "MARK"}}'

# leaks: the number of lines with the mark; a printed plan has it as numbers, and has an
# unrelated PLANROWMARK
leaks() {
	sed 's/ROWMARK//' "$cluster/log" | grep -c 'MARK\|77 65 82 75' || :
}

# send USER SQL BATCH: the batch as a parameter of the extended protocol, as the programs do
send() {
	echo "$2" >"$scratch/script"
	"$bindir/pgbench" -n -M extended -t 1 -U "$1" -D "batch=$3" -f "$scratch/script" "$PGDATABASE" >"$scratch/sent" 2>&1 || :
}

# send_all USER: batches that are stored, and batches refused for every reason
send_all() {
	send "$1" "$insert" "[$event]"
	send "$1" "$insert" "[$event]"
	send "$1" "$count" "[$event]"
	for bad in '"\u0000 MARK"' 'MARK' '"\ud800 MARK"' 'NaN, "MARK": 1' '1e131072, "x": "MARK"' '"MARK' "\"MARK$(printf '\001')\""; do
		broken=$(echo "$event" | sed 's/"payload": .*//')"\"payload\": {\"x\": $bad}}"
		send "$1" "$insert" "[$broken]"
		send "$1" "$find" "$broken"
	done
	for change in 's/2026-02-03/MARK/' 's/2026-02-03T/2026-02-30TMARK/' 's/00Z/00 Mars\/MARK/' 's/"tool"/"MARK"/' \
		's/"id"/"MARK"/' 's/"timestamp"/"MARK"/' 's/evt_1/'"$(printf '%0300d' 0)"'/'; do
		broken=$(echo "$event" | sed "$change")
		send "$1" "$insert" "[$broken]"
		send "$1" "$find" "$broken"
	done
	send "$1" "$insert" '{"MARK": "MARK"}'
	send "$1" "$insert" '"MARK"'
}

# await SQL: until it returns t, for at most 5 seconds
await() {
	for _ in $(seq 50); do
		[ "$(run_psql -c "$1")" != t ] || return 0
		sleep 0.1
	done
}

# send_blocked SECONDS SQL: a batch that waits for another session that inserted its id
send_blocked() {
	run_psql -c 'BEGIN' -c "INSERT INTO public.events VALUES ('evt_b', 'm', now(), 'tool', '{}')" \
		-c "SELECT pg_sleep($1)" -c 'ROLLBACK' >/dev/null &
	await "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep($1)' AND state = 'active'"
	send steep_ingest "$2" "[$(echo "$event" | sed 's/evt_1/evt_b/')]"
	wait
}

# deadlock: the other session fails, and its DETAIL quotes the statement of steep_ingest
deadlock() {
	mkfifo "$scratch/other"
	run_psql <"$scratch/other" >"$scratch/loser" 2>&1 &
	exec 4>"$scratch/other"
	echo "SET deadlock_timeout = '10ms'; BEGIN; INSERT INTO public.events VALUES ('evt_z', 'm', now(), 'tool', '{}');" >&4
	await "SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"
	send steep_ingest "$insert" "[$(echo "$event" | sed 's/evt_1/evt_y/'), $(echo "$event" | sed 's/evt_1/evt_z/')]" &
	await "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'steep_ingest' AND wait_event_type = 'Lock'"
	echo "INSERT INTO public.events VALUES ('evt_y', 'm', now(), 'tool', '{}');" >&4
	exec 4>&-
	wait
	rm "$scratch/other"
}

# try_cluster DESCRIPTION SETTING...
try_cluster() {
	kind=$1
	shift
	if ! start_cluster "$@"; then
		skip "nothing leaks, $kind" 'no private cluster here'
		return
	fi
	make_database
	PGDATABASE=$database "$here/../../sql/migrate" >/dev/null
	PGDATABASE=$database
	export PGDATABASE

	send_all steep_ingest
	expect "one event was stored, $kind" "$(run_psql -c 'SELECT count(*) FROM public.events')" 1
	expect 'no batch is in the log, stored or refused' "$(leaks)" 0

	send_blocked 6 "$insert"
	expect_match '... nor one that waited too long for a lock' "$(cat "$scratch/sent")" '*canceling statement due to lock timeout*'
	send_blocked 2 "SET statement_timeout = '1s'; $insert"
	expect_match '... or ran too long' "$(cat "$scratch/sent")" '*canceling statement due to statement timeout*'
	expect '... (neither is quoted)' "$(leaks)" 0
	deadlock
	expect "a deadlock quotes the program's statement" "$(grep -c 'Process.*bulk_insert_events([$]1::text::jsonb)' "$cluster/log")" 1
	expect '... without its parameter' "$(leaks)" 0

	send steep_ingest "SELECT public.log_failure(ARRAY['0a1c', :batch::text, '0a1d'], '55P03');" "$(printf '0a1b\n2026 LOG:  forged')"
	expect 'a failed request is one line, whatever its id contains' \
		"$(grep -c 'LOG:  request 0a1b2026LOGforged failed with SQLSTATE 55P03$' "$cluster/log"):$(grep -c '^.2026 LOG: \|^2026 LOG: ' "$cluster/log")" 1:0
	expect '... and so is each other of its group' "$(grep -c 'LOG:  request 0a1[cd] failed with SQLSTATE 55P03$' "$cluster/log")" 2

	# The same from a role without the settings, to see that this test finds leaks.
	send_all postgres
	expect_match "without the role's settings there are leaks, $kind" "$(leaks)" '[1-9]*'

	as_cluster_user "$bindir/pg_ctl" -D "$cluster/data" -m immediate stop >/dev/null
	rm -rf "$cluster"
	cluster=
	databases=
}

try_cluster 'with default settings'
try_cluster 'with everything logged' \
	'log_statement = all' 'log_min_duration_statement = 0' 'log_min_messages = debug1' 'log_min_error_statement = debug5' \
	'log_error_verbosity = verbose' 'log_parameter_max_length = -1' 'log_parameter_max_length_on_error = -1' \
	'log_lock_waits = on' 'debug_print_plan = on' 'debug_print_parse = on' "log_line_prefix = '%m [%p] %q%u@%d '" \
	"session_preload_libraries = 'auto_explain'" 'auto_explain.log_min_duration = 0' 'auto_explain.log_verbose = on' \
	'auto_explain.log_nested_statements = on' 'auto_explain.log_analyze = on'
finish
