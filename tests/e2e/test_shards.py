"""Shards behind a router: each source in one of them, one answer from all, and none that is too small."""

import concurrent.futures
import contextlib
import datetime
import hashlib
import random

import pytest

from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode, rfc3339
from shards import PooledShards, Shards, shard_of, source_on
from stack import wait_for
from test_health import BOTH

TOKEN = "shards-token"
SECRET = "secret-of-the-administrator"
FUNCTIONS = ("get_hourly_aggregates(7)", "get_hourly_aggregates(30)", "get_hourly_aggregates(7, 'b')", "get_hourly_aggregates(7, 'none')",
             *(f"{name}(30{scope})" for name in ("get_scoped_aggregates", "get_hourly_totals", "get_source_totals") for scope in (
                 "", ", 'b'", ", 'none'", ", NULL, '{a,b}', '{}'", ", NULL, '{}', '{m}'", ", NULL, '{}', '{}'", ", 'b', '{a}', '{}'", ", NULL, '{a}', '{M,m1}'")))


@pytest.fixture(scope="module")
def shards(stack):
    made = Shards(stack)
    try:
        made.init(f" password={SECRET}")
        yield made
    finally:
        made.remove()


@pytest.fixture
def monitors():
    """One whose source is in the first shard, one whose source is in the second."""
    return [Monitor(source_on(number)) for number in range(2)]


@contextlib.contextmanager
def serving(stack, shards, name="ingest", monitors=(), **more):
    keys = ",".join(f"{each.source}:{each.public_base64}" for each in monitors)
    with program(stack, name, passed=BOTH, VIBETEA_SUBSCRIBER_TOKEN=TOKEN, **({"VIBETEA_PUBLIC_KEYS": keys} if keys else {}),
                 **(shards.environment | more)) as instance:
        wait_for(lambda: instance.ask_health(f"/readyz/{name}").status_code == 200, "the credentials to be read")
        yield instance


def post(instance, monitor, events):
    body = encode(events)
    return instance.ask(ingest_params(body, monitor), body)


def counts(answer):
    return (answer.status_code, answer.json().get("inserted"), answer.json().get("duplicates"))


@contextlib.contextmanager
def stopped(shards, number):
    shards.stop(number)
    try:
        yield
    finally:
        shards.start(number)
        wait_for(lambda: shards.is_reached(number), "the shard to be back")


def test_the_hash_of_a_source_is_what_it_always_was(shards):
    names = ["", "a", "macbook", "é", "naïve/ü", "a b", "\\x41", "x" * 255]
    with shards.router.connect() as router:
        found = [router.execute("SELECT proxy.hash(%s)", (name,)).fetchone()[0] for name in names]
    assert [number % 2**32 for number in found] == [int(hashlib.md5(name.encode()).hexdigest()[-8:], 16) for name in names]
    assert found[2] == -688038461


def test_a_batch_is_stored_in_the_shard_of_its_source_and_counted_once(stack, shards, monitors):
    with serving(stack, shards, monitors=monitors) as instance:
        for number, monitor in enumerate(monitors):
            events = [monitor.event() for _ in range(3)]
            assert counts(post(instance, monitor, events)) == (200, 3, 0)
            assert counts(post(instance, monitor, events + [monitor.event()])) == (200, 1, 3)
            assert [shards.where(event["id"]) for event in events] == [[number]] * 3


def test_batches_that_wait_together_are_split_and_each_gets_its_own_count(stack, shards):
    senders = [Monitor(f"together-{n}") for n in range(12)]
    assert {shard_of(each.source, 2) for each in senders} == {0, 1}
    batches = [(sender, [sender.event() for _ in range(n % 4 + 1)]) for n, sender in enumerate(senders * 10)]
    with serving(stack, shards, monitors=senders, STEEP_CONNECTIONS="2") as instance, concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda batch: counts(post(instance, *batch)), batches))
    assert answers == [(200, len(events), 0) for _, events in batches]
    for sender, events in batches[::17]:
        assert shards.where(events[0]["id"]) == [shard_of(sender.source, 2)]


def test_an_invalid_event_is_named_through_the_router(stack, shards, monitors):
    with serving(stack, shards, monitors=monitors) as instance:
        bad = monitors[0].event()
        body = encode([monitors[0].event(), bad]).replace(bad["id"].encode(), b"evt_\\u0000")
        answer = instance.ask(ingest_params(body, monitors[0]), body)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_event_id")


def sample(sources, seed=18):
    """Events at random in 31 days, some of them in the partial hour at the start of each window."""
    chance = random.Random(seed)
    instant = datetime.datetime.now(datetime.timezone.utc)
    back = [datetime.timedelta(days=days, minutes=chance.uniform(-50, 50)) for days in (7, 30) for _ in range(60)]
    back += [datetime.timedelta(hours=chance.uniform(0, 31 * 24)) for _ in range(600)]
    return [Monitor(chance.choice(sources)).event(timestamp=rfc3339(instant - each)) for each in back]


def test_queries_have_the_rows_and_the_order_of_one_database(shards, database):
    sources = ["a", "b", "B", "é", "m1", "m10", "m2", "M", "z~"]
    assert {shard_of(name, 2) for name in sources} == {0, 1}
    events = sample(sources)
    with shards.router.connect() as router, database.connect() as one:
        router.execute("SELECT public.remove_events(NULL)")
        for connection in (router, one):
            stored = connection.execute("SELECT inserted_count FROM public.bulk_insert_events(%s::text::jsonb)", (encode(events).decode(),))
            assert stored.fetchone() == (len(events),)
        for function in FUNCTIONS:
            expected = one.execute(f"SELECT * FROM public.{function}").fetchall()
            assert router.execute(f"SELECT * FROM public.{function}").fetchall() == expected, function
            assert expected or "none" in function or "'{}', '{}'" in function or "'b', '{a}'" in function, function
        assert router.execute("SELECT * FROM public.count_old_events('10 days')").fetchone()[:2] == \
            one.execute("SELECT * FROM public.count_old_events('10 days')").fetchone()[:2]
    assert shards.steepctl("counts", "check") == (0, "The hourly counts are correct.\n", "")


def test_queries_are_answered_through_the_router(stack, shards, monitors):
    with serving(stack, shards, monitors=monitors) as ingest, serving(stack, shards, "query") as query:
        shards.router.connect().execute("SELECT public.remove_events(NULL)")
        for monitor in monitors:
            assert post(ingest, monitor, [monitor.event(), monitor.event()]).status_code == 200

        def ask(text):
            answer = query.ask(query_params(TOKEN, text))
            assert answer.status_code == 200
            return answer.json()["aggregates"]

        names = sorted(monitor.source for monitor in monitors)
        assert [(row["source"], row["eventCount"]) for row in ask("days=7")] == [(name, 2) for name in names]
        assert [row["eventCount"] for row in ask("days=7&group_by=hour")] == [4]
        assert [(row["source"], row["eventCount"]) for row in ask("group_by=source")] == [(name, 2) for name in names]
        assert [row["source"] for row in ask(f"source={names[0]}")] == [names[0]]


def test_a_shard_that_is_away_costs_its_own_sources_only_and_no_sum_is_too_small(stack, shards, monitors):
    here, away = monitors
    with serving(stack, shards, monitors=monitors, STEEP_DATABASE_WAIT="1") as ingest, \
            serving(stack, shards, "query", STEEP_DATABASE_WAIT="1") as query, concurrent.futures.ThreadPoolExecutor(16) as threads:
        for monitor in monitors:
            assert post(ingest, monitor, [monitor.event()]).status_code == 200

        def asked(text):
            return query.ask(query_params(TOKEN, text)).status_code

        with stopped(shards, 1):
            events = [(monitor, monitor.event()) for _ in range(40) for monitor in monitors]
            answers = list(threads.map(lambda pair: post(ingest, pair[0], [pair[1]]), events))
            assert {answer.status_code for (monitor, _), answer in zip(events, answers) if monitor is here} == {200}
            assert {answer.status_code for (monitor, _), answer in zip(events, answers) if monitor is away} == {503}
            assert {answer.headers.get_list("Retry-After")[0] != "" for answer in answers if answer.status_code == 503} == {True}
            assert [asked(text) for text in ("days=7", "group_by=hour", "group_by=source", f"source={away.source}")] == [503] * 4
            assert asked(f"source={here.source}") == 200
        wait_for(lambda: post(ingest, away, [away.event()]).status_code == 200, "its sources to be served again")
        wait_for(lambda: asked("days=7") == 200, "all to be counted again")
    assert [shards.where(event["id"]) for monitor, event in events if monitor is here] == [[0]] * 40


def test_a_group_has_no_count_for_batches_of_a_shard_that_is_away(shards, monitors):
    here, away = monitors
    batches = [encode([monitor.event()]).decode() for monitor in (away, here, away, here)]
    call = "SELECT position, inserted_count FROM public.bulk_insert_batches(%s, %s::text[]::jsonb[]) ORDER BY position"
    with shards.router.connect() as router:
        with stopped(shards, 1):
            found = dict(router.execute(call, ([4, 5, 6, 7], batches)).fetchall())
            assert found[4] is None and found[6] is None
            # Those of the other may have been stored before the first error.
            assert found[5] in (0, 1) and found[7] in (0, 1)
        assert router.execute(call, ([4, 5, 6, 7], batches)).fetchall() == [(4, 1), (5, 0), (6, 1), (7, 0)]


def test_nothing_is_stored_where_the_migrations_differ(stack, shards, monitors):
    with shards.shards[1].connect() as shard, serving(stack, shards, monitors=monitors, STEEP_DATABASE_WAIT="1") as ingest, \
            serving(stack, shards, "query") as query:
        for level, change in (("20990101_newer.sql", "INSERT INTO public.schema_migrations VALUES ('20990101_newer.sql', 'x')"),
                              ("20260209_create_totals.sql", "UPDATE public.schema_migrations SET name = '1' || name WHERE name > '20260210'")):
            event = monitors[1].event()
            shard.execute(change)
            try:
                assert post(ingest, monitors[1], [event]).status_code == 503
                assert post(ingest, monitors[0], [monitors[0].event()]).status_code == 200
                assert shards.where(event["id"]) == []
                # Reading is harmless.
                assert query.ask(query_params(TOKEN, "days=7")).status_code == 200
                status, output, _ = shards.steepctl("shards", "check")
                assert status == 1 and f"Shard 1 has the migration {level}, " in output
                assert shards.steepctl("prune", "30")[0] == 1
            finally:
                shard.execute("DELETE FROM public.schema_migrations WHERE name = '20990101_newer.sql'")
                shard.execute("UPDATE public.schema_migrations SET name = substr(name, 2) WHERE name LIKE '12%'")
        assert post(ingest, monitors[1], [event]).status_code == 200
    assert shards.steepctl("shards", "check")[0] == 0


def test_the_router_stores_no_event_itself(shards):
    with shards.router.connect() as router, pytest.raises(Exception, match="is a router"):
        router.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_1', 'a', now(), 'tool', '{}')")


def test_sources_are_renamed_and_erased_wherever_they_are(shards, monitors):
    here, there = (source_on(number, prefix="renamed") for number in range(2))
    with shards.router.connect() as router:
        router.execute("SELECT public.remove_events(NULL)")
        sent = [Monitor(here).event() for _ in range(20)] + [Monitor(there).event() for _ in range(5)]
        router.execute("SELECT public.bulk_insert_events(%s::text::jsonb)", (encode(sent).decode(),))
        before = router.execute("SELECT date, hour, event_count FROM public.get_hourly_totals(7)").fetchall()
        assert shards.steepctl("source", "rename", here, there)[0] == 1
        assert shards.steepctl("source", "rename", here, there, "--merge") == (0, "events moved: 20\nkeys copied: 0\n", "")
        assert [shards.where(event["id"]) for event in sent] == [[1]] * 25
        assert router.execute("SELECT date, hour, event_count FROM public.get_hourly_totals(7)").fetchall() == before
        assert router.execute("SELECT * FROM public.get_source_totals(7)").fetchall() == [(there, 25)]
        # Within a shard.
        assert shards.steepctl("source", "rename", there, source_on(1, prefix="within"))[:2] == (0, "events moved: 25\nkeys copied: 0\n")
        status, output, _ = shards.steepctl("source", "erase", "--yes", source_on(1, prefix="within"))
        assert (status, output.splitlines()[0]) == (0, "events deleted: 25")
    assert shards.steepctl("shards", "check") == (0, "Every source is in its shard, and the shards and the router agree.\n", "")


def test_old_events_are_pruned_in_every_shard(shards, monitors):
    with shards.router.connect() as router:
        router.execute("SELECT public.remove_events(NULL)")
        old = rfc3339(datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=20))
        sent = [monitor.event(timestamp=at) for monitor in monitors for at in (old, old, rfc3339(datetime.datetime.now(datetime.timezone.utc)))]
        router.execute("SELECT public.bulk_insert_events(%s::text::jsonb)", (encode(sent).decode(),))
        assert shards.steepctl("prune", "10", "--payloads-only") == (0, "payloads emptied: 4\n", "")
        assert shards.steepctl("prune", "10", "--force") == (0, "events deleted: 4\n", "")
        assert sum(row[-1] for row in router.execute("SELECT * FROM public.get_hourly_totals(30)").fetchall()) == 2


@pytest.fixture
def pooled(stack):
    made = PooledShards(stack)
    try:
        made.init()
        yield made
    finally:
        made.remove()


def test_a_frozen_shard_costs_its_own_sources_only_and_no_event_is_lost_or_doubled(stack, pooled, monitors):
    here, away = monitors
    with serving(stack, pooled, monitors=monitors, STEEP_CONNECTIONS="4") as ingest, concurrent.futures.ThreadPoolExecutor(12) as threads:
        acknowledged = []

        def send(monitor):
            event = monitor.event()
            answer = post(ingest, monitor, [event])
            acknowledged.extend([event["id"]] * (answer.status_code == 200))
            return answer.status_code

        def sessions():
            with pooled.router.connect() as router:
                return router.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'steep_ingest'").fetchone()[0]

        assert set(threads.map(send, monitors * 10)) == {200}
        with pooled.frozen(1):
            # These hold connections until the pooler gives the shard up.
            assert set(threads.map(send, [away] * 8)) == {503}
            for _ in range(12):
                assert set(threads.map(send, [here, away, here, here])) == {200, 503}
                assert [send(here) for _ in range(5)] == [200] * 5
            assert sessions() <= 12
        wait_for(lambda: send(away) == 200, "its sources to be served again")
        assert set(threads.map(send, monitors * 10)) == {200}
    with pooled.router.connect() as router:
        assert router.execute("SELECT sum(event_count) FROM public.get_hourly_totals(7)").fetchone()[0] >= len(acknowledged)
    assert len(set(acknowledged)) == len(acknowledged)
    found = [pooled.where(event_id) for event_id in acknowledged]
    assert found == [[number] for number in sum(found, [])]


@pytest.fixture
def growing(stack):
    made = Shards(stack)
    try:
        made.init()
        yield made
    finally:
        made.remove()


def test_two_shards_become_four_by_dump_and_restore(stack, growing):
    senders = [Monitor(f"growing-{n}") for n in range(24)]
    assert {shard_of(each.source, 4) for each in senders} == {0, 1, 2, 3}
    sent = [(sender, sender.event()) for sender in senders for _ in range(3)]
    total = "SELECT sum(event_count) FROM public.get_hourly_totals(7)"
    with serving(stack, growing, monitors=senders) as ingest:
        for sender, event in sent:
            assert post(ingest, sender, [event]).status_code == 200
    with growing.router.connect() as router:
        assert router.execute(total).fetchone() == (len(sent),)
        for number in range(2):
            growing.shards.append(growing.make(f"shard{number + 2}"))
        # Before the restore: nothing has been copied.
        status, _, errors = growing.steepctl("shards", "add", input=growing.strings())
        assert (status, errors) == (1, "steepctl: shard 2 is not a copy of shard 0: it lacks events; stop ingest.fcgi, and dump and restore shard 0 again\n")
        assert router.execute(total).fetchone() == (len(sent),)
        for number in range(2):
            growing.copy(number, number + 2)
        status, output, errors = growing.steepctl("shards", "add", input=growing.strings())
        assert (status, errors, output.splitlines()[-1]) == (0, "", "Every source is in its shard, and the shards and the router agree.")
        assert router.execute(total).fetchone() == (len(sent),)
    assert [growing.where(event["id"]) for _, event in sent] == [[shard_of(sender.source, 4)] for sender, _ in sent]
    with serving(stack, growing, monitors=senders) as ingest:
        for sender in senders:
            event = sender.event()
            assert counts(post(ingest, sender, [event])) == (200, 1, 0)
            assert growing.where(event["id"]) == [shard_of(sender.source, 4)]
        assert counts(post(ingest, *[(sender, [event]) for sender, event in sent][5])) == (200, 0, 1)
    # Run again, as after an interruption.
    assert growing.steepctl("shards", "add", input=growing.strings())[0] == 0


# What steepctl shards check finds.

# PL/Proxy itself refuses a number that is no power of two.
def faults(shards):
    status, output, errors = shards.steepctl("shards", "check")
    assert SECRET not in output + errors
    assert (status, errors) == ((1, "steepctl: the shards are not as they should be\n") if output.startswith(("Shard", "The", "There")) else (0, ""))
    return output.splitlines()


def test_a_source_in_the_wrong_shard_is_found(shards):
    source = source_on(0, prefix="wrong")
    with shards.shards[1].connect() as shard:
        shard.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_wrong', %s, now(), 'tool', '{}')", (source,))
        assert faults(shards) == [f"Shard 1 has 1 events of {source}, which belongs to shard 0."]
        shard.execute("DELETE FROM public.events WHERE id = 'evt_wrong'")


def test_a_shard_that_is_away_is_found(shards):
    with stopped(shards, 1):
        found, = faults(shards)
    assert found.startswith("Shard 1 cannot be reached (SQLSTATE ")


@pytest.fixture
def altered(shards):
    """Change the router's definition of the shards until the end of the test."""
    def change(options):
        with shards.router.connect() as router:
            router.execute(f"ALTER SERVER steep OPTIONS ({options})")
    with shards.router.connect() as router:
        router.execute("SELECT public.remove_events(NULL)")
    yield change
    shards.init()


def test_a_router_that_is_its_own_shard_is_found(shards, altered):
    altered(f"SET p1 'host={shards.router.cluster['host']} port=5432 dbname=steep'")
    with shards.router.connect() as router:
        router.execute("CREATE ROLE steep_router LOGIN IN ROLE steep_owner; GRANT CONNECT ON DATABASE steep TO steep_router;"
                       "CREATE FUNCTION proxy.describe_shard() RETURNS TABLE (identity text, level text, number integer, shards integer, is_router boolean)"
                       " LANGUAGE sql AS $$ SELECT '', proxy.level(), 1, 2, true $$; ALTER FUNCTION proxy.describe_shard() OWNER TO steep_owner")
        try:
            assert faults(shards) == ["Shard 1 is a router."]
        finally:
            router.execute("DROP FUNCTION proxy.describe_shard(); DROP OWNED BY steep_router; DROP ROLE steep_router")


def test_shards_that_are_the_same_or_in_another_order_are_found(shards, altered):
    first, second = (shards.string(number).replace(" user=postgres", "") for number in range(2))
    altered(f"SET p1 '{first}'")
    assert faults(shards) == ["Shard 1 is the same database as shard 0."]
    altered(f"SET p0 '{second}'")
    assert faults(shards) == ["Shard 0 was made as shard 1.", "Shard 1 was made as shard 0."]


def test_a_wrong_number_of_shards_is_found_and_nothing_is_stored(stack, shards, altered, monitors):
    altered("DROP p1")
    assert faults(shards) == ["The router was made for 2 shards and has the connection strings of 1.",
                              "Shard 0 was made for 2 shards, but the router has 1."]
    shards.init()
    with shards.shards[1].connect() as shard, serving(stack, shards, monitors=monitors, STEEP_DATABASE_WAIT="1") as ingest:
        shard.execute("UPDATE proxy.place SET shards = 4")
        assert faults(shards) == ["Shard 1 was made for 4 shards, but the router has 2."]
        event = monitors[1].event()
        assert post(ingest, monitors[1], [event]).status_code == 503
        assert shards.where(event["id"]) == []


def test_a_password_in_a_connection_string_is_found_and_not_printed(shards, altered):
    altered(f"SET p1 '{shards.string(1)} password={SECRET}'")
    assert faults(shards) == ["The connection string of shard 1 contains a password, which every role can read; give it to steepctl shards init again."]
    status, output, errors = shards.steepctl("shards", "list")
    assert (status, len(output.splitlines()), errors) == (0, 2, "") and SECRET not in output


# What steepctl shards init refuses.

@pytest.mark.parametrize("strings, message", [
    (["{router}", "{second}"], "shard 0 is the database of the router"),
    (["{first}", "{first}"], "shard 1 is the same database as another"),
    (["{first}", "{second}", "{second}"], "there must be 1, 2, 4 or another power of two of shards up to 256, not 3"),
    ([], "there must be 1, 2, 4 or another power of two of shards up to 256, not 0"),
    (["{first}", "{second}", "{first}", "{second}"], "this is a router of 2 shards; steepctl shards add doubles their number"),
    (["{first}", f"host=a dbname=b password='{SECRET} x'"], "the connection string of shard 1 must be NAME=VALUE pairs without quotes, "
     "such as host=10.0.0.2 dbname=steep user=postgres"),
    (["{first}", f"postgresql://postgres:{SECRET}@a/b"], "the connection string of shard 1 must be NAME=VALUE pairs without quotes, "
     "such as host=10.0.0.2 dbname=steep user=postgres"),
    (["{first}", "dbname=steep"], "the connection string of shard 1 has no host"),
    (["{first}", f"host=/nonexistent dbname=steep password={SECRET}"], "shard 1: no connection to the database: "),
], ids=["router", "twice", "three", "none", "four", "quoted", "uri", "hostless", "away"])
def test_shards_that_cannot_be_are_refused(shards, strings, message):
    names = {"router": f"host={shards.router.cluster['host']} port=5432 dbname=steep user=postgres", "first": shards.string(0), "second": shards.string(1)}
    given = "".join(each.format(**names) + "\n" for each in strings)
    status, output, errors = shards.steepctl("shards", "init", input=given)
    assert status == 1 and errors.startswith(f"steepctl: {message}"), errors
    assert SECRET not in output + errors
    assert faults(shards) == ["Every source is in its shard, and the shards and the router agree."]


def test_a_password_in_the_arguments_is_refused(shards):
    status, output, errors = shards.steepctl("shards", "init", shards.string(0), f"{shards.string(1)} password={SECRET}")
    assert status == 1 and "others can read the arguments" in errors and SECRET not in output + errors


def test_the_administrators_password_is_nowhere_in_the_router(shards):
    with shards.router.connect() as router:
        found = router.execute("SELECT srvoptions::text || umoptions::text FROM pg_user_mapping JOIN pg_foreign_server AS s ON s.oid = umserver").fetchall()
        assert len(found) == 1 and SECRET not in found[0][0] and "user=postgres" not in found[0][0]
        assert not router.execute("SELECT has_table_privilege('steep_ingest', 'pg_user_mapping', 'SELECT')").fetchone()[0]
