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
