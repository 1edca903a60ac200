"""Queries that a standby answers, and batches that follow a standby which was promoted."""

import concurrent.futures
import contextlib
import datetime
import itertools
import os
import re
import threading
import time

import pytest

from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode
from pooler import PORT
from replicas import NAME, Pair, Replica, behind, both_cabled
from stack import SLOWNESS, wait_for
from test_contract import SOON
from test_health import BOTH
from test_pgbouncer import pooler  # noqa: F401

TOKEN = "standby-token-0123456789"
SENDER = Monitor("standby-monitor")
STALENESS = 10


@pytest.fixture(scope="module")
def model(stack):
    made = Replica(stack, "model")
    made.prepare()
    made.stop()
    yield made
    made.remove()


@pytest.fixture
def pair(stack, model):
    made = Pair(stack, model)
    try:
        made.attach()
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def ingesting(stack, environment, **more):
    with program(stack, "ingest", passed=BOTH, **(environment | {"VIBETEA_PUBLIC_KEYS": f"{SENDER.source}:{SENDER.public_base64}",
                                                               "PGTARGETSESSIONATTRS": "read-write"} | more)) as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "ingest to be ready", 40)
        yield instance


@contextlib.contextmanager
def querying(stack, environment, **more):
    with program(stack, "query", passed=BOTH, **(environment | {"VIBETEA_SUBSCRIBER_TOKEN": TOKEN, "STEEP_STALENESS": str(STALENESS),
                                                              "PGTARGETSESSIONATTRS": "prefer-standby"} | more)) as instance:
        wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "query to be ready", 40)
        yield instance


@contextlib.contextmanager
def serving(stack, pair, **more):
    """Both programs; the heartbeat comes from ingest."""
    with ingesting(stack, pair.hosts(), **more) as ingest:
        wait_for(lambda: pair.standby.ask("SELECT count(*) FROM public.heartbeat") == 1, "a heartbeat")
        with querying(stack, pair.hosts(), **more) as query:
            yield ingest, query


def send(instance, events):
    body = encode(events)
    return instance.ask(ingest_params(body, SENDER), body)


def post(instance, count=1):
    """Store so many new events; when that was acknowledged."""
    events = [SENDER.event() for _ in range(count)]
    answer = send(instance, events)
    assert answer.status_code == 200 and answer.json()["inserted"] == count, answer.text
    return now()


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def ask(instance):
    """The number of events that an answer counts, and as of when it is; None if there is no answer."""
    answer = instance.ask(query_params(TOKEN, "days=7"))
    if answer.status_code != 200:
        assert answer.status_code == 503, answer.text
        return None
    body = answer.json()
    return (sum(row["eventCount"] for row in body["aggregates"]), datetime.datetime.fromisoformat(body["meta"]["fetchedAt"]))


def host_lines(instance):
    return re.findall(r'event=host .*?detail="([^"]*)"', instance.errors.read_text())


def on_standby(pair):
    primary, standby = pair.sessions("query.fcgi")
    return standby > 0 and primary == 0


def test_the_standby_answers_and_says_as_of_when(stack, pair):
    with serving(stack, pair) as (ingest, query):
        acknowledged = [post(ingest) for _ in range(3)]
        # Without another transaction it is the heartbeat that tells of the time since.
        count, fetched = wait_for(lambda: (seen := ask(query)) and seen[1] > acknowledged[-1] and seen, "the standby to have seen them")
        assert count == 3 and fetched <= now()
        assert on_standby(pair)
        for sent in range(4, 24):
            acknowledged.append(post(ingest))
            count, fetched = ask(query)
            assert count >= sum(at <= fetched for at in acknowledged), "it lacks what was acknowledged before fetchedAt"
        wait_for(lambda: ask(query)[0] == 23, "the standby to have the last one")
        with behind(pair, "paused"):
            paused = now()
            post(ingest)
            time.sleep(2)
            count, fetched = ask(query)
            assert count == 23 and fetched < paused
        wait_for(lambda: ask(query)[0] == 24, "the standby to catch up")
        # The credentials come from the primary.
        assert pair.sessions("query keyring") == (1, 0)
        assert host_lines(query) == []


@pytest.mark.parametrize("how", ["frozen", "paused", "cut off", "unheard"])
def test_a_standby_that_lags_too_far_is_left_until_it_has_caught_up(how, stack, pair):
    with serving(stack, pair) as (ingest, query):
        post(ingest)
        wait_for(lambda: ask(query)[0] == 1 and on_standby(pair), "the standby to answer")
        with behind(pair, how):
            sent = post(ingest)
            answers = []

            def is_seen():
                answers.append((now(), ask(query)))
                return answers[-1][1][0] == 2

            wait_for(is_seen, "the primary to answer", 2 * STALENESS + 20)
            assert now() - sent > datetime.timedelta(seconds=STALENESS / 2), "it was left too early"
            for asked, (_, fetched) in answers:
                # An answer is as of the moment it was asked, a little before the reply.
                assert asked - fetched < datetime.timedelta(seconds=STALENESS), "an answer is too old"
            assert pair.sessions("query.fcgi")[0] > 0
            assert host_lines(query) == ["the standby is too far behind to be read"]
            # Tried again after 10 s, it is still behind: nobody notices.
            until = time.monotonic() + (12 if how == "paused" else 0)
            while time.monotonic() < until:
                assert ask(query)[0] == 2
                time.sleep(0.2)
        wait_for(lambda: ask(query)[0] == 2 and on_standby(pair), "the standby to be read again", 60)
        wait_for(lambda: host_lines(query)[1:] == ["the standby has caught up"], "the line")
        assert "level=error" not in query.errors.read_text()


def test_an_idle_primary_has_a_heartbeat_as_long_as_there_is_an_ingest(stack, pair):
    with querying(stack, pair.hosts()) as query:
        with ingesting(stack, pair.hosts()), ingesting(stack, pair.hosts()), ingesting(stack, pair.hosts()):
            wait_for(lambda: ask(query) is not None and on_standby(pair), "the standby to answer")

            beats, until = set(), time.monotonic() + STALENESS + 5
            while time.monotonic() < until:
                beats.add(pair.primary.ask("SELECT beat_at FROM public.heartbeat"))
                assert now() - ask(query)[1] < datetime.timedelta(seconds=7 * SLOWNESS)
                assert on_standby(pair)
                time.sleep(0.2)
            # Three front ends make no more of them than one may.
            gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(sorted(beats))]
            assert gaps and min(gaps) >= 3, gaps
        wait_for(lambda: ask(query) is not None and pair.sessions("query.fcgi")[0] > 0, "the primary to answer", 60)


def test_without_a_standby_there_is_no_heartbeat(stack, db):
    """The stack's own, whose ingest.fcgi looks every 5 s."""
    assert db.execute("SELECT public.beat() IS NULL").fetchone() is not None
    assert db.execute("SELECT count(*) FROM public.heartbeat").fetchone() == (0,)


def test_a_standby_that_was_restarted_without_its_primary_knows_the_age_of_its_data(stack, pair):
    with ingesting(stack, pair.hosts()):
        wait_for(lambda: pair.standby.ask("SELECT count(*) FROM public.heartbeat") == 1, "a heartbeat")
    with pair.primary.connect() as db:
        db.execute("CHECKPOINT")
    pair.caught_up()
    pair.standby.stop()
    pair.link.unlink()
    pair.standby.start()
    assert pair.standby.ask("SELECT pg_last_xact_replay_timestamp() IS NULL"), "it knows another way"
    seen, beat = (pair.standby.ask(f"SELECT {what}::bigint") for what in (
        "(SELECT seen_us FROM public.data_time())", "(SELECT extract(epoch FROM beat_at) * 1000000 FROM public.heartbeat)"))
    assert seen == beat
    assert 0 < pair.standby.ask("SELECT age_us FROM public.data_time()") < 60_000_000 * SLOWNESS


def add_token(server, label):
    """Its text; it counts as one that begins with its label."""
    text = f"{label}-" + os.urandom(8).hex()
    with server.connect() as db:
        db.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES (%s, sha256(%s::bytea))", (label, text.encode()))
    return text


def remove_token(server, text):
    with server.connect() as db:
        db.execute("DELETE FROM public.access_tokens WHERE token_sha256 = sha256(%s::bytea)", (text.encode(),))


def status_of(instance, token):
    return instance.ask(query_params(token, "days=7")).status_code


def seconds_until(instance, token, status):
    """How long a change of a token takes to have an effect."""
    begun = time.monotonic()
    wait_for(lambda: status_of(instance, token) == status, "the token to be known, or no longer", every=0.02)
    return time.monotonic() - begun


def could_not_read(instance):
    return instance.errors.read_text().count("could not read the credentials")


def test_a_token_takes_effect_within_5_s_and_the_standby_logs_no_error(stack, pair):
    with serving(stack, pair) as (_, query):
        wait_for(lambda: ask(query) is not None and on_standby(pair), "the standby to answer")
        assert seconds_until(query, add_token(pair.primary, "late"), 200) < SOON
        assert "event=no_notifications" not in query.errors.read_text()
        assert "ERROR" not in (pair.standby.folder / "log").read_text()


def test_no_token_that_was_revoked_lives_again_on_a_standby_that_lags(stack, pair):
    """Also if the primary is lost then, and the standby is not too old to be read."""
    with serving(stack, pair, STEEP_STALENESS="600") as (_, query):
        revoked, kept = add_token(pair.primary, "revoked"), add_token(pair.primary, "kept")
        assert seconds_until(query, kept, 200) < SOON
        assert status_of(query, revoked) == 200
        pair.caught_up()
        with behind(pair, "paused"):
            remove_token(pair.primary, revoked)
            assert seconds_until(query, revoked, 401) < SOON
            new = add_token(pair.primary, "new")
            assert seconds_until(query, new, 200) < SOON
            assert pair.standby.ask("SELECT string_agg(label, ' ' ORDER BY label) FROM public.access_tokens") == "kept revoked"
            assert on_standby(pair)
            reached = pair.primary.ask("SELECT pg_current_wal_flush_lsn()::text")
            wait_for(lambda: pair.standby.ask("SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn", reached), "the standby to have it")
            pair.primary.kill()
            wait_for(lambda: could_not_read(query) == 1, "a list to be refused")
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert [status_of(query, token) for token in (revoked, kept, new)] == [401, 200, 200]
                assert query.ask_health("/readyz/query").status_code == 503
        wait_for(lambda: re.search(r"event=keyring credentials=\d+\n(?!.*could not read)", query.errors.read_text(), re.DOTALL),
                 "the standby's list to be read")
        assert query.ask_health("/readyz/query").status_code == 200
        assert [status_of(query, token) for token in (revoked, kept, new)] == [401, 200, 200]
        pair.promote()
        assert seconds_until(query, add_token(pair.standby, "newest"), 200) < SOON


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_credentials_come_from_a_standby_where_there_is_no_primary(how, stack, pair):
    known = add_token(pair.primary, "known")
    pair.caught_up()
    pair.primary.kill() if how == "killed" else pair.primary.freeze()
    with querying(stack, pair.hosts(), STEEP_STALENESS="600") as query:
        assert status_of(query, known) == 200
        # Once there is one, it is asked again.
        if how == "killed":
            with behind(pair, "paused"):
                pair.primary.start()
                assert seconds_until(query, add_token(pair.primary, "late"), 200) < SOON
        else:
            pair.promote()
            assert seconds_until(query, add_token(pair.standby, "late"), 200) < SOON


def test_changes_take_effect_where_a_program_has_a_standby_alone(stack, pair):
    """More names than the history of changes can tell, so that everything is read."""
    with serving(stack, pair), querying(stack, pair.hosts() | {"PGHOST": str(pair.standby.folder)}) as query:
        # Not at the moment of the last read: the age of the data does not tell what came first.
        time.sleep(1)
        with pair.primary.connect() as db:
            db.execute("INSERT INTO public.access_tokens (label, token_sha256) SELECT n::text, sha256(n::text::bytea) FROM generate_series(1, 1500) AS n")
        seconds_until(query, "1234", 200)
        time.sleep(1)
        pair.primary.ask("WITH gone AS (DELETE FROM public.access_tokens RETURNING 1) SELECT count(*) FROM gone")
        seconds_until(query, "1234", 401)
        assert "event=no_notifications" not in query.errors.read_text()
        assert "ERROR" not in (pair.standby.folder / "log").read_text()


@contextlib.contextmanager
def reached(stack, pair, how):
    """Both programs, and the cables that lead them to the servers: where one is to be cut off, or else none."""
    with both_cabled(pair) if how == "cut off" else contextlib.nullcontext((None, None, {})) as (to_primary, to_standby, hosts):
        with serving(stack, pair, **hosts) as (ingest, query):
            yield ingest, query, to_primary, to_standby


@pytest.mark.parametrize("how", ["killed", "frozen", "stopped", "cut off"])
def test_queries_go_to_the_primary_while_the_standby_is_away(how, stack, pair):
    with reached(stack, pair, how) as (ingest, query, _, to_standby):
        post(ingest)
        wait_for(lambda: ask(query)[0] == 1 and on_standby(pair), "the standby to answer")
        if how == "killed":
            pair.standby.kill()
        elif how == "stopped":
            pair.standby.stop()
        elif how == "frozen":
            pair.standby.freeze()
        else:
            to_standby.cut()
        begun = time.monotonic()
        assert (answer := ask(query)) is not None, "it was not answered"
        assert answer[0] == 1
        # Before the deadline of 20 s: a probe found out.
        assert time.monotonic() - begun < 15 * SLOWNESS
        for _ in range(20):
            begun = time.monotonic()
            assert ask(query)[0] == 1
            assert time.monotonic() - begun < 3 * SLOWNESS
        if how == "frozen":
            pair.standby.thaw()
        elif how == "cut off":
            to_standby.mend()
        else:
            pair.standby.start()
        wait_for(lambda: ask(query)[0] == 1 and on_standby(pair), "the standby to be read again", 60)


def test_a_standby_without_hot_standby_is_passed_over(stack, pair):
    with serving(stack, pair) as (ingest, query):
        post(ingest)
        pair.standby.stop()
        pair.standby.configure(hot_standby="off")
        # pg_ctl waits until it takes connections, which it never does.
        with contextlib.suppress(Exception):
            pair.standby.run("pg_ctl", "-D", pair.standby.data, "-l", pair.standby.folder / "log", "-W", "start", "-o",
                             f"-c listen_addresses= -c unix_socket_directories={pair.standby.folder}")
        wait_for(lambda: (pair.standby.folder / ".s.PGSQL.5432").exists(), "it to listen")
        assert ask(query)[0] == 1
        pair.standby.postmaster = int((pair.standby.data / "postmaster.pid").read_text().split()[0])


class Senders(threading.Thread):
    """Send batches, each again until it is acknowledged, as monitors do; remember what was acknowledged."""

    def __init__(self, instance, count=4):
        super().__init__(daemon=True)
        self.instance = instance
        self.count = count
        self.acknowledged = []
        self.enough = threading.Event()
        self.given_up = threading.Event()
        self.refused = []

    def send(self):
        while not self.enough.is_set():
            events = [SENDER.event() for _ in range(3)]
            while not self.given_up.is_set():
                with contextlib.suppress(OSError):
                    answer = send(self.instance, events)
                    if answer.status_code == 200:
                        self.acknowledged.extend(event["id"] for event in events)
                        break
                    self.refused.append(answer.status_code)
                time.sleep(0.05)

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(self.count) as threads:
            for each in [threads.submit(self.send) for _ in range(self.count)]:
                each.result()

    def go_on(self, batches=20):
        """Wait until more was acknowledged."""
        target = len(self.acknowledged) + 3 * batches
        wait_for(lambda: len(self.acknowledged) >= target, "more batches to be acknowledged", 90)

    def finish(self):
        self.enough.set()
        self.join(120 * SLOWNESS)
        assert not self.is_alive()


@contextlib.contextmanager
def sending(instance):
    senders = Senders(instance)
    senders.start()
    try:
        yield senders
    finally:
        senders.enough.set()
        senders.given_up.set()


def check_stored_once(senders, server):
    """What was acknowledged is stored, and nothing else, and counted once; how much that is."""
    with server.connect() as db:
        stored = [row[0] for row in db.execute("SELECT id FROM public.events")]
        counted, = db.execute("SELECT sum(event_count) FROM public.get_hourly_aggregates(30)").fetchone()
        assert db.execute("SELECT count(*) FROM public.check_hourly_counts()").fetchone() == (0,)
    assert len(stored) == len(set(stored))
    assert set(senders.acknowledged) == set(stored) and counted == len(stored)
    assert len(senders.acknowledged) == len(set(senders.acknowledged))
    return counted


@pytest.mark.parametrize("how", ["killed", "frozen", "stopped", "cut off"])
def test_no_acknowledged_event_is_lost_when_a_synchronous_standby_takes_over(how, stack, pair):
    pair.make_synchronous()
    with reached(stack, pair, how) as (ingest, query, to_primary, _), sending(ingest) as senders:
        senders.go_on()
        if how == "killed":
            pair.primary.kill()
        elif how == "stopped":
            pair.primary.stop("immediate")
        elif how == "frozen":
            pair.primary.freeze()
        else:
            to_primary.cut()
        time.sleep(1)
        pair.promote()
        senders.go_on()
        senders.finish()
        assert set(senders.refused) <= {503}
        stored = check_stored_once(senders, pair.standby)
        wait_for(lambda: (seen := ask(query)) and seen[0] == stored, "query to answer from the new primary", 60)
        wait_for(lambda: ask(query)[1] > now() - datetime.timedelta(seconds=1), "an answer as of now")


def test_queries_leave_a_promoted_standby_for_the_next_one(stack, pair):
    with serving(stack, pair) as (_, query):
        wait_for(lambda: ask(query), "an answer")
        assert on_standby(pair)
        pair.primary.kill()
        pair.promote()
        wait_for(lambda: ask(query), "an answer of the new primary", 60)
        pair.replace()
        wait_for(lambda: ask(query) and on_standby(pair), "an answer of the new standby", 60)


def test_batches_go_on_when_a_standby_takes_over_long_after_their_deadlines(stack, pair):
    """The statements of all connections are late, and the frozen primary takes no request to cancel them."""
    with ingesting(stack, pair.hosts(), STEEP_CONNECTIONS="2", STEEP_DEADLINE="2") as ingest, sending(ingest) as senders:
        senders.go_on()
        pair.primary.freeze()
        seen = len(senders.refused)
        wait_for(lambda: len(senders.refused) > seen + 12, "batches to be refused", 60)
        pair.promote()
        senders.go_on()
        senders.finish()
        assert set(senders.refused) == {503}


def test_programs_that_are_cut_off_from_the_primary_read_on_and_store_later(stack, pair):
    with both_cabled(pair) as (to_primary, _, hosts), serving(stack, pair, STEEP_DEADLINE="2", STEEP_STALENESS="600", **hosts) as (ingest, query):
        with sending(ingest) as senders:
            senders.go_on()
            wait_for(lambda: ask(query) is not None and on_standby(pair), "the standby to answer")
            to_primary.cut()
            seen = len(senders.refused)
            wait_for(lambda: len(senders.refused) > seen + 12, "batches to be refused", 60)
            assert ask(query) is not None
            # Keys and tokens come from the standby then.
            seconds_until(query, add_token(pair.primary, "late"), 200)
            to_primary.mend()
            senders.go_on()
            senders.finish()
        assert set(senders.refused) == {503}
        stored = check_stored_once(senders, pair.primary)
        wait_for(lambda: ask(query)[0] == stored, "the standby to have the last one")
        wait_for(lambda: pair.sessions("query keyring") == (1, 0), "the credentials to come from the primary again", 40)


@contextlib.contextmanager
def unreplicated(pair):
    """Nothing is confirmed by the standby, which is synchronous."""
    pair.make_synchronous()
    with behind(pair, "frozen"):
        yield


def waiting_for_standby(pair):
    return pair.primary.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def test_a_batch_is_not_acknowledged_before_its_standby_has_it_however_often_it_is_sent(stack, pair):
    events = [SENDER.event() for _ in range(3)]
    with ingesting(stack, pair.hosts(), STEEP_DEADLINE="2") as ingest:
        with unreplicated(pair):
            # From the second one on the events are there, and visible on the primary.
            for _ in range(3):
                assert send(ingest, events).status_code == 503
            wait_for(lambda: pair.primary.ask("SELECT count(*) FROM public.events") == 3, "them to be stored")
            assert send(ingest, events).status_code == 503
            with concurrent.futures.ThreadPoolExecutor(6) as threads:
                assert {each.status_code for each in threads.map(lambda _: send(ingest, events), range(6))} == {503}
        answer = wait_for(lambda: (given := send(ingest, events)).status_code == 200 and given, "it to be acknowledged", 40)
        assert answer.json()["duplicates"] == 3
        pair.caught_up()
        assert pair.standby.ask("SELECT count(*) FROM public.events") == 3


def test_a_commit_whose_wait_was_cancelled_is_not_acknowledged(stack, pair):
    with ingesting(stack, pair.hosts()) as ingest, concurrent.futures.ThreadPoolExecutor(1) as threads:
        with unreplicated(pair):
            sent = threads.submit(send, ingest, [SENDER.event()])
            for _ in range(2):
                wait_for(lambda: waiting_for_standby(pair) == 1, "the commit to wait for the standby")
                assert not sent.done()
                pair.primary.ask("SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            assert sent.result(40 * SLOWNESS).status_code == 503
            assert "did not wait for its synchronous standby" in ingest.errors.read_text()


def test_one_reads_ones_own_write_on_a_standby_that_applies_before_the_acknowledgement(stack, pair):
    """The setting that deploy/SCALING gives; migrations leave it."""
    pair.make_synchronous()
    pair.apply_before_acknowledging()
    pair.primary.database("replicated").migrate()
    with serving(stack, pair) as (ingest, query):
        wait_for(lambda: ask(query) is not None and on_standby(pair), "the standby to answer")
        for sent in range(1, 40):
            post(ingest)
            assert ask(query)[0] == sent
        assert on_standby(pair)


@pytest.fixture
def slow(pair):
    """Answers take a second, during which they hold a lock."""
    with pair.primary.connect() as db:
        db.execute("ALTER FUNCTION public.get_hourly_aggregates(integer, text) RENAME TO quick")
        db.execute("CREATE FUNCTION public.get_hourly_aggregates(integer, text) RETURNS TABLE (source text, date date, hour integer, event_count bigint) LANGUAGE plpgsql AS"
                   " $$ BEGIN RETURN QUERY SELECT * FROM public.quick($1, $2); IF $2 IS NULL THEN PERFORM pg_sleep(1); END IF; END $$")
        db.execute("GRANT EXECUTE ON FUNCTION public.get_hourly_aggregates(integer, text), public.quick(integer, text) TO steep_query")
    pair.caught_up()


def is_cancelled(pair):
    # The statistics come only when the next statement has ended.
    return "canceling statement due to conflict with recovery" in (pair.standby.folder / "log").read_text()


@pytest.mark.parametrize("status", [200, 503], ids=["for a moment", "for long"])
def test_a_statement_cancelled_by_what_the_standby_replays_is_repeated_or_503(status, stack, pair, slow):
    with serving(stack, pair) as (ingest, query), concurrent.futures.ThreadPoolExecutor(1) as threads:
        wait_for(lambda: ask(query) is not None and on_standby(pair), "the standby to answer")
        with pair.primary.connect(autocommit=False) as lock:
            asked = threads.submit(query.ask, query_params(TOKEN, "days=7"))
            wait_for(lambda: pair.standby.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1, "it to run")
            lock.execute("LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
            # A lock of the primary reaches the standby with the next flush.
            pair.primary.ask("SELECT txid_current()")
            wait_for(lambda: is_cancelled(pair), "the statement to be cancelled")
            time.sleep(0.3)
            if status == 503:
                wait_for(asked.done, "it to be answered while the lock is held", 40)
            lock.rollback()
        assert asked.result(40 * SLOWNESS).status_code == status
        assert wait_for(lambda: ask(query), "an answer")[0] == 0


def test_the_standby_answers_through_a_pooler(stack, pair, pooler):
    pooler.configure(default_pool_size=2)
    config = (pooler.folder / "pgbouncer.ini").read_text()
    (pooler.folder / "pgbouncer.ini").write_text(re.sub(r"^steep = .*$", f"{NAME} = host={pair.standby.folder} port=5432 dbname={NAME}", config,
                                                        flags=re.MULTILINE))
    pooler.start()
    hosts = pair.hosts() | {"PGHOST": f"{pooler.folder},{pair.primary.folder}", "PGPORT": f"{PORT},5432"}
    with serving(stack, pair) as (ingest, _):
        with querying(stack, hosts) as query:
            sent = post(ingest)
            count, fetched = wait_for(lambda: (seen := ask(query)) and seen[1] > sent and seen, "the standby to have seen it")
            assert count == 1
            with behind(pair, "paused"):
                paused = now()
                post(ingest)
                time.sleep(1)
                assert ask(query)[0] == 1 and ask(query)[1] < paused
                wait_for(lambda: ask(query)[0] == 2, "the primary to answer", 2 * STALENESS + 20)
