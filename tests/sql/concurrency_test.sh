#!/bin/sh
# Tests of more than one session: deadlocks, waiting, the limit of keys, notifications.
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "$(dirname "$0")/tap.sh"

make_database
PGDATABASE=$database
export PGDATABASE
"$here/../../sql/migrate" >/dev/null

# batch ORDER: SQL for a batch whose ids are in that order
batch() {
	cat <<SQL
SELECT inserted_count FROM public.bulk_insert_events((
  SELECT jsonb_agg(jsonb_build_object('id', 'evt_' || i, 'source', 'm', 'timestamp', now(), 'type', 'tool',
    'payload', '{}'::jsonb) ORDER BY $1)
  FROM generate_series(1, 20000) AS i));
SQL
}

# All start when the lock is released.
together='SELECT pg_advisory_lock_shared(1); SELECT pg_advisory_unlock_shared(1);'
bad=
for round in 1 2 3 4 5 6; do
	run_psql -c 'SELECT pg_advisory_lock(1)' -c 'SELECT pg_sleep(0.3)' >/dev/null &
	sleep 0.1
	i=0
	for order in i 'i DESC' 'md5(i::text)'; do
		i=$((i + 1))
		printf '%s\n' 'SET SESSION AUTHORIZATION steep_ingest;' "$together" "$(batch "$order")" |
			run_psql >"$scratch/$i" 2>&1 &
	done
	wait
	sum=$(cat "$scratch/1" "$scratch/2" "$scratch/3" | awk '/^[0-9]+$/ {n += $1} END {print n}')
	! grep ERROR "$scratch/1" "$scratch/2" "$scratch/3" || bad="$bad $round:error"
	[ "$sum" = 20000 ] || bad="$bad $round:$sum"
	run_psql -c 'TRUNCATE public.events'
done
expect 'batches with the same ids in different orders do not deadlock' "$bad" ''

# batch_of SOURCE HOUR PREFIX COUNT: SQL for a batch of COUNT events in one hour.
batch_of() {
	cat <<SQL
SELECT inserted_count FROM public.bulk_insert_events((
  SELECT jsonb_agg(jsonb_build_object('id', 'evt_$3' || i, 'source', '$1', 'timestamp', '2096-02-03T$2:30:00Z',
    'type', 'tool', 'payload', '{}'::jsonb))
  FROM generate_series(1, $4) AS i));
SQL
}

# at_once SQL: as a program, failing if it has to wait for a lock
at_once() {
	run_psql -c "SET SESSION AUTHORIZATION steep_ingest; SET lock_timeout = '1s'" -c "$1" 2>&1
}

# hold SQL: opens a transaction that stays open; release SQL ends it
hold() {
	rm -f "$scratch/held" "$scratch/holds"
	mkfifo "$scratch/held"
	run_psql <"$scratch/held" >"$scratch/holder" 2>&1 &
	holder=$!
	exec 3>"$scratch/held"
	printf '%s\n' 'BEGIN;' "$1;" "\\! : >'$scratch/holds'" >&3
	until [ -e "$scratch/holds" ]; do
		kill -s 0 "$holder" || {
			cat "$scratch/holder"
			exit 1
		}
		sleep 0.02
	done
}
release() {
	printf '%s;\n' "$1" >&3
	exec 3>&-
	wait "$holder"
}

# await_waiting: until a session of this database waits for a lock
await_waiting() {
	until [ "$(run_psql -c "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
		AND wait_event_type = 'Lock'")" = 1 ]; do
		sleep 0.02
	done
}

# What a query returns, how many events are in deltas, and which counts are wrong.
queried() {
	run_psql -F ' ' -R ', ' -c 'SELECT source, hour, event_count FROM public.get_hourly_aggregates()'
}
in_deltas() {
	run_psql -c 'SELECT coalesce(sum(event_count), 0) FROM public.hourly_count_deltas'
}
wrong() {
	run_psql -c 'SELECT * FROM public.check_hourly_counts()'
}

for end in COMMIT ROLLBACK; do
	case $end in COMMIT) held=5 ;; ROLLBACK) held=0 ;; esac
	run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 1)" >/dev/null
	hold "$(batch_of m 10 b 5)"
	expect 'a batch does not wait for another one of its source and hour' "$(at_once "$(batch_of m 10 c 2)")" 2
	expect '... nor does a third' "$(at_once "$(batch_of m 10 d 3)")" 3
	expect '... and a query counts both, without the open transaction' "$(queried)" 'm 10 6'
	expect '... from the deltas' "$(in_deltas)" 5
	expect '... and the counts are correct' "$(wrong)" ''
	expect_match 'a DELETE waits' "$(at_once 'RESET SESSION AUTHORIZATION; DELETE FROM public.events')" '*lock timeout*'
	release "$end"
	expect "after the $end a query counts everything" "$(queried)" "m 10 $((6 + held))"
	expect '... and the counts are correct' "$(wrong)" ''
	expect '... and the next batch is stored' "$(at_once "$(batch_of m 10 e 1)")" 1
	expect '... removes the deltas' "$(in_deltas)" 0
	expect '... and adds it' "$(queried)" "m 10 $((7 + held))"
done

run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 1) $(batch_of n 10 b 1) $(batch_of o 10 c 1)" >/dev/null
hold "$(batch_of m 10 d 1)"
expect 'two batches, one of them of a locked count, are stored' "$(at_once "$(batch_of m 10 e 1) $(batch_of n 10 f 1)")" '1
1'
release COMMIT
hold "$(batch_of n 10 g 1)"
expect '... and a delta of one is followed by one of two' "$(at_once "$(batch_of n 10 h 2)"):$(in_deltas)" '2:3'
expect 'a batch that starts an hour is stored' "$(at_once "$(batch_of o 11 i 1)")" 1
expect '... removes leftover deltas, except those of a locked count' "$(in_deltas)" 2
expect '... and the counts are correct' "$(wrong)" ''
release ROLLBACK
expect 'a batch that starts the next hour is stored' "$(at_once "$(batch_of o 12 j 1)")" 1
expect '... removes those too' "$(in_deltas)" 0
expect '... and adds it' "$(queried)" 'o 12 1, o 11 1, m 10 3, n 10 4, o 10 1'

hold 'DELETE FROM public.events'
expect 'a batch does not wait for a DELETE' "$(at_once "$(batch_of n 10 k 2)")" 2
expect '... that removes its count' "$(queried)" 'o 12 1, o 11 1, m 10 3, n 10 6, o 10 1'
release COMMIT
expect '... and is counted afterwards' "$(queried)" 'n 10 2'
expect '... and the counts are correct' "$(wrong)" ''
expect 'the next batch is stored' "$(at_once "$(batch_of n 10 l 1)")" 1
expect '... creates the count again' "$(run_psql -c 'SELECT event_count FROM public.hourly_counts')" 3
expect '... with the delta' "$(in_deltas)" 0

hold "SAVEPOINT part; $(batch_of n 10 m 5) ROLLBACK TO part; $(batch_of n 10 n 1) $(batch_of n 10 o 1)"
expect 'a batch does not wait for a transaction of several batches' "$(at_once "$(batch_of n 10 p 1)")" 1
release "$(batch_of n 10 q 1) COMMIT"
expect '... it and they are counted' "$(queried)" 'n 10 7'
expect '... and no delta is left, since the last of them came later' "$(in_deltas)" 0
expect '... and the counts are correct' "$(wrong)" ''

for level in 'REPEATABLE READ' SERIALIZABLE; do
	hold "SET TRANSACTION ISOLATION LEVEL $level; SELECT now()"
	run_psql -c "$(batch_of n 10 r 1)" >/dev/null
	release "SAVEPOINT part;
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
$(batch_of n 10 s 1) COMMIT"
	expect "an old snapshot at $level fails" "$(grep ERROR "$scratch/holder")" 'ERROR:  40001'
	expect '... and the counts are correct' "$(wrong)" ''
	run_psql -c "DELETE FROM public.events WHERE id = 'evt_r1'"
done

run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 2) $(batch_of n 10 b 2)" >/dev/null
hold "DELETE FROM public.events WHERE id = 'evt_a1'"
run_psql -c "SELECT public.change_hourly_counts('{n,m}', array_fill('2096-02-03T10:00Z'::timestamptz, '{2}'), '{0,0}')" \
	>"$scratch/waits" 2>&1 &
waiting=$!
await_waiting
release "DELETE FROM public.events WHERE id = 'evt_b1'; COMMIT"
wait "$waiting" || :
expect 'a session that waits for a count holds none that follows it' "$(cat "$scratch/waits" "$scratch/holder")" ''
expect '... and the counts are correct' "$(queried):$(wrong)" 'm 10 1, n 10 1:'

# Whatever uses events and counts waits for a TRUNCATE before it locks a count.
run_psql -c "$(batch_of m 10 a 1)" >/dev/null
echo 'SELECT * FROM public.get_hourly_aggregates();' >"$scratch/query.sql"
sql=$here/../../sql
for file in "$sql/status.sql" "$sql/admin/counts-check.sql" "$sql/admin/counts-rebuild.sql" \
	"$sql/admin/prune-check.sql" "$scratch/query.sql"; do
	hold 'LOCK TABLE public.events'
	run_psql -v known= -v access="$(cat "$sql/access.sql")" -v days=1 -f "$file" >"$scratch/waits" 2>&1 &
	waiting=$!
	await_waiting
	release 'TRUNCATE public.events; COMMIT'
	wait "$waiting" || :
	expect "a TRUNCATE does not deadlock with ${file##*/}" "$(grep -h ERROR "$scratch/waits" "$scratch/holder")" ''
done

# A batch that waits for a count being created continues after its COMMIT or ROLLBACK.
for end in COMMIT ROLLBACK; do
	case $end in COMMIT) held=1 ;; ROLLBACK) held=0 ;; esac
	run_psql -c 'TRUNCATE public.events'
	hold "$(batch_of m 10 a 1)"
	run_psql -c "$(batch_of m 10 b 1)" >"$scratch/waits" &
	waiting=$!
	await_waiting
	release "$end"
	wait "$waiting"
	expect "after the $end of an hour's first batch the waiting one is counted correctly" "$(queried)" "m 10 $((1 + held))"
	expect '... and the counts are correct' "$(wrong)" ''
done
run_psql -c 'TRUNCATE public.events'

# add_keys ISOLATION: adds 12 at once; sets $have
add_keys() {
	run_psql -c 'SELECT pg_advisory_lock(1)' -c 'SELECT pg_sleep(0.3)' >/dev/null &
	sleep 0.1
	for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
		run_psql -c "BEGIN ISOLATION LEVEL $1; SELECT pg_advisory_lock_shared(1);
			INSERT INTO public.monitor_keys (source, public_key) VALUES ('m', sha256('$i')); SELECT pg_sleep(0.05); COMMIT" \
			>/dev/null 2>>"$scratch/keys" &
	done
	wait
	have=$(run_psql -c 'SELECT count(*), max(slot) FROM public.monitor_keys')
	run_psql -c 'DELETE FROM public.monitor_keys'
}
add_keys 'READ COMMITTED'
expect 'of 12 keys added at once, 8 are stored' "$have" '8|8'
expect '... and 4 refused with a reason' "$(grep -c 'at most 8 public keys' "$scratch/keys")" 4
add_keys 'REPEATABLE READ'
expect_match 'an older snapshot cannot add a ninth' "$have" '[1-8]|[1-8]'
add_keys 'SERIALIZABLE'
expect_match '... at any isolation level' "$have" '[1-8]|[1-8]'

# notified SQL: what a listener receives when another session runs it
notified() {
	cat >"$scratch/listen" <<SQL
LISTEN monitor_keys_changed;
LISTEN access_tokens_changed;
\\! psql -X -q -c "$1"
SELECT;
SQL
	run_psql -f "$scratch/listen" 2>&1 | grep -v '^$' | sed 's/ received from.*//'
}
for table in monitor_keys access_tokens; do
	received="Asynchronous notification \"${table}_changed\""
	case $table in
	monitor_keys) columns='(source, public_key)' ;;
	access_tokens) columns='(label, token_sha256)' ;;
	esac
	expect "an INSERT into $table notifies, with an empty payload" \
		"$(notified "INSERT INTO public.$table $columns VALUES ('x', sha256('x')), ('y', sha256('y'))")" "$received"
	expect '... an UPDATE' "$(notified "UPDATE public.$table SET created_at = now()")" "$received"
	expect '... a DELETE' "$(notified "DELETE FROM public.$table WHERE created_at < now()")" "$received"
	expect '... and a TRUNCATE' "$(notified "TRUNCATE public.$table")" "$received"
	expect '... and not if it is rolled back' "$(notified "BEGIN; TRUNCATE public.$table; ROLLBACK")" ''
done
finish
