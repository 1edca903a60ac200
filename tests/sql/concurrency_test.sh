#!/bin/sh
# What takes more than one session: deadlocks, the limit of keys, notifications.
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

# Both start when the lock is let go.
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
expect 'batches with the same ids in other orders do not deadlock' "$bad" ''

# batch_of SOURCE HOUR PREFIX COUNT: SQL for as many events of one hour.
batch_of() {
	cat <<SQL
SELECT inserted_count FROM public.bulk_insert_events((
  SELECT jsonb_agg(jsonb_build_object('id', 'evt_$3' || i, 'source', '$1', 'timestamp', '2096-02-03T$2:30:00Z',
    'type', 'tool', 'payload', '{}'::jsonb))
  FROM generate_series(1, $4) AS i));
SQL
}

# As a session that would fail if it had to wait for another.
at_once() {
	run_psql -c "SET SESSION AUTHORIZATION steep_ingest; SET lock_timeout = '1s'" -c "$1" 2>&1
}

# hold SQL: a transaction that stays open; release SQL ends it.
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

# A session of this database that waits for another.
await_waiting() {
	until [ "$(run_psql -c "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
		AND wait_event_type = 'Lock'")" = 1 ]; do
		sleep 0.02
	done
}

# What is answered, what is noted beside the counts, and where those are wrong.
answered() {
	run_psql -F ' ' -R ', ' -c 'SELECT source, hour, event_count FROM public.get_hourly_aggregates()'
}
noted() {
	run_psql -c 'SELECT coalesce(sum(event_count), 0) FROM public.hourly_count_deltas'
}
wrong() {
	run_psql -c 'SELECT * FROM public.check_hourly_counts()'
}

for end in COMMIT ROLLBACK; do
	case $end in COMMIT) held=5 ;; ROLLBACK) held=0 ;; esac
	run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 1)" >/dev/null
	hold "$(batch_of m 10 b 5)"
	expect 'a batch does not wait for another of its source and hour' "$(at_once "$(batch_of m 10 c 2)")" 2
	expect '... nor does the next' "$(at_once "$(batch_of m 10 d 3)")" 3
	expect '... and a reader sees both, and not what is open' "$(answered)" 'm 10 6'
	expect '... while they are noted' "$(noted)" 5
	expect '... and right' "$(wrong)" ''
	expect_match 'a DELETE waits' "$(at_once 'RESET SESSION AUTHORIZATION; DELETE FROM public.events')" '*lock timeout*'
	release "$end"
	expect "after a $end all is answered" "$(answered)" "m 10 $((6 + held))"
	expect '... and right' "$(wrong)" ''
	expect '... and the next batch' "$(at_once "$(batch_of m 10 e 1)")" 1
	expect '... takes up what was noted' "$(noted)" 0
	expect '... and adds it' "$(answered)" "m 10 $((7 + held))"
done

run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 1) $(batch_of n 10 b 1) $(batch_of o 10 c 1)" >/dev/null
hold "$(batch_of m 10 d 1)"
expect 'of two counts' "$(at_once "$(batch_of m 10 e 1) $(batch_of n 10 f 1)")" '1
1'
release COMMIT
hold "$(batch_of n 10 g 1)"
expect '... one is noted, and two' "$(at_once "$(batch_of n 10 h 2)"):$(noted)" '2:3'
expect 'who begins an hour' "$(at_once "$(batch_of o 11 i 1)")" 1
expect '... takes up what is left over, but for a count that is locked' "$(noted)" 2
expect '... and all is right' "$(wrong)" ''
release ROLLBACK
expect 'who begins the next' "$(at_once "$(batch_of o 12 j 1)")" 1
expect '... takes up that as well' "$(noted)" 0
expect '... and adds it' "$(answered)" 'o 12 1, o 11 1, m 10 3, n 10 4, o 10 1'

hold 'DELETE FROM public.events'
expect 'a batch does not wait for a DELETE' "$(at_once "$(batch_of n 10 k 2)")" 2
expect '... that takes its count away' "$(answered)" 'o 12 1, o 11 1, m 10 3, n 10 6, o 10 1'
release COMMIT
expect '... and is counted without it' "$(answered)" 'n 10 2'
expect '... and right' "$(wrong)" ''
expect 'the next batch' "$(at_once "$(batch_of n 10 l 1)")" 1
expect '... makes the count anew' "$(run_psql -c 'SELECT event_count FROM public.hourly_counts')" 3
expect '... with what was noted' "$(noted)" 0

hold "SAVEPOINT part; $(batch_of n 10 m 5) ROLLBACK TO part; $(batch_of n 10 n 1) $(batch_of n 10 o 1)"
expect 'a batch beside a transaction of several' "$(at_once "$(batch_of n 10 p 1)")" 1
release "$(batch_of n 10 q 1) COMMIT"
expect '... is counted, and they are' "$(answered)" 'n 10 7'
expect '... and noted no more, as the last of them came later' "$(noted)" 0
expect '... and right' "$(wrong)" ''

for level in 'REPEATABLE READ' SERIALIZABLE; do
	hold "SET TRANSACTION ISOLATION LEVEL $level; SELECT now()"
	run_psql -c "$(batch_of n 10 r 1)" >/dev/null
	release "SAVEPOINT part;
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
$(batch_of n 10 s 1) COMMIT"
	expect "an old snapshot at $level fails" "$(grep ERROR "$scratch/holder")" 'ERROR:  40001'
	expect '... and miscounts nothing' "$(wrong)" ''
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
expect 'who waits for a count holds none that comes behind it' "$(cat "$scratch/waits" "$scratch/holder")" ''
expect '... and all is right' "$(answered):$(wrong)" 'm 10 1, n 10 1:'

# Who waits for a count that is just being made goes on with what becomes of it.
for end in COMMIT ROLLBACK; do
	case $end in COMMIT) held=1 ;; ROLLBACK) held=0 ;; esac
	run_psql -c 'TRUNCATE public.events'
	hold "$(batch_of m 10 a 1)"
	run_psql -c "$(batch_of m 10 b 1)" >"$scratch/waits" &
	waiting=$!
	await_waiting
	release "$end"
	wait "$waiting"
	expect "after the $end of an hour's first batch both are counted as they should" "$(answered)" "m 10 $((1 + held))"
	expect '... and right' "$(wrong)" ''
done
run_psql -c 'TRUNCATE public.events'

# add_keys ISOLATION: 12 at once; sets $have
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
expect 'of 12 keys added at once, 8 are' "$have" '8|8'
expect '... and 4 are told why not' "$(grep -c 'at most 8 public keys' "$scratch/keys")" 4
add_keys 'REPEATABLE READ'
expect_match 'an older snapshot makes no ninth' "$have" '[1-8]|[1-8]'
add_keys 'SERIALIZABLE'
expect_match '... at any isolation level' "$have" '[1-8]|[1-8]'

# notified SQL: what a listener hears of another session's change
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
	heard="Asynchronous notification \"${table}_changed\""
	case $table in
	monitor_keys) columns='(source, public_key)' ;;
	access_tokens) columns='(label, token_sha256)' ;;
	esac
	expect "a row inserted into $table is heard of, without a payload" \
		"$(notified "INSERT INTO public.$table $columns VALUES ('x', sha256('x')), ('y', sha256('y'))")" "$heard"
	expect '... one updated' "$(notified "UPDATE public.$table SET created_at = now()")" "$heard"
	expect '... one deleted' "$(notified "DELETE FROM public.$table WHERE created_at < now()")" "$heard"
	expect '... and a TRUNCATE' "$(notified "TRUNCATE public.$table")" "$heard"
	expect '... but nothing that was rolled back' "$(notified "BEGIN; TRUNCATE public.$table; ROLLBACK")" ''
done
finish
