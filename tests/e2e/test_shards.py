"""Shards behind a router: each source in one of them, one answer from all, and none that is too small."""

import concurrent.futures
import contextlib
import datetime
import hashlib
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode, rfc3339
from shards import PooledShards, Shards, shard_of, source_on
from stack import ROOT, SLOWNESS, wait_for
from test_health import BOTH

TOKEN = "shards-token"
DIFFERENT = "the router and this shard have different migrations, or another number or order of shards"
SECRET = "secret-of-the-administrator"
FUNCTIONS = ("get_hourly_aggregates(7)", "get_hourly_aggregates(30)", "get_hourly_aggregates(40000)", "get_hourly_totals(40000)", "get_hourly_aggregates(7, 'b')", "get_hourly_aggregates(7, 'none')",
             *(f"{name}(30{scope})" for name in ("get_scoped_aggregates", "get_hourly_totals", "get_source_totals") for scope in (
                 "", ", 'b'", ", 'none'", ", NULL, '{a,b}', '{}'", ", NULL, '{}', '{m}'", ", NULL, '{}', '{}'", ", 'b', '{a}', '{}'", ", NULL, '{a}', '{M,m1}'")))


@contextlib.contextmanager
def initialized(stack, count=2, options=""):
    """Shards that steepctl made of new clusters, and their router, until the end of the context."""
    made = Shards(stack, count)
    try:
        made.init(options)
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def shards(stack):
    with initialized(stack, options=f" password={SECRET}") as made:
        yield made


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
    # Also hours that no date has, and those before the day from which the router counts.
    events = sample(sources) + [Monitor(name).event(timestamp=when) for name in sources[:5]
                                for when in ("infinity", "1931-05-01T03:59:00Z", "1999-12-31T23:00:00Z", "2000-01-01T00:00:00Z")]
    check_queries(shards, database, events)


def check_queries(shards, database, events):
    """The functions return of these events what those of one database do."""
    with shards.router.connect() as router, database.connect() as one:
        router.execute("SELECT public.remove_events(NULL)")
        for connection in (router, one):
            stored = connection.execute("SELECT inserted_count FROM public.bulk_insert_events(%s::text::jsonb)", (encode(events).decode(),))
            assert stored.fetchone() == (len(events),)
        for function in FUNCTIONS:
            # As text, since Python has no date at infinity.
            expected = one.execute(f"SELECT row::text FROM public.{function} AS row").fetchall()
            assert router.execute(f"SELECT row::text FROM public.{function} AS row").fetchall() == expected, function
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


def test_programs_are_ready_as_long_as_a_shard_answers(stack, shards, monitors):
    here, away = monitors
    with serving(stack, shards, monitors=monitors, STEEP_DATABASE_WAIT="0") as ingest, \
            serving(stack, shards, "query", STEEP_DATABASE_WAIT="0") as query, shards.router.connect() as router:
        instances = {"ingest": ingest, "query": query}

        def ready():
            return [instance.ask_health(f"/readyz/{name}").status_code for name, instance in instances.items()]

        def probes():
            return router.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()").fetchone()[0]

        for number in range(2):
            with stopped(shards, number):
                for user, probe in (("steep_ingest", "bulk_insert_events('[]')"), ("steep_query", "get_hourly_aggregates(0, '')")):
                    with shards.router.connect(user=user) as session:
                        for _ in range(20):
                            session.execute(f"SELECT FROM public.{probe}")
                # Two of each program.
                until = probes() + 4
                while probes() < until:
                    assert ready() == [200, 200]
                    wait_for(lambda seen=probes(): probes() > seen, "another probe", 60)
        with stopped(shards, 1):
            assert [post(ingest, away, [away.event()]).status_code for _ in range(3)] == [503] * 3
            assert post(ingest, here, [here.event()]).status_code == 200 and ready() == [200, 200]
            with stopped(shards, 0):
                wait_for(lambda: ready() == [503, 503], "no shard to answer", 60)
        wait_for(lambda: ready() == [200, 200], "the shards to be back", 60)


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


def test_a_batch_without_events_is_in_the_first_shard(shards, monitors):
    """The hash of an empty name is even."""
    batches = ["[]", None, *(encode([monitor.event()]).decode() for monitor in monitors)]
    call = "SELECT position, inserted_count FROM public.bulk_insert_batches('{1,2,3,4}', %s::text[]::jsonb[]) ORDER BY position"
    with shards.router.connect() as router:
        with stopped(shards, 0):
            found = dict(router.execute(call, (batches,)).fetchall())
            assert found[1] is None and found[2] is None and found[3] is None and found[4] in (0, 1)
        with stopped(shards, 1):
            found = dict(router.execute(call, (batches,)).fetchall())
            assert found[1] == found[2] == 0 and found[3] in (0, 1) and found[4] is None
        assert router.execute(call, (batches,)).fetchall() == [(1, 0), (2, 0), (3, 0), (4, 0)]
        for nothing in ("'{}', '{}'", "NULL, NULL"):
            assert router.execute(f"SELECT * FROM public.bulk_insert_batches({nothing})").fetchall() == []


@pytest.mark.parametrize("sqlstate", ["53100", "53300", "58030", "25006"])
def test_a_group_has_no_count_for_batches_of_a_shard_that_can_store_nothing(sqlstate, shards, monitors):
    here, full = [each.event() for each in monitors]
    with shards.shards[1].connect() as shard, shards.router.connect(user="steep_ingest") as router:
        shard.execute(f"CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$;"
                      "CREATE TRIGGER fail BEFORE INSERT ON public.events EXECUTE FUNCTION public.fail()")
        try:
            rows = router.execute("SELECT * FROM public.bulk_insert_batches('{0,1}', %s::jsonb[])", ([json.dumps([here]), json.dumps([full])],)).fetchall()
            assert {position: inserted is None for position, inserted in rows} == {0: False, 1: True}
            for _ in range(8):
                assert router.execute("SELECT inserted_count FROM public.bulk_insert_events('[]')").fetchone() == (0,)
        finally:
            shard.execute("DROP TRIGGER fail ON public.events; DROP FUNCTION public.fail()")
    assert (shards.where(here["id"]), shards.where(full["id"])) == ([0], [])


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
                assert shards.steepctl("prune", "30", "--force") == (1, "", f"steepctl: {DIFFERENT}. Run steepctl shards check.\n")
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


def test_commands_print_of_shards_what_they_print_of_one_database(stack, shards, database):
    sources = ["a", "b", "B", "é", "m1", "with space"]
    assert {shard_of(name, 2) for name in sources} == {0, 1}
    ahead = [Monitor(name).event(timestamp=rfc3339(instant() + datetime.timedelta(hours=hours))) for name in ("a", "b") for hours in (24.4, 25, 60)]
    events = sample(sources) + ahead
    with shards.router.connect() as router, database.connect() as one:
        router.execute("SELECT public.remove_events(NULL)")
        for connection in (router, one):
            connection.execute("SELECT public.bulk_insert_events(%s::text::jsonb)", (encode(events).decode(),))
            connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES ('a', decode(repeat('01', 32), 'hex')), ('keyed', decode(repeat('02', 32), 'hex'))")

    def printed(*arguments):
        done = stack.steepctl(*arguments, check=False, PGDATABASE=database.name)
        assert done.returncode == 0 or arguments[0] == "status", done.stderr
        status, output, errors = shards.steepctl(*arguments)
        assert (status, errors) == (done.returncode, done.stderr)
        return output, done.stdout

    of_shards, of_one = (json.loads(output)["sources"] for output in printed("source", "list", "--json"))
    assert len(of_one) == len(sources) + 1
    assert [{**entry, "bytes": 0} for entry in of_shards] == [{**entry, "bytes": 0} for entry in of_one]
    assert all((entry["bytes"] > 0) == (entry["eventCount"] > 0) for entry in of_shards)
    of_shards, of_one = ([line.split("\t")[:-1] for line in output.splitlines()] for output in printed("source", "list"))
    assert of_shards == of_one

    hour = rfc3339(instant())[:14]
    for bounds in (["--from", "2026-01-01"], ["--to", "9999-01-01", "--source", "m1"], ["--from", f"{hour}20:00.000001Z"], ["--future", "--json"],
                   ["--from", rfc3339(instant() - datetime.timedelta(days=9, minutes=7)), "--to", rfc3339(instant() - datetime.timedelta(days=2))],
                   ["--from", f"{hour}10:00Z", "--to", f"{hour}50:00Z"], ["--from", f"{hour}00:00Z", "--to", f"{hour}59:59.999999Z", "--json"],
                   ["--to", f"{hour}00:00Z"], ["--from", "2026-01-01", "--source", "none"]):
        of_shards, of_one = printed("events", "remove", "--dry-run", *bounds)
        assert of_shards == of_one, bounds
        bounds = [each for each in bounds if each not in ("--future", "--json")]
        of_shards, of_one = printed("events", "export", *bounds)
        assert sorted(of_shards.splitlines()) == sorted(of_one.splitlines()), bounds
        assert len(of_one) > 0 or "none" in bounds or f"{hour}10:00Z" in bounds or f"{hour}00:00Z" in bounds

    for json_option in ([], ["--json"]):
        assert len({*printed("counts", "check", *json_option)}) == 1
    of_shards, of_one = ([line for line in output.splitlines() if re.match(r"(WARNING: )?(Events|Monitor)\b", line)] for output in printed("status"))
    assert len(of_one) == 1 + 7 + 2 and of_shards == of_one
    assert len({*printed("events", "remove", "--from", "2026-01-01", "--source", "m1")}) == 1
    assert len({*printed("prune", "10", "--force")}) == 1
    assert len({*printed("counts", "rebuild")}) == 1
    assert shards.steepctl("source", "erase", "--yes", "keyed")[0] == 0 and shards.steepctl("monitor", "remove", "a")[0] == 0


def instant():
    return datetime.datetime.now(datetime.timezone.utc)


def fill(shards, number, source, count, at="2026-02-03 10:00+00", step="1 second", payload="{}"):
    """Store so many events of a source in a shard, each instant three of them."""
    with shards.shards[number].connect() as shard:
        shard.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                      " SELECT format('evt_%%s-%%s', %s::text, n), %s, %s::timestamptz + n / 3 * %s::interval, 'tool', %s FROM generate_series(1, %s) AS n",
                      (source, source, at, step, payload, count))


@pytest.fixture
def emptied(shards):
    def empty():
        for shard in shards.shards:
            with shard.connect() as connection:
                connection.execute("TRUNCATE public.events")
    empty()
    yield shards
    empty()


def test_an_export_of_many_pages_has_each_event_once(emptied):
    many, few = source_on(0), source_on(1)
    # More than ten pages, one after another, and of one source among others.
    fill(emptied, 0, many, 25_000)
    fill(emptied, 0, source_on(0, prefix="other"), 2000, step="3 minutes")
    fill(emptied, 1, few, 5, at="infinity")
    for options, expected in (((), 27_005), (("--source", many), 25_000), (("--source", few), 5),
                              (("--source", many, "--from", "2026-02-03T10:00:10.5Z", "--to", "2026-02-03T11:00:10Z"), 10_797)):
        status, output, errors = emptied.steepctl("events", "export", *options)
        assert (status, errors) == (0, "")
        assert len(output.splitlines()) == len({json.loads(line)["id"] for line in output.splitlines()}) == expected, options


@pytest.mark.parametrize("user", ["postgres", "steep_ingest"])
def test_an_import_of_several_sources_goes_to_the_shard_of_each(stack, emptied, user):
    events = [Monitor(source_on(n % 2)).event() for n in range(3000)]
    done = stack.steepctl("events", "import", input="".join(encode(event).decode() + "\n" for event in events), **(emptied.environment | {"PGUSER": user}))
    assert done.stdout == "events read: 3000, inserted: 3000, duplicates: 0, rejected: 0\n"
    assert [emptied.where(event["id"]) for event in events[::501]] == [[n % 2] for n in range(0, 3000, 501)]
    assert emptied.steepctl("shards", "check")[0] == 0
    output = emptied.steepctl("events", "export")[1]
    assert sorted(json.loads(line)["id"] for line in output.splitlines()) == sorted(event["id"] for event in events)


def test_events_are_removed_where_one_shard_has_more_of_them_than_another(emptied):
    fill(emptied, 0, source_on(0), 25_000)
    fill(emptied, 1, source_on(1), 9000)
    assert emptied.steepctl("events", "remove", "--from", "2026-02-03") == (0, "events removed: 34000\n", "")
    fill(emptied, 0, source_on(0), 12_000)
    assert emptied.steepctl("source", "erase", "--yes", source_on(0))[1].startswith("events deleted: 12000\n")


def test_events_that_are_not_counted_are_found_by_an_erasure(emptied):
    source = source_on(1)
    with emptied.shards[1].connect() as shard:
        shard.execute("SET session_replication_role = replica")
        shard.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_uncounted', %s, now(), 'tool', '{}')", (source,))
    status, _, errors = emptied.steepctl("source", "erase", "--yes", source)
    assert status == 1 and "has events that are not counted; run steepctl counts rebuild" in errors
    assert emptied.steepctl("counts", "check")[0] == 1
    assert emptied.steepctl("counts", "rebuild") == (0, "events counted: 1\n", "")
    assert emptied.steepctl("source", "erase", "--yes", source)[1].startswith("events deleted: 1\n")


def test_commands_fail_in_a_sentence_while_a_shard_is_away(shards, monitors):
    with stopped(shards, 1):
        for command in (["source", "list"], ["events", "export"], ["events", "remove", "--dry-run", "--from", "2026-01-01"], ["events", "remove", "--from", "2026-01-01"],
                        ["prune", "30"], ["counts", "check"], ["counts", "rebuild"], ["source", "erase", "--yes", monitors[0].source]):
            status, output, errors = shards.steepctl(*command)
            assert (status, output, errors) == (1, "", "steepctl: a shard cannot be reached or takes too long; see steepctl shards check\n"), command
        status, output, errors = shards.steepctl("status")
        assert (status, errors) == (2, "") and "\nCRITICAL: Shard 1 cannot be reached (SQLSTATE " in output
        assert not re.search("^(Events|Monitor) ?", output, re.MULTILINE)
    assert "\nShards: 2.\n" in shards.steepctl("status")[1]


def test_a_rename_that_ends_between_two_shards_is_finished_by_another(stack, emptied):
    old, new = (source_on(number, prefix="torn") for number in range(2))
    fill(emptied, 0, old, 7000)
    with emptied.shards[0].connect() as shard, emptied.shards[1].connect() as other, emptied.router.connect() as router:
        lock = "('public.events'::regclass::oid::bigint)"
        shard.execute(f"SELECT pg_advisory_lock{lock}")
        steepctl = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "source", "rename", old, new], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                    env=stack.environment(PGUSER="postgres", **emptied.environment))
        stored = "SELECT count(*) FROM public.events"
        wait_for(lambda: shard.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()[0] == 1, "the deletion to wait")
        assert (shard.execute(stored).fetchone(), other.execute(stored).fetchone()) == ((7000,), (5000,))
        router.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%move_events%%' AND pid <> pg_backend_pid()")
        assert steepctl.wait(60 * SLOWNESS) == 1
        shard.execute(f"SELECT pg_advisory_unlock{lock}")
        wait_for(lambda: shard.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'steep_router' AND state = 'active'").fetchone()[0] == 0, "it to end")
        assert emptied.steepctl("source", "rename", old, new)[::2] == (0, "")
        assert (shard.execute(stored).fetchone(), other.execute("SELECT count(*), count(DISTINCT id) FROM public.events WHERE source = %s", (new,)).fetchone()) == ((0,), (7000, 7000))
        assert router.execute("SELECT * FROM public.count_source(%s)", (old,)).fetchone() == (0, 0)
    assert emptied.steepctl("counts", "check")[0] == 0


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
    with initialized(stack, 1) as made:
        yield made


def test_shards_are_doubled_twice_by_dump_and_restore(stack, growing):
    senders = [Monitor(f"growing-{n}") for n in range(24)]
    assert {shard_of(each.source, 4) for each in senders} == {0, 1, 2, 3}
    sent = []
    total = "SELECT sum(event_count) FROM public.get_hourly_totals(7)"

    def send(shards):
        with serving(stack, growing, monitors=senders) as ingest:
            for sender in senders * 2:
                event = sender.event()
                assert counts(post(ingest, sender, [event])) == (200, 1, 0)
                sent.append((sender, event))
            for sender, event in sent[::7]:
                assert counts(post(ingest, sender, [event])) == (200, 0, 1)
        assert [growing.where(event["id"]) for _, event in sent] == [[shard_of(sender.source, shards)] for sender, _ in sent]

    send(1)
    with growing.router.connect() as router:
        for half in (1, 2):
            growing.shards += [growing.make(f"shard{half + number}") for number in range(half)]
            # Before the restore: nothing has been copied.
            status, _, errors = growing.steepctl("shards", "add", input=growing.strings())
            assert (status, errors) == (1, f"steepctl: shard {half} is not a copy of shard 0: it lacks events;"
                                        " stop ingest.fcgi, and dump and restore the old one again\n")
            assert router.execute(total).fetchone() == (len(sent),)
            for number in range(half):
                growing.copy(number, half + number)
            status, output, errors = growing.steepctl("shards", "add", input=growing.strings())
            assert (status, errors, output.splitlines()[-1]) == (0, "", "Every source is in its shard, and the shards and the router agree.")
            assert router.execute(total).fetchone() == (len(sent),)
            send(2 * half)
    # Run again, as after an interruption.
    assert growing.steepctl("shards", "add", input=growing.strings())[0] == 0


def test_doubling_goes_on_after_an_interruption_and_no_sum_is_too_small_meanwhile(growing):
    total = "SELECT sum(event_count) FROM public.get_hourly_totals(7)"
    moved, stays = source_on(1), source_on(0)
    with growing.shards[0].connect() as shard:
        shard.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                      " SELECT 'many-' || n, CASE WHEN n > 12000 THEN %s ELSE %s END, now(), 'session', '{}' FROM generate_series(1, 12500) AS n",
                      (stays, moved))
    growing.shards.append(growing.make("shard1"))
    growing.copy(0, 1)
    with growing.shards[0].connect() as shard:
        shard.execute("CREATE SEQUENCE public.steps; GRANT ALL ON SEQUENCE public.steps TO PUBLIC;"
                      "CREATE FUNCTION public.interrupt() RETURNS trigger LANGUAGE plpgsql AS"
                      " $$ BEGIN IF nextval('public.steps') = 2 THEN RAISE 'interrupted'; END IF; RETURN NULL; END $$;"
                      "CREATE TRIGGER interrupt BEFORE DELETE ON public.events EXECUTE FUNCTION public.interrupt()")
    status, _, errors = growing.steepctl("shards", "add", input=growing.strings())
    assert (status, "interrupted" in errors) == (1, True), errors

    def left():
        with growing.shards[0].connect() as shard:
            return shard.execute("SELECT count(*) FROM public.events WHERE source = %s", (moved,)).fetchone()[0]

    def check_closed():
        with growing.router.connect() as router, pytest.raises(psycopg.errors.InternalError_):
            router.execute(total)

    assert left() == 2000
    check_closed()
    with growing.shards[1].connect() as shard:
        shard.execute("CREATE TABLE public.kept AS SELECT * FROM public.events; DELETE FROM public.events")
    # Neither of them opens a router some of whose events are in no shard that it knows.
    assert growing.steepctl("shards", "add", input=growing.strings())[::2] == (
        1, "steepctl: shard 1 is not a copy of shard 0: it lacks events; the old one may have lost events since it was copied,"
           " so restore its first dump, and add what came later\n")
    check_closed()
    assert growing.steepctl("shards", "init", input=growing.string(0))[::2] == (
        1, "steepctl: steepctl shards add has begun to double the shards and did not end; run it again\n")
    check_closed()
    assert left() == 2000
    with growing.shards[1].connect() as shard:
        shard.execute("INSERT INTO public.events SELECT * FROM public.kept; DROP TABLE public.kept")
    assert growing.steepctl("shards", "add", input=growing.strings())[::2] == (0, "")
    assert left() == 0
    with growing.router.connect() as router:
        assert router.execute(total).fetchone() == (12500,)


@pytest.fixture
def four(stack):
    with initialized(stack, 4) as made:
        yield made


def test_four_shards_that_init_made_answer_as_one_database(four, database):
    sources = ["a", "b", "B", "m1", "m10", "m2", "M", "z~"]
    assert {shard_of(name, 4) for name in sources} == {0, 1, 2, 3}
    check_queries(four, database, sample(sources))
    assert four.steepctl("source", "rename", "a", source_on(3 - shard_of("a", 4), 4))[0] == 0
    assert four.steepctl("shards", "check")[0] == 0
    assert len(four.steepctl("shards", "list")[1].splitlines()) == 4


def test_the_router_has_its_own_time_and_level(shards):
    with shards.router.connect(user="steep_ingest") as router:
        assert router.execute("SELECT public.beat(), public.schema_level()").fetchone() == ("", max(path.name for path in (ROOT / "sql/migrations").iterdir()))
        # What is read is that of the shards' primaries, now.
        assert router.execute("SELECT * FROM public.data_time()").fetchall() == []


ROUTERS = {"count_source", "remove_events", "move_events", "check_hourly_counts", "rebuild_hourly_counts"}
CALLABLE = """SELECT proname FROM pg_proc JOIN pg_namespace AS schema ON schema.oid = pronamespace
    WHERE nspname = %s AND has_schema_privilege(%s, schema.oid, 'USAGE') AND has_function_privilege(%s, pg_proc.oid, 'EXECUTE')"""


def test_the_roles_of_router_and_shards_may_do_what_they_need_and_no_more(shards):
    def callable_by(connection, role, schema):
        return {name for name, in connection.execute(CALLABLE, (schema, role, role)).fetchall()}

    for shard in shards.shards:
        with shard.connect() as connection:
            assert connection.execute("SELECT oid::regclass::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'proxy'::regnamespace)"
                                      " AND relkind = 'r' AND has_table_privilege('steep_router', oid, 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE')").fetchall() == []
            assert connection.execute("SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles"
                                      " WHERE rolname = 'steep_router'").fetchone() == (False,)
            programs = set().union(*(callable_by(connection, role, "public") for role in ("steep_ingest", "steep_query", "steep_prune")))
            assert callable_by(connection, "steep_router", "public") == programs | ROUTERS and not programs & ROUTERS
            for role in ("public", "steep_ingest", "steep_query", "steep_prune", "steep_backup"):
                assert callable_by(connection, role, "proxy") == set()
        status = shards.stack.steepctl("status", check=False, PGUSER="postgres", PGHOST=shard.cluster["host"], PGPORT="5432", PGDATABASE="steep")
        assert "\nAll roles exist and have their grants.\n" in status.stdout
    with shards.router.connect() as router:
        for role in ("public", "steep_ingest", "steep_query", "steep_prune"):
            assert callable_by(router, role, "proxy") == set()
    assert "\nAll roles exist and have their grants.\n" in shards.steepctl("status")[1]
    for command in (["source", "list"], ["events", "export"], ["status"], ["events", "remove", "--dry-run", "--from", "2026-01-01"]):
        done = shards.stack.steepctl(*command, check=False, **(shards.environment | {"PGUSER": "steep_backup"}))
        assert done.stderr == "" and "UNKNOWN" not in done.stdout, (command, done.stdout)


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
    (["{first}", f"host=a dbname=b sslpassword={SECRET}"], "the connection string of shard 1 must not have service, options, passfile, "
     "sslpassword or target_session_attrs"),
    (["{first}", f"host=/nonexistent dbname=steep password={SECRET}"], "shard 1: no connection to the database: "),
], ids=["router", "twice", "three", "none", "four", "quoted", "uri", "hostless", "key", "away"])
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


def test_no_password_is_shown_to_others_or_logged(shards):
    """Neither the administrator's, nor the router's own, in arguments, to other roles or in a log of everything."""
    databases = [shards.router, *shards.shards]
    with contextlib.ExitStack() as opened, concurrent.futures.ThreadPoolExecutor(1) as threads:
        admins = [opened.enter_context(database.connect()) for database in databases]
        for admin in admins:
            for setting in ("log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = 'debug5'"):
                admin.execute(f"ALTER SYSTEM SET {setting}")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute("GRANT pg_read_all_stats TO steep_query")
        try:
            others = [opened.enter_context(database.connect(user="steep_query")) for database in databases]
            running = threads.submit(shards.init, f" password={SECRET}")
            shown = set()
            while not running.done():
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    with contextlib.suppress(OSError):
                        shown.add(path.read_bytes().decode(errors="replace"))
                for other in others:
                    shown.update(query for query, in other.execute("SELECT query FROM pg_stat_activity WHERE usename <> 'postgres'").fetchall())
            running.result()
            for admin in admins:
                admin.execute("SELECT 'this is logged'")
            assert any("steepctl" in text for text in shown)
        finally:
            for admin in admins:
                admin.execute("REVOKE pg_read_all_stats FROM steep_query")
                admin.execute("ALTER SYSTEM RESET ALL")
                admin.execute("SELECT pg_reload_conf()")
        made, = admins[0].execute("SELECT option FROM pg_user_mapping, unnest(umoptions) AS option WHERE option LIKE 'password=%'").fetchone()
    logs = [(cluster.folder / "log").read_text() for cluster in shards.clusters]
    assert all("this is logged" in log for log in logs)
    for secret in (SECRET, made.removeprefix("password=")):
        assert len(secret) > 20 and not any(secret in text for text in [*shown, *logs])


def test_an_upgrade_is_made_by_init_and_by_nothing_else(stack, growing, tmp_path):
    folder = tmp_path / "migrations"
    shutil.copytree(ROOT / "sql" / "migrations", folder)
    (folder / "20990101_newer.sql").write_text("SET ROLE steep_owner;\nCOMMENT ON TABLE public.events IS 'newer';\nRESET ROLE;\n")
    newer = {"STEEP_MIGRATIONS": str(folder)}
    sender = Monitor("upgraded")

    def steepctl(*arguments, database=growing.router, **more):
        done = stack.steepctl(*arguments, check=False, PGUSER="postgres", PGHOST=database.cluster["host"], PGPORT="5432", PGDATABASE="steep", **newer, **more)
        return done.returncode, done.stderr

    advice = "run steepctl shards init with the strings of all shards, which migrates these and the router\n"
    assert steepctl("migrate") == (1, f"migrate: steep is a router of shards; {advice}")
    assert steepctl("migrate", database=growing.shards[0]) == (1, f"migrate: steep is a shard; {advice}")
    assert growing.steepctl("shards", "check")[0] == 0
    with serving(stack, growing, monitors=[sender], STEEP_DATABASE_WAIT="1") as ingest:
        # As where the command ends after a shard.
        growing.shards[0].migrate("--shards", **newer)
        event = sender.event()
        assert post(ingest, sender, [event]).status_code == 503 and growing.where(event["id"]) == []
        assert steepctl("shards", "init", input=growing.strings()) == (0, "")
        assert counts(post(ingest, sender, [event])) == (200, 1, 0)
    assert growing.steepctl("shards", "check")[0] == 0


def test_the_administrators_password_is_nowhere_in_the_router(shards):
    with shards.router.connect() as router:
        found = router.execute("SELECT srvoptions::text || umoptions::text FROM pg_user_mapping JOIN pg_foreign_server AS s ON s.oid = umserver").fetchall()
        assert len(found) == 1 and SECRET not in found[0][0] and "user=postgres" not in found[0][0]
        assert not router.execute("SELECT has_table_privilege('steep_ingest', 'pg_user_mapping', 'SELECT')").fetchone()[0]
