"""Readiness follows results: a program whose statements all fail is not ready, and is again at the first success."""

import contextlib
import re
import secrets

import pytest

from database import Cluster, made_database
from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode
from stack import wait_for
from test_health import BOTH, NAMES

FUNCTIONS = {"ingest": "public.bulk_insert_events(jsonb)", "query": "public.get_hourly_aggregates(integer, text)"}
TOKEN = "readiness-token"


@pytest.fixture(scope="module")
def cluster(stack):
    """A cluster of the module's own: in the stack's, the programs may use the stack's database only."""
    made = Cluster(stack, "readiness")
    try:
        made.initialize()
        made.start()
        yield made.arguments
    finally:
        made.remove()


@contextlib.contextmanager
def serving(stack, name, database, sender=None):
    """A program on a database of its own, once it is ready."""
    sender = sender or Monitor("readiness-monitor")
    with program(stack, name, passed=BOTH, **environment(database), STEEP_DATABASE_WAIT="0",
                 VIBETEA_PUBLIC_KEYS=f"{sender.source}:{sender.public_base64}", VIBETEA_SUBSCRIBER_TOKEN=TOKEN) as instance:
        await_ready(instance, name)
        yield instance


@contextlib.contextmanager
def serving_both(stack, database):
    """Both programs by name. Most of the time a test waits, which it does for both at once."""
    with contextlib.ExitStack() as started:
        yield {name: started.enter_context(serving(stack, name, database)) for name in NAMES}


def environment(database):
    return {"PGHOST": database.cluster["host"], "PGPORT": str(database.cluster["port"]), "PGDATABASE": database.name}


def is_ready(instance, name):
    status = instance.ask_health(f"/readyz/{name}").status_code
    assert status in (200, 503)
    return status == 200


def await_ready(instance, name, expected=True):
    """Wait until both the path and the gauge of the metrics say so."""
    def agree():
        gauge = re.search(r"^steep_ready\{.*\} (\d)$", instance.ask_health(f"/metrics/{name}").text, re.MULTILINE)
        return is_ready(instance, name) == (gauge[1] == "1") == expected

    wait_for(agree, "it to be ready" if expected else "it not to be ready", 30)


def await_not_ready(instance, name):
    await_ready(instance, name, expected=False)


def probes_logged(instance):
    return re.findall(r"level=(\w+) event=probe .*?(?:sqlstate=(\w+))?\n", instance.errors.read_text())


def post(instance, sender):
    body = encode([sender.event()])
    return instance.ask(ingest_params(body, sender), body)


def test_a_missing_grant_shows_without_a_request(stack, database):
    with serving_both(stack, database) as instances, database.connect() as admin:
        for name in NAMES:
            admin.execute(f"REVOKE EXECUTE ON FUNCTION {FUNCTIONS[name]} FROM steep_{name}")
        for name, instance in instances.items():
            await_not_ready(instance, name)
            assert instance.ask_health(f"/healthz/{name}").status_code == 200
        for name in NAMES:
            admin.execute(f"GRANT EXECUTE ON FUNCTION {FUNCTIONS[name]} TO steep_{name}")
        for name, instance in instances.items():
            await_ready(instance, name)
            # One line for the fault however often it is met, and one for its end.
            wait_for(lambda: len(probes_logged(instance)) == 2, "the lines")
            assert probes_logged(instance) == [("error", "42501"), ("info", "")]


def test_a_language_whose_library_is_missing_shows_without_a_request(stack, database):
    """As after an upgrade of PostgreSQL under a running server, while the credentials can still be read."""
    with serving_both(stack, database) as instances, database.connect() as admin:
        library, = admin.execute("SELECT probin FROM pg_proc WHERE proname = 'plpgsql_call_handler'").fetchone()
        change = "UPDATE pg_proc SET probin = %s WHERE proname = 'plpgsql_call_handler'"
        admin.execute(change, ("$libdir/no-such-library",))
        for name, instance in instances.items():
            await_not_ready(instance, name)
            assert ("error", "58P01") in probes_logged(instance)
        admin.execute(change, (library,))
        for name, instance in instances.items():
            await_ready(instance, name)


def test_a_program_that_starts_on_a_broken_database_does_not_become_ready(stack, database):
    with database.connect() as admin:
        for name in NAMES:
            admin.execute(f"REVOKE EXECUTE ON FUNCTION {FUNCTIONS[name]} FROM steep_{name}")
            with program(stack, name, passed=BOTH, **environment(database)) as instance:
                wait_for(lambda: "event=probe" in instance.errors.read_text() and "credentials=" in instance.errors.read_text(),
                         "its first look")
                assert not is_ready(instance, name)


def test_new_connections_that_fail_show_although_old_ones_work(stack, database, cluster):
    with made_database(cluster) as other, serving_both(stack, database) as instances, other.connect() as admin:
        admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
        for name, instance in instances.items():
            await_not_ready(instance, name)
            assert "steep_keyring_age_seconds" in instance.ask_health(f"/metrics/{name}").text
            assert "could not read the credentials" not in instance.errors.read_text()
        admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
        for name, instance in instances.items():
            await_ready(instance, name)


def test_the_probes_leave_no_connection_and_store_nothing(stack, database):
    with serving_both(stack, database), database.connect() as admin:
        def sessions():
            return admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                                 " AND application_name = ANY(%s)", ([f"{name} probe" for name in NAMES],)).fetchone()[0]

        def ended():
            return admin.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()").fetchone()[0]

        before = ended()
        wait_for(lambda: ended() >= before + 4, "two more probes of each program", 60)
        wait_for(lambda: sessions() == 0, "the last ones to end")
        for table in ("events", "hourly_counts"):
            inserted = "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = %s"
            assert admin.execute(inserted, (table,)).fetchone() == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_request_is_no_failure(name, stack, database):
    sender = Monitor("readiness-refused")
    with serving(stack, name, database, sender) as instance, database.connect() as admin:
        admin.execute("ALTER TABLE public.events ADD CONSTRAINT refused CHECK (NOT payload ? 'forbidden')")
        body = encode([sender.event(payload={"forbidden": True})])
        for _ in range(5):
            if name == "ingest":
                assert instance.ask(ingest_params(body, sender), body).status_code == 422
            else:
                assert instance.ask(query_params(TOKEN, "days=8")).status_code == 400
            assert is_ready(instance, name)


@pytest.fixture
def shards(stack, cluster, database):
    """A database whose bulk_insert_events is PL/Proxy's, and the one that it passes batches on to."""
    with made_database(cluster) as shard, database.connect() as admin:
        shard.migrate()
        admin.execute("CREATE EXTENSION plproxy")
        admin.execute("CREATE SERVER shards FOREIGN DATA WRAPPER plproxy OPTIONS (p0 "
                      f"'host={cluster['host']} port={cluster['port']} dbname={shard.name}')")
        admin.execute("CREATE USER MAPPING FOR PUBLIC SERVER shards OPTIONS (user 'steep_ingest')")
        admin.execute("GRANT USAGE ON FOREIGN SERVER shards TO steep_ingest")
        admin.execute("CREATE FUNCTION public.shard_of(events_json jsonb) RETURNS integer LANGUAGE sql IMMUTABLE"
                      " AS $$ SELECT hashtext(events_json->0->>'source') $$")
        admin.execute("GRANT EXECUTE ON FUNCTION public.shard_of(jsonb) TO steep_ingest")
        admin.execute("DROP FUNCTION public.bulk_insert_events(jsonb)")
        admin.execute("CREATE FUNCTION public.bulk_insert_events(events_json jsonb) RETURNS TABLE (inserted_count bigint)"
                      " LANGUAGE plproxy AS $$ CLUSTER 'shards'; RUN ON public.shard_of(events_json); $$")
        admin.execute("REVOKE EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) FROM PUBLIC")
        admin.execute("GRANT EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) TO steep_ingest")
        yield database, shard


def test_a_function_of_pl_proxy_which_hashes_no_empty_batch_is_ready(stack, shards):
    front, shard = shards
    sender = Monitor("readiness-shard")
    with front.connect() as admin, shard.connect() as stored, contextlib.ExitStack() as started:
        def failed():
            return admin.execute("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()").fetchone()[0]

        before = failed()
        instance = started.enter_context(serving(stack, "ingest", front, sender))
        # Three failures would be enough.
        while failed() < before + 4:
            assert is_ready(instance, "ingest")
            wait_for(lambda seen=failed(): failed() > seen, "another probe", 60)
        assert is_ready(instance, "ingest") and probes_logged(instance) == []
        assert post(instance, sender).status_code == 200
        assert stored.execute("SELECT count(*) FROM public.events").fetchone() == (1,)


def test_a_missing_grant_shows_before_pl_proxy_hashes(stack, shards):
    front, _ = shards
    sender = Monitor("readiness-shard")
    with serving(stack, "ingest", front, sender) as instance, front.connect() as admin:
        admin.execute("REVOKE EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) FROM steep_ingest")
        await_not_ready(instance, "ingest")
        assert probes_logged(instance) == [("error", "42501")]
        admin.execute("GRANT EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) TO steep_ingest")
        await_ready(instance, "ingest")


def test_batches_that_all_fail_make_it_not_ready_until_the_first_success(stack, shards):
    front, shard = shards
    sender = Monitor("readiness-shard")
    moved = f"steep_e2e_{secrets.token_hex(6)}"
    with serving(stack, "ingest", front, sender) as instance, front.connect() as admin:
        assert post(instance, sender).status_code == 200
        terminate = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{shard.name}'"
        admin.execute(terminate)
        wait_for(lambda: not admin.execute(f"SELECT FROM pg_stat_activity WHERE datname = '{shard.name}'").fetchall(), "its end")
        admin.execute(f"ALTER DATABASE {shard.name} RENAME TO {moved}")
        try:
            # Two are not enough: a single monitor's bad luck.
            assert [post(instance, sender).status_code for _ in range(2)] == [503, 503]
            assert is_ready(instance, "ingest")
            assert post(instance, sender).status_code == 503
            wait_for(lambda: not is_ready(instance, "ingest"), "the third failure to count", 10)
        finally:
            admin.execute(f"ALTER DATABASE {moved} RENAME TO {shard.name}")
        wait_for(lambda: post(instance, sender).status_code == 200, "the shard to be back")
        wait_for(lambda: is_ready(instance, "ingest"), "the success to count", 5)


def test_batches_that_all_fail_show_although_the_probe_succeeds(stack, database):
    """The function stores nothing of an empty batch, and so meets no fault of what events cause."""
    sender = Monitor("readiness-counts")
    with serving(stack, "ingest", database, sender) as instance, database.connect() as admin:
        def probes():
            return admin.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()").fetchone()[0]

        assert post(instance, sender).status_code == 200
        admin.execute("CREATE FUNCTION public.e2e_fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE undefined_table; END$$")
        admin.execute("CREATE TRIGGER e2e_fail BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION public.e2e_fail()")
        # After each batch, the probe succeeds.
        for _ in range(4):
            before = probes()
            assert post(instance, sender).status_code == 500
            wait_for(lambda before=before: probes() > before, "a probe", 30)
        assert not is_ready(instance, "ingest") and probes_logged(instance) == []
        admin.execute("DROP TRIGGER e2e_fail ON public.events")
        assert post(instance, sender).status_code == 200
        wait_for(lambda: is_ready(instance, "ingest"), "the success to count", 5)
