"""steepctl status reports what is wrong in sentences and by its exit status."""

import secrets
import shutil

import pytest

from stack import wait_for
from test_overload import in_hand

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3


@pytest.fixture
def healthy(database):
    """A connection to a database with which nothing is wrong."""
    with database.connect() as connection:
        connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES ('laptop', decode(repeat('01', 32), 'hex'))")
        connection.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES ('wall', decode(repeat('02', 32), 'hex'))")
        yield connection


@pytest.fixture
def status(stack, database):
    """Ask for the status: (exit status, its lines)."""

    def ask(**environment):
        given = {"PGDATABASE": database.name, "STEEP_URL": stack.values["STEEP_URL"], "STEEP_CA": stack.ca}
        done = stack.steepctl("status", check=False, **(given | environment))
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return ask


def check(result, expected, *sentences):
    """The exit status, and that the sentences are there and in the summary, if something is wrong."""
    code, lines = result
    assert code == expected, lines
    word = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}[expected]
    assert lines[0].startswith(f"STEEP {word}: ")
    assert [line for line in lines if line.startswith(("STEEP ", f"{word}: "))][1:] or expected == OK
    for sentence in sentences:
        assert (sentence if expected == OK else f"{word}: {sentence}") in lines[1:], lines
        assert expected == OK or sentence in lines[0]


def test_a_healthy_installation_is_reported_in_detail(healthy, status):
    healthy.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES"
                    " ('evt_1', 'laptop', '2026-02-03T14:00:01Z', 'tool', '{}'), ('evt_2', 'laptop', '2026-02-03T13:59:59Z', 'tool', '{}'),"
                    " ('evt_3', 'older', '2026-02-03T14:59:59.9Z', 'tool', '{}'), ('evt_4', 'ahead', '2026-02-03T14:00:00Z', 'tool', '{}')")
    healthy.execute("UPDATE public.events SET timestamp = now() + interval '23 hours' WHERE id = 'evt_4'")
    healthy.execute("INSERT INTO public.access_tokens (label, token_sha256, expires_at)"
                    " VALUES ('phone', decode(repeat('03', 32), 'hex'), '9999-02-03T04:05:06Z')")
    code, lines = status()
    check((code, lines), OK, "All roles exist and have their grants.", "Events: 4.",
          "Monitor laptop: newest event 2026-02-03T14:00:01Z, 1 key.", "Monitor older: newest event 2026-02-03T14:59:59Z, not registered.",
          "Token phone: expires at 9999-02-03T04:05:06Z.", "Token wall: does not expire.")
    assert lines[0] == "STEEP OK: all is well."
    for program in ("ingest", "query"):
        assert any(line.startswith(f"{program}.fcgi ") for line in lines)
    assert not any(":" in line[:10] and line.split(":")[0].isupper() for line in lines[1:])


AHEAD = "Monitor {} has events more than a day in the future: {}; every answer includes them until they are deleted."


def test_events_more_than_a_day_ahead_are_a_warning_with_source_and_number(healthy, status):
    healthy.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES"
                    " ('evt_1', 'laptop', now() + interval '23 hours 59 minutes 30 seconds', 'tool', '{}'),"
                    " ('evt_2', E'ol\\nder', 'infinity', 'tool', '{}')")
    code, lines = status()
    check((code, lines), WARNING, AHEAD.format("ol?der", 1))
    assert "Monitor ol?der: newest event infinity (in the future: its clock is wrong), not registered." in lines
    assert len([line for line in lines if line.startswith("WARNING")]) == 1, lines
    # Of each source: in the hour that is a day ahead, and in later hours.
    healthy.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                    " SELECT 'evt_' || source || n, source, now() + n * interval '1 second' + interval '24 hours 3 minutes', 'tool', '{}'"
                    " FROM unnest('{desk,laptop}'::text[]) AS source, generate_series(1, 10000, 2) AS n")
    check(status(), WARNING, AHEAD.format("ol?der", 1), AHEAD.format("desk", 5000), AHEAD.format("laptop", 5000))
    healthy.execute("DELETE FROM public.events WHERE timestamp > now() + interval '1 day'")
    assert status()[0] == OK


def test_a_monitor_without_events_and_its_keys_are_named(healthy, status):
    healthy.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES ('laptop', decode(repeat('04', 32), 'hex'))")
    check(status(), OK, "Monitor laptop: no events yet, 2 keys.", "Events: 0.")


@pytest.mark.parametrize("fault, expected, sentence", [
    ("INSERT INTO public.schema_migrations VALUES ('29990101_newer.sql', 'x')", CRITICAL,
     "The database has 29990101_newer.sql, a migration of another version."),
    ("DELETE FROM public.schema_migrations WHERE name ~ '^2026020[78]'", WARNING, "Pending migrations: 2; run steepctl migrate."),
    ("UPDATE public.schema_migrations SET sha256 = 'x' WHERE name ~ '^20260205'", WARNING,
     "20260205_create_credentials.sql has changed since it was applied to the database."),
    ("DROP TABLE public.schema_migrations", CRITICAL, "The database is not migrated; run steepctl migrate."),
    ("REVOKE EXECUTE ON FUNCTION public.bulk_insert_events FROM steep_ingest", CRITICAL,
     "Role steep_ingest cannot execute public.bulk_insert_events(jsonb);"
     " run GRANT EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) TO steep_ingest."),
    ("REVOKE EXECUTE ON FUNCTION public.bulk_insert_batches FROM steep_ingest", CRITICAL,
     "Role steep_ingest cannot execute public.bulk_insert_batches(integer[],jsonb[]);"
     " run GRANT EXECUTE ON FUNCTION public.bulk_insert_batches(integer[],jsonb[]) TO steep_ingest."),
    ("REVOKE EXECUTE ON FUNCTION public.list_access_tokens FROM steep_query", CRITICAL,
     "Role steep_query cannot execute public.list_access_tokens(uuid);"
     " run GRANT EXECUTE ON FUNCTION public.list_access_tokens(uuid) TO steep_query."),
    ("REVOKE EXECUTE ON FUNCTION public.prune_events FROM steep_prune", CRITICAL,
     "Role steep_prune cannot execute public.prune_events(interval,integer);"
     " run GRANT EXECUTE ON FUNCTION public.prune_events(interval,integer) TO steep_prune."),
    ("DROP FUNCTION public.log_failure", CRITICAL, "Function public.log_failure(text[],text) is missing."),
    ("DROP FUNCTION public.log_failure, public.prune_events; DELETE FROM public.schema_migrations WHERE name ~ '^2026020[78]'",
     WARNING, "Pending migrations: 2; run steepctl migrate."),
    ("DROP FUNCTION public.get_hourly_aggregates", CRITICAL, "Function public.get_hourly_aggregates(integer,text) is missing."),
    ("REVOKE USAGE ON SCHEMA public FROM steep_query", CRITICAL,
     "Role steep_query cannot use the schema; run GRANT USAGE ON SCHEMA public TO steep_query."),
    ("GRANT EXECUTE ON FUNCTION public.rebuild_hourly_counts TO PUBLIC", WARNING,
     "PUBLIC can execute rebuild_hourly_counts(); run steepctl migrate."),
    ("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC", WARNING, "PUBLIC can execute lo_create(oid); run steepctl migrate."),
    ("DELETE FROM pg_init_privs WHERE objoid = 'lo_create(oid)'::regprocedure", WARNING,
     "A dump contains the privileges of lo_create(oid), which another version of PostgreSQL may refuse; run steepctl migrate."),
    ("GRANT USAGE ON SCHEMA public TO PUBLIC", WARNING, "PUBLIC can use the schema public; run steepctl migrate."),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE steep_owner GRANT EXECUTE ON ROUTINES TO PUBLIC", WARNING,
     "PUBLIC can execute the functions that steep_owner creates; run steepctl migrate."),
    ("REVOKE TRIGGER ON public.events FROM service_role", WARNING,
     "Role service_role lacks a privilege on public.events; run steepctl migrate."),
    ("ALTER FUNCTION public.list_monitor_keys OWNER TO postgres; GRANT EXECUTE ON FUNCTION public.list_monitor_keys TO PUBLIC", WARNING,
     "PUBLIC can execute list_monitor_keys(uuid); run REVOKE EXECUTE ON FUNCTION list_monitor_keys(uuid) FROM PUBLIC."),
    ("ALTER FUNCTION public.list_monitor_keys OWNER TO postgres", WARNING,
     "Function list_monitor_keys(uuid) runs as postgres instead of steep_owner."),
    ("DELETE FROM public.monitor_keys", WARNING,
     "No monitor is registered; run steepctl monitor add, unless all keys are in VIBETEA_PUBLIC_KEYS."),
    ("DELETE FROM public.access_tokens", WARNING,
     "There is no valid token; run steepctl token add, unless the token is in VIBETEA_SUBSCRIBER_TOKEN."),
    ("UPDATE public.access_tokens SET expires_at = '2020-01-02T03:04:05Z'", WARNING, "Token wall: expired at 2020-01-02T03:04:05Z."),
], ids=lambda value: str(value)[:40])
def test_each_fault_is_reported(fault, expected, sentence, healthy, status):
    healthy.execute(fault)
    check(status(), expected, sentence)


def test_more_connections_than_the_server_allows_are_a_warning(healthy, status):
    most, reserved = (int(healthy.execute(f"SHOW {name}").fetchone()[0]) for name in ("max_connections", "superuser_reserved_connections"))
    # Each program has two more than those for requests.
    fits = (most - reserved) // 2 - 2
    check(status(STEEP_CONNECTIONS=str(fits)), OK)
    wanted = 2 * (fits + 1 + 2)
    check(status(STEEP_CONNECTIONS=str(fits + 1)), WARNING,
          f"The programs may open {wanted} connections, but the server has {most - reserved} for them;"
          f" raise max_connections to at least {wanted + reserved}, or lower STEEP_CONNECTIONS.")


def test_a_token_that_expires_soon_is_a_warning(healthy, status):
    healthy.execute("UPDATE public.access_tokens SET expires_at = now() + interval '6 days'")
    code, lines = status()
    assert code == WARNING and lines[0].startswith("STEEP WARNING: Token wall: expires at ")


def test_a_role_that_may_not_connect_is_reported(healthy, database, status):
    healthy.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM steep_ingest")
    check(status(), CRITICAL, "Role steep_ingest cannot connect to the database;"
          f" run GRANT CONNECT ON DATABASE {database.name} TO steep_ingest.")


def test_too_much_access_is_reported_and_migrate_mends_it(healthy, database, status, stack):
    healthy.execute(f"GRANT TEMPORARY ON DATABASE {database.name} TO PUBLIC")
    healthy.execute("GRANT EXECUTE ON FUNCTION pg_catalog.lo_creat, public.bulk_insert_events TO PUBLIC")
    check(status(), WARNING, *(f"PUBLIC can {what}; run steepctl migrate." for what in
                               ("use the database", "execute lo_creat(integer)", "execute bulk_insert_events(jsonb)")))
    stack.steepctl("migrate", PGDATABASE=database.name)
    check(status(), OK)


def test_the_worst_fault_decides_and_all_are_reported(healthy, status):
    healthy.execute("DELETE FROM public.access_tokens")
    healthy.execute("DROP FUNCTION public.list_monitor_keys")
    healthy.execute("DROP FUNCTION public.list_access_tokens")
    code, lines = status()
    check((code, lines), CRITICAL, "Function public.list_monitor_keys(uuid) is missing.", "Function public.list_access_tokens(uuid) is missing.")
    assert any(line.startswith("WARNING: There is no valid token") for line in lines) and "valid token" not in lines[0]


def test_missing_and_altered_roles_are_reported(new_cluster, stack):
    cluster = new_cluster("status")
    cluster.start()
    database = cluster.make_database("steep")
    database.migrate()
    with database.connect() as connection:
        connection.execute("DROP OWNED BY steep_query")
        connection.execute("DROP ROLE steep_query")
        connection.execute("ALTER ROLE steep_ingest NOLOGIN SUPERUSER")
        connection.execute("ALTER ROLE steep_owner NOBYPASSRLS")
    given = {"PGHOST": cluster.arguments["host"], "PGDATABASE": "steep", "STEEP_URL": stack.values["STEEP_URL"], "STEEP_CA": stack.ca}
    done = stack.steepctl("status", check=False, **given)
    check((done.returncode, done.stdout.splitlines()), CRITICAL, "Role steep_query is missing; steepctl roles prints the SQL that creates it.",
          "Role steep_ingest cannot log in; run ALTER ROLE steep_ingest LOGIN.",
          "Role steep_owner lacks BYPASSRLS, so its functions see no rows; run ALTER ROLE steep_owner BYPASSRLS.")
    assert "WARNING: Role steep_ingest has more privileges than its program needs: it is a superuser, or has BYPASSRLS." in done.stdout


def test_an_unreachable_database_is_critical_and_the_rest_is_reported(status, stack):
    code, lines = status(PGHOST="/nonexistent")
    check((code, lines), CRITICAL, f"no connection to the database: /nonexistent/.s.PGSQL.{stack.pg['PGPORT']}: No such file or directory.")
    assert any(line.startswith("ingest.fcgi ") for line in lines)
    name = f"none_{secrets.token_hex(4)}"
    check(status(PGDATABASE=name), CRITICAL, f'no connection to the database: database "{name}" does not exist.')


def test_a_role_without_access_is_unknown_and_the_backup_role_suffices(healthy, status):
    check(status(PGOPTIONS="-c role=steep_query"), UNKNOWN, "permission denied; set PGUSER to a role that may administer the database.")
    check(status(PGOPTIONS="-c role=pg_read_all_data"), UNKNOWN, "permission denied; set PGUSER to a role that may administer the database.")
    check(status(PGOPTIONS="-c role=steep_backup"), OK)


@pytest.mark.outage
@pytest.mark.parametrize("program", ["ingest", "query"])
def test_a_program_that_does_not_answer_is_critical(program, healthy, status, stack):
    wait_for(lambda: status()[0] == OK, "what an outage took away to be back", every=0.5)
    listener = stack.state / "run" / f"{program}.sock"
    away = listener.with_name("away")
    listener.rename(away)
    try:
        wait_for(lambda: in_hand(stack, program) == 0, "nginx to close the connections that it keeps")
        code, lines = status()
    finally:
        away.rename(listener)
    assert code == CRITICAL and lines[0].startswith(f"STEEP CRITICAL: {program}.fcgi "), lines
    assert len([line for line in lines if line.startswith("CRITICAL")]) == 1
    # nginx tries the socket again after a while.
    wait_for(lambda: status()[0] == OK, "the program to be found well", every=0.5)


@pytest.mark.outage
def test_a_program_whose_statements_all_fail_is_critical(healthy, status, stack):
    """The database of the programs, which is not the one whose state is asked for."""
    wait_for(lambda: status()[0] == OK, "what an outage took away to be back", every=0.5)
    # Outages ended the session's connection.
    with stack.connect() as db:
        db.execute("REVOKE EXECUTE ON FUNCTION public.get_hourly_aggregates FROM steep_query")
        try:
            wait_for(lambda: status()[0] == CRITICAL, "the fault to be found", every=0.5)
            check(status(), CRITICAL, f"query.fcgi is not ready (503 from {stack.values['STEEP_URL']}/readyz/query): it has not read its"
                  " credentials, cannot reach the database, or its statements fail there; its log says why.")
        finally:
            db.execute("GRANT EXECUTE ON FUNCTION public.get_hourly_aggregates TO steep_query")
    wait_for(lambda: status()[0] == OK, "the program to be found well", every=0.5)


def test_a_site_that_does_not_answer_is_critical_with_the_reason(healthy, status, stack):
    code, lines = status(STEEP_URL="https://localhost:1")
    assert code == CRITICAL and "Nothing answers at https://localhost:1: Failed to connect" in lines[0]
    code, lines = status(STEEP_CA="/etc/ssl/certs/ca-certificates.crt")
    assert code == CRITICAL and "certificate" in lines[0]


def test_the_events_are_not_scanned(healthy, database, status):
    with database.connect() as connection:
        connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                           " SELECT 'evt_' || n, 'm' || n %% 7, now() - n * interval '5 minutes', 'tool', '{}' FROM generate_series(1, 20000) AS n",
                           [])
        connection.execute("ANALYZE public.events")

    def scans():
        with database.connect() as connection:
            return connection.execute("SELECT seq_scan, idx_tup_fetch + idx_tup_read FROM pg_stat_user_tables"
                                      " JOIN (SELECT relid, sum(idx_tup_read) AS idx_tup_read FROM pg_stat_user_indexes GROUP BY relid) AS read"
                                      " USING (relid) WHERE relname = 'events'").fetchone()

    before = scans()
    check(status(), OK, "Events: 20000.")
    after = scans()
    assert after[0] == before[0]
    assert after[1] - before[1] <= 7 * 13, "of each source it reads the newest hour"


def test_a_missing_psql_is_unknown(status, tmp_path):
    for tool in ("sh", "readlink", "dirname", "sed", "curl", "openssl", "mktemp", "rm", "timeout", "cat", "tr"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    check(status(PATH=str(tmp_path)), UNKNOWN, "psql is not installed.")
