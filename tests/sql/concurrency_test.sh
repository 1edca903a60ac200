#!/bin/sh
# Tests of more than one session: deadlocks, waiting, the limit of keys, notifications.
# shellcheck source-path=SCRIPTDIR source=tap.sh
. "$(dirname "$0")/tap.sh"

make_database
PGDATABASE=$database
export PGDATABASE
"$here/../../sql/migrate" >/dev/null

# events ORDER: an aggregate of i, as a batch in that order
events() {
	echo "jsonb_agg(jsonb_build_object('id', 'evt_' || i, 'source', 'm', 'timestamp', now(), 'type', 'tool',
	'payload', '{}'::jsonb) ORDER BY $1)"
}

# batch ORDER: SQL for a batch whose ids are in that order
batch() {
	echo "SELECT inserted_count FROM public.bulk_insert_events((SELECT $(events "$1") FROM generate_series(1, 20000) AS i));"
}

# group ORDER COUNT: SQL for the same events as a group of COUNT batches, each in that order
group() {
	echo "SELECT sum(inserted_count) FROM public.bulk_insert_batches(ARRAY(SELECT generate_series(1, $2)),
	ARRAY(SELECT $(events "$1") FROM generate_series(1, 20000) AS i GROUP BY i % $2));"
}

# race SQL...: the rounds in which statements that start at once failed, or did not store every event once
race() {
	for round in 1 2 3 4 5 6; do
		run_psql -c 'SELECT pg_advisory_lock(1)' -c 'SELECT pg_sleep(0.3)' >/dev/null &
		sleep 0.1
		i=0
		for statement; do
			i=$((i + 1))
			# All start when the lock is released.
			printf '%s\n' 'SET SESSION AUTHORIZATION steep_ingest;' \
				'SELECT pg_advisory_lock_shared(1); SELECT pg_advisory_unlock_shared(1);' "$statement" |
				run_psql >"$scratch/$i" 2>&1 &
		done
		wait
		sum=$(cat "$scratch/1" "$scratch/2" "$scratch/3" | awk '/^[0-9]+$/ {n += $1} END {print n}')
		! grep -h ERROR "$scratch/1" "$scratch/2" "$scratch/3" || echo "$round:error"
		[ "$sum" = 20000 ] || echo "$round:$sum"
		run_psql -c 'TRUNCATE public.events'
	done
}
expect 'batches with the same ids in different orders do not deadlock' \
	"$(race "$(batch i)" "$(batch 'i DESC')" "$(batch 'md5(i::text)')")" ''
expect '... nor do groups of batches, and a batch alone' \
	"$(race "$(group i 3)" "$(group 'i DESC' 16)" "$(batch 'md5(i::text)')")" ''

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

# await_waiting COUNT: until so many sessions of this database wait for a lock
await_waiting() {
	until [ "$(run_psql -c "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
		AND wait_event_type = 'Lock'")" = "$1" ]; do
		sleep 0.02
	done
}

# What a query returns, and which counts are wrong.
queried() {
	run_psql -F ' ' -R ', ' -c 'SELECT source, hour, event_count FROM public.get_hourly_aggregates()'
}
wrong() {
	run_psql -c 'SELECT * FROM public.check_hourly_counts()'
}

# begin_waiting SQL: runs it in a session that waits for a lock; end_waiting: its output, when it has ended
begin_waiting() {
	run_psql -c "$1" >"$scratch/waits" 2>&1 &
	waiting=$!
	await_waiting 1
}
end_waiting() {
	wait "$waiting" || :
	cat "$scratch/waits"
}

# of_ids SOURCE IDS...: SQL for a group; IDS are those of one batch, with spaces between
of_ids() {
	source=$1 batches=
	shift
	for ids; do
		batches="$batches, (SELECT jsonb_agg(jsonb_build_object('id', id, 'source', '$source', 'timestamp', now(), 'type', 'tool',
			'payload', '{}'::jsonb)) FROM regexp_split_to_table('$ids', ' ') AS id)"
	done
	echo "SELECT sum(inserted_count) FROM public.bulk_insert_batches(ARRAY(SELECT generate_series(1, $#)), ARRAY[${batches#,}])"
}

# Stored batch by batch, both groups would hold their first ids while they wait for evt_k.
for end in COMMIT ROLLBACK; do
	for first in '' 'evt_a '; do
		run_psql -c "$(of_ids o evt_a)" >/dev/null
		hold "$(of_ids p evt_k)"
		run_psql -c "$(of_ids m "${first}evt_x" evt_k evt_y)" >"$scratch/1" 2>&1 &
		one=$!
		run_psql -c "$(of_ids n "${first}evt_y" evt_k evt_x)" >"$scratch/2" 2>&1 &
		other=$!
		await_waiting 2
		release "$end"
		wait "$one" || :
		wait "$other" || :
		case $end in COMMIT) inserted=2 ;; ROLLBACK) inserted=3 ;; esac
		expect "after a $end of an id, groups that wait for it store each other's ids${first:+, one of which exists}" \
			"$(awk '{n += $1} /ERROR/ {print} END {print n}' "$scratch/1" "$scratch/2")" "$inserted"
		expect '... and the counts are correct' "$(wrong)" ''
		run_psql -c 'TRUNCATE public.events'
	done
done

for end in COMMIT ROLLBACK; do
	case $end in COMMIT) held=5 ;; ROLLBACK) held=0 ;; esac
	run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 1)" >/dev/null
	hold "$(batch_of m 10 b 5)"
	expect_match 'a batch waits for another one of its source and hour' "$(at_once "$(batch_of m 10 c 1)")" '*lock timeout*'
	expect '... not for one of another hour' "$(at_once "$(batch_of m 11 d 2)")" 2
	expect '... or source' "$(at_once "$(batch_of n 10 e 3)")" 3
	expect '... and a query does not wait, and counts without the open transaction' "$(queried)" 'm 11 2, m 10 1, n 10 3'
	expect '... and the counts are correct' "$(wrong)" ''
	expect_match 'a DELETE waits' "$(at_once "RESET SESSION AUTHORIZATION; DELETE FROM public.events WHERE id = 'evt_a1'")" '*lock timeout*'
	begin_waiting "$(batch_of m 10 f 2)"
	release "$end"
	expect "after the $end the waiting batch is stored" "$(end_waiting)" 2
	expect '... and a query counts everything' "$(queried)" "m 11 2, m 10 $((3 + held)), n 10 3"
	expect '... and the counts are correct' "$(wrong)" ''
	expect '... and the next batch is stored' "$(at_once "$(batch_of m 10 g 1)")" 1
	expect '... and added' "$(queried)" "m 11 2, m 10 $((4 + held)), n 10 3"
done

for end in COMMIT ROLLBACK; do
	case $end in COMMIT) left='n 10 2' ;; ROLLBACK) left='m 10 1, n 10 3' ;; esac
	run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 1) $(batch_of n 10 b 1)" >/dev/null
	hold 'DELETE FROM public.events'
	begin_waiting "$(batch_of n 10 c 2)"
	expect 'a query does not wait for a DELETE and a batch that waits for it' "$(queried)" 'm 10 1, n 10 1'
	release "$end"
	expect "after the $end the waiting batch is stored" "$(end_waiting)" 2
	expect '... and counted' "$(queried)" "$left"
	expect '... and the counts are correct' "$(wrong)" ''
done

run_psql -c 'TRUNCATE public.events' -c "$(batch_of n 10 l 3)" >/dev/null
hold "SAVEPOINT part; $(batch_of n 10 m 5) ROLLBACK TO part; $(batch_of n 10 n 1) $(batch_of n 10 o 1)"
begin_waiting "$(batch_of n 10 p 1)"
release "$(batch_of n 10 q 1) COMMIT"
expect 'a batch waits for a transaction of several batches' "$(end_waiting)" 1
expect '... it and they are counted' "$(queried)" 'n 10 7'
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

# Both wait for the count of m, the first in order, and do not hold that of n meanwhile.
change="SELECT public.change_hourly_counts('{n,m}', array_fill('2096-02-03T10:00Z'::timestamptz, '{2}'), '{0,0}')"
insert="INSERT INTO public.events (id, source, timestamp, event_type, payload)
	SELECT 'evt_' || source, source, '2096-02-03T10:30Z', 'tool', '{}' FROM unnest('{n,m}'::text[]) AS source"
for statement in "$change" "$insert"; do
	run_psql -c 'TRUNCATE public.events' -c "$(batch_of m 10 a 2) $(batch_of n 10 b 2)" >/dev/null
	hold "DELETE FROM public.events WHERE id = 'evt_a1'"
	begin_waiting "$statement"
	release "DELETE FROM public.events WHERE id = 'evt_b1'; COMMIT"
	expect 'a session that waits for a count holds none that follows it' "$(end_waiting; cat "$scratch/holder")" ''
	case $statement in "$change") left='m 10 1, n 10 1' ;; *) left='m 10 2, n 10 2' ;; esac
	expect '... and the counts are correct' "$(queried):$(wrong)" "$left:"
done

# Whatever uses events and counts waits for a TRUNCATE before it locks a count.
run_psql -c "$(batch_of m 10 a 1)" >/dev/null
echo 'SELECT * FROM public.get_hourly_aggregates();' >"$scratch/query.sql"
sql=$here/../../sql
for file in "$sql/status.sql" "$sql/admin/counts-check.sql" "$sql/admin/counts-rebuild.sql" \
	"$sql/admin/prune-check.sql" "$sql/admin/source-list.sql" "$scratch/query.sql"; do
	hold 'LOCK TABLE public.events'
	run_psql -v known= -v access="$(cat "$sql/access.sql")" -v connections= -v days=1 -f "$file" >"$scratch/waits" 2>&1 &
	waiting=$!
	await_waiting 1
	release 'TRUNCATE public.events; COMMIT'
	wait "$waiting" || :
	expect "a TRUNCATE does not deadlock with ${file##*/}" "$(grep -h ERROR "$scratch/waits" "$scratch/holder")" ''
done

# A batch that waits for a count being created continues after its COMMIT or ROLLBACK.
for end in COMMIT ROLLBACK; do
	case $end in COMMIT) held=1 ;; ROLLBACK) held=0 ;; esac
	run_psql -c 'TRUNCATE public.events'
	hold "$(batch_of m 10 a 1)"
	begin_waiting "$(batch_of m 10 b 1)"
	release "$end"
	expect "after the $end of an hour's first batch the waiting one is stored" "$(end_waiting)" 1
	expect '... and counted correctly' "$(queried)" "m 10 $((1 + held))"
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

# A program has read up to a mark, and asks what changed since. What is committed later must come
# later in the history, so a second change waits for the end of the first.
add_key() {
	echo "INSERT INTO public.monitor_keys (source, public_key) VALUES ('$1', sha256('1'))"
}
add_token() {
	echo "INSERT INTO public.access_tokens (label, token_sha256) VALUES ('$1', sha256('$1'))"
}
for list in monitor_keys access_tokens; do
	case $list in monitor_keys) add=add_key name=source ;; access_tokens) add=add_token name=label ;; esac
	run_psql -c "$($add first)"
	mark=$(run_psql -c "SELECT mark FROM public.list_$list() LIMIT 1")
	hold "$($add late)"
	for change in "$($add soon)" "UPDATE public.$list SET created_at = now()" "DELETE FROM public.$list" "TRUNCATE public.$list"; do
		expect_match "${change%% *} waits for another change of $list" \
			"$(run_psql -c "SET lock_timeout = '300ms'" -c "$change" 2>&1)" '*lock timeout*'
	done
	begin_waiting "$($add soon)"
	expect '... and a program does not wait' "$(run_psql -c "SELECT count(*) FROM public.list_$list('$mark')")" 1
	release COMMIT
	expect '... the second is stored after the first' "$(end_waiting)" ''
	expect '... and both are listed, in the order of their ends' \
		"$(run_psql -c "SELECT names FROM public.credential_changes WHERE list = '$list' ORDER BY version DESC LIMIT 2")" "{soon}
{late}"
	expect '... as changed' "$(run_psql -c "SELECT $name FROM public.list_$list('$mark') OFFSET 1")" 'late
soon'
	run_psql -c "DELETE FROM public.$list"
done

# Programs that follow the changes of four sessions have in the end what a whole read has.
run_psql <<'SQL'
CREATE TABLE seen (follower integer, source text, public_key bytea);
CREATE TABLE over ();
CREATE PROCEDURE follow(me integer) LANGUAGE plpgsql AS $$
DECLARE
  since uuid;
  latest uuid;
  answer record;
  previous text;
  is_last boolean;
BEGIN
  LOOP
    is_last := EXISTS (SELECT FROM over);
    latest := NULL;
    previous := '';
    FOR answer IN SELECT * FROM public.list_monitor_keys(since) LOOP
      latest := coalesce(answer.mark, latest);
      IF answer.mark IS NOT NULL THEN
        DELETE FROM seen WHERE since IS NULL AND follower = me;
        CONTINUE;
      END IF;
      DELETE FROM seen WHERE follower = me AND source = answer.source AND answer.source <> previous;
      previous := answer.source;
      INSERT INTO seen SELECT me, answer.source, answer.public_key WHERE answer.public_key IS NOT NULL;
    END LOOP;
    IF since IS NOT NULL AND latest IS NULL THEN
      RAISE 'the mark % is unknown', since;
    END IF;
    since := latest;
    COMMIT;
    EXIT WHEN is_last;
  END LOOP;
END
$$;
CREATE PROCEDURE change(rounds integer) LANGUAGE plpgsql AS $$
BEGIN
  FOR n IN 1..rounds LOOP
    FOR i IN 1..1 + floor(random() * 2) LOOP
      IF random() < 0.6 THEN
        INSERT INTO public.monitor_keys (source, public_key)
        VALUES ('m' || floor(random() * 40), sha256(floor(random() * 4)::text::bytea)) ON CONFLICT DO NOTHING;
      ELSE
        DELETE FROM public.monitor_keys WHERE source = 'm' || floor(random() * 40);
      END IF;
      PERFORM pg_sleep(random() * 0.005);
    END LOOP;
    IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
  END LOOP;
END
$$;
SQL
followers='' writers=''
for each in 1 2; do
	run_psql -c "CALL follow($each)" >"$scratch/follower$each" 2>&1 &
	followers="$followers $!"
done
for each in 1 2 3 4; do
	run_psql -c 'CALL change(60)' >"$scratch/writer$each" 2>&1 &
	writers="$writers $!"
done
for each in $writers; do
	wait "$each" || :
done
run_psql -c 'INSERT INTO over DEFAULT VALUES'
for each in $followers; do
	wait "$each" || :
done
expect 'four sessions change keys at once without an error' "$(cat "$scratch"/writer? "$scratch"/follower?)" ''
for each in 1 2; do
	expect "... and who follows the changes misses none ($each)" "$(run_psql -c "
		WITH listed AS (SELECT source, public_key FROM public.monitor_keys), followed AS (SELECT source, public_key FROM seen WHERE follower = $each)
		SELECT 'missed', * FROM (TABLE listed EXCEPT TABLE followed) AS missed
		UNION ALL SELECT 'stale', * FROM (TABLE followed EXCEPT TABLE listed) AS stale")" ''
done
expect '... of many' "$(run_psql -c "SELECT count(*) > 50 FROM public.credential_changes WHERE list = 'monitor_keys'")" t
run_psql -c 'DROP PROCEDURE follow' -c 'DROP PROCEDURE change' -c 'DROP TABLE seen, over' -c 'DELETE FROM public.monitor_keys'

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
