"""Dumps and archives, restored into an empty cluster as README.md says: everything is there, and the programs serve it."""

import re
import subprocess

import pytest

from database import Cluster
from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode
from stack import ROOT, wait_for

TABLES = ["access_tokens", "events", "hourly_counts", "monitor_keys", "schema_migrations", "source_renames"]


class Origin:
    """A cluster with an archive of its WAL, a migrated database in it, a monitor's key, a rename, two tokens, and batches."""

    def __init__(self, stack):
        self.stack = stack
        self.cluster = Cluster(stack, "origin")
        self.archive = self.cluster.folder / "archive"

    def start(self):
        self.cluster.initialize()
        subprocess.run(["mkdir", str(self.archive)], check=True, **self.cluster.user)
        self.cluster.configure(archive_mode="on", archive_command=f"test ! -f {self.archive}/%f && cp %p {self.archive}/%f", fsync="off")
        self.cluster.start()
        database = self.cluster.make_database("steep")
        database.migrate()
        self.monitor = Monitor("laptop")
        self.steepctl("monitor", "add", "laptop", self.monitor.public_base64)
        self.steepctl("source", "rename", "laptop", "notebook")
        self.token = self.steepctl("token", "add", "wall").split()[-1]
        self.stranger = self.steepctl("token", "add", "stranger", "--source", "lap", "--source", "desktop-*").split()[-1]
        self.events = [self.monitor.event(timestamp=f"2026-02-{day:02}T{hour:02}:00:00Z", payload={"day": day})
                       for day in range(1, 20) for hour in range(0, 24, 5)]
        assert send(self.stack, self.cluster, self.monitor, [*self.events, self.monitor.event()])["inserted"] == len(self.events) + 1

    def steepctl(self, *arguments, cluster=None):
        return self.stack.steepctl(*arguments, PGHOST=(cluster or self.cluster).arguments["host"]).stdout


def send(stack, cluster, monitor, events, database="steep"):
    """Post a batch to an ingest.fcgi that stores it in this cluster; what it answers."""
    with program(stack, "ingest", PGHOST=cluster.arguments["host"], PGPORT="5432", PGDATABASE=database) as ingest:
        body = encode(events)
        answer = wait_for(lambda: ready(ingest.ask(ingest_params(body, monitor), body)), "a batch to be taken")
        assert answer.status_code == 200, answer.text
        return answer.json()


def ask(stack, cluster, token, database="steep"):
    with program(stack, "query", PGHOST=cluster.arguments["host"], PGPORT="5432", PGDATABASE=database) as query:
        answer = wait_for(lambda: ready(query.ask(query_params(token, "days=30"))), "a question to be answered")
        assert answer.status_code == 200, answer.text
        return answer.json()["aggregates"]


def ready(answer):
    return answer if answer.status_code != 503 else None


@pytest.fixture(scope="module")
def origin(stack):
    made = Origin(stack)
    try:
        made.start()
        yield made
    finally:
        made.cluster.remove()


@pytest.fixture(scope="module")
def dump(origin):
    """A dump, made as the role that is there for it."""
    file = origin.cluster.folder / "steep.dump"
    origin.cluster.run("pg_dump", "-U", "steep_backup", "-Fc", "-f", file, "steep")
    return file


@pytest.fixture
def empty(new_cluster):
    """A cluster in which nothing was ever made."""
    cluster = new_cluster("restored")
    cluster.configure(fsync="off")
    cluster.start()
    return cluster


@pytest.fixture
def with_roles(empty, origin):
    # The cluster that they are for may be the only one that is left.
    sql = origin.stack.steepctl("roles", PGHOST="/nonexistent").stdout
    for _ in range(2):
        done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"], input=sql, text=True, capture_output=True,
                              env=origin.stack.environment(PGHOST=empty.arguments["host"], PGDATABASE="postgres"), check=True)
        assert done.stdout + done.stderr == ""
    return empty


def content(cluster, name="steep", tables=TABLES):
    """Every row of every table, as text."""
    with cluster.database(name).connect({"TimeZone": "UTC"}) as connection:
        return {table: connection.execute(f"SELECT t::text FROM public.{table} AS t ORDER BY 1").fetchall() for table in tables}


def schema(cluster, name="steep"):
    """What pg_dump says of a database but its rows; what it draws anew each time is left out."""
    text = cluster.run("pg_dump", "--schema-only", "--create", name)
    return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


def roles(cluster):
    """Our roles as the cluster has them: attributes, settings, memberships and comments."""
    with cluster.database("postgres").connect() as connection:
        return connection.execute("""
            SELECT rolname, rolcanlogin, rolsuper, rolinherit, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolconnlimit,
              rolvaliduntil, (SELECT array_agg(setting ORDER BY setting) FROM unnest(rolconfig) AS setting),
              (SELECT array_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = pg_roles.oid), shobj_description(oid, 'pg_authid')
            FROM pg_roles WHERE rolname LIKE 'steep%' OR rolname = 'service_role' ORDER BY rolname""").fetchall()


def check_serving(origin, cluster):
    """The programs take up where they left: what was sent is known, what is new is stored, and it is counted, for whom it is."""
    before = ask(origin.stack, cluster, origin.token)
    assert before and ask(origin.stack, cluster, origin.stranger) == []
    answer = send(origin.stack, cluster, origin.monitor, origin.events[:50])
    assert (answer["inserted"], answer["duplicates"]) == (0, 50)
    assert send(origin.stack, cluster, origin.monitor, [origin.monitor.event()])["inserted"] == 1
    assert sum(row["eventCount"] for row in ask(origin.stack, cluster, origin.token)) == sum(row["eventCount"] for row in before) + 1
    assert origin.steepctl("counts", "check", cluster=cluster) == "The hourly counts are correct.\n"


def check_privileges(cluster):
    """tests/sql/privileges.sql finds nothing wrong."""
    with cluster.database("steep").connect() as connection:
        connection.execute("CREATE SCHEMA tap")
        connection.execute("GRANT USAGE ON SCHEMA tap TO PUBLIC")
        connection.execute("CREATE EXTENSION pgtap SCHEMA tap")
    file = ROOT / "tests" / "sql" / "privileges.sql"
    done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "steep"], text=True, capture_output=True, check=True,
                          input=file.read_text(), env={"PATH": "/usr/bin:/bin", "PGHOST": cluster.arguments["host"], "PGUSER": "postgres",
                                                       "PGOPTIONS": "-c search_path=public,tap"})
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("not ok")] == []
    planned = [line for line in lines if line.startswith("1..")]
    assert planned == [f"1..{len([line for line in lines if line.startswith('ok ')])}"] and len(lines) > 100


def test_a_dump_is_restored_into_an_empty_cluster_with_everything(origin, dump, with_roles):
    with_roles.run("pg_restore", "--exit-on-error", "--create", "-d", "postgres", dump)
    given = {"PGHOST": with_roles.arguments["host"], "STEEP_URL": origin.stack.values["STEEP_URL"], "STEEP_CA": origin.stack.ca}
    restored = origin.stack.steepctl("status", check=False, **given)
    assert restored.returncode == 1 and "WARNING: PUBLIC can execute lo_create(oid); run steepctl migrate.\n" in restored.stdout
    assert "mended: REVOKE EXECUTE ON FUNCTION lo_create(oid) FROM PUBLIC\n" in origin.steepctl("migrate", cluster=with_roles)
    assert content(with_roles) == content(origin.cluster)
    assert schema(with_roles) == schema(origin.cluster)
    assert roles(with_roles) == roles(origin.cluster)
    assert "All roles exist and have their grants." in origin.stack.steepctl("status", **given).stdout
    check_serving(origin, with_roles)
    check_privileges(with_roles)


def test_a_dump_has_nothing_that_another_major_version_may_lack(origin):
    # The arguments of PostgreSQL's own functions differ, and a REVOKE for one that is missing ends a restore and pg_upgrade.
    assert re.findall(r"^(?:GRANT|REVOKE) .* pg_catalog\..*$", schema(origin.cluster), re.MULTILINE) == []


def test_without_the_roles_a_restore_fails_instead_of_opening_the_functions(dump, empty):
    with pytest.raises(AssertionError, match='role "steep_owner" does not exist'):
        empty.run("pg_restore", "--exit-on-error", "--create", "-d", "postgres", dump)


def test_the_rows_alone_are_restored_into_a_migrated_database(origin, dump, empty):
    empty.make_database("steep").migrate()
    listed = empty.folder / "list"
    listed.write_text("".join(line for line in empty.run("pg_restore", "--list", dump).splitlines(True) if "schema_migrations" not in line))
    listed.chmod(0o644)
    empty.run("pg_restore", "--exit-on-error", "--data-only", "--disable-triggers", "-L", listed, "-d", "steep", dump)
    tables = [table for table in TABLES if table != "schema_migrations"]
    assert content(empty, tables=tables) == content(origin.cluster, tables=tables)
    check_serving(origin, empty)


def test_counts_that_a_restore_doubled_are_found_and_mended(origin, dump, empty):
    empty.make_database("steep").migrate()
    # Without --disable-triggers, and the counts first: the triggers count once more what is counted already.
    for table in ("hourly_counts", "events"):
        empty.run("pg_restore", "--data-only", "-t", table, "-d", "steep", dump)
    refused = origin.stack.steepctl("counts", "check", PGHOST=empty.arguments["host"], check=False)
    assert refused.returncode == 1 and "steepctl counts rebuild" in refused.stderr
    origin.steepctl("counts", "rebuild", cluster=empty)
    assert origin.steepctl("counts", "check", cluster=empty) == "The hourly counts are correct.\n"


def test_the_backup_role_reads_everything_and_changes_nothing(origin):
    database = origin.cluster.database("steep")
    with database.connect(user="steep_backup") as connection:
        assert connection.execute("SELECT count(*) FROM public.events").fetchone()[0] >= len(origin.events)
        for statement in ("DELETE FROM public.events", "TRUNCATE public.monitor_keys", "CREATE TABLE public.x ()", "SET ROLE steep_owner",
                          "SELECT public.prune_events()", "SELECT public.bulk_insert_events('[]')"):
            for writable in ("on", "off"):
                connection.execute(f"SET default_transaction_read_only = {writable}")
                with pytest.raises(Exception, match="permission denied|read-only"):
                    connection.execute(statement)


def test_a_cluster_is_recovered_to_a_moment_between_two_batches(origin, stack):
    recovered = Cluster(stack, "recovered")
    first, second = [[origin.monitor.event() for _ in range(20)] for _ in range(2)]
    try:
        origin.cluster.run("pg_basebackup", "-D", recovered.data, "-X", "none", "--checkpoint=fast", "--no-manifest")
        before = ask(stack, origin.cluster, origin.token)
        send(stack, origin.cluster, origin.monitor, first)
        with origin.cluster.database("steep").connect() as connection:
            expected = connection.execute("SELECT count(*) FROM public.events").fetchone()
            moment = connection.execute("SELECT clock_timestamp()::text").fetchone()[0]
        send(stack, origin.cluster, origin.monitor, second)
        with origin.cluster.database("steep").connect() as connection:
            last = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()[0]
        wait_for((origin.archive / last).exists, "the archive to be whole")

        recovered.configure(restore_command=f"cp {origin.archive}/%f %p", recovery_target_time=moment, recovery_target_action="promote",
                            archive_mode="off")
        subprocess.run(["touch", str(recovered.data / "recovery.signal")], check=True, **recovered.user)
        recovered.start()
        with recovered.database("steep").connect() as connection:
            wait_for(lambda: connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()[0], "the recovery to end")
            assert connection.execute("SELECT count(*) FROM public.events").fetchone() == expected
            assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []
        assert sum(row["eventCount"] for row in ask(stack, recovered, origin.token)) == sum(row["eventCount"] for row in before) + 20
        answers = [send(stack, recovered, origin.monitor, events) for events in (first, second)]
        assert [(answer["inserted"], answer["duplicates"]) for answer in answers] == [(0, 20), (20, 0)]
        check_serving(origin, recovered)
    finally:
        recovered.remove()
