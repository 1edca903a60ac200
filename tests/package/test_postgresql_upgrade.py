"""From PostgreSQL 15 to the release's, by each method of pg_upgradecluster and from a dump. Each leaves other
privileges than a new installation has: status names them, and steepctl migrate mends them."""

import pytest

from layouts import status_is_ok
from machine import wait_for
from monitor import Monitor
from service import post, query

OLD = "15"
PROGRAMS = ("ingest", "query", "prune")

# Every privilege that anybody has in the database, on PostgreSQL's own objects too, and what the roles are.
PRIVILEGES = """
SELECT kind, object, grantee, privilege_type, is_grantable FROM (
  SELECT 'relation' AS kind, oid::regclass::text AS object, coalesce(relacl, acldefault('r', relowner)) AS acl
  FROM pg_class WHERE relkind IN ('r', 'v')
  UNION ALL SELECT 'function', oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
  UNION ALL SELECT 'schema', nspname, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname !~ '^pg_t'
  UNION ALL SELECT 'database', datname, coalesce(datacl, acldefault('d', datdba)) FROM pg_database WHERE datname = current_database()
  UNION ALL SELECT 'type', oid::regtype::text, coalesce(typacl, acldefault('T', typowner)) FROM pg_type
  UNION ALL SELECT 'language', lanname, coalesce(lanacl, acldefault('l', lanowner)) FROM pg_language
  UNION ALL SELECT 'tablespace', spcname, coalesce(spcacl, acldefault('t', spcowner)) FROM pg_tablespace
  UNION ALL SELECT 'parameter', parname, paracl FROM pg_parameter_acl
  UNION ALL SELECT 'default', defaclrole::regrole || defaclobjtype::text, defaclacl FROM pg_default_acl
) AS objects, LATERAL (SELECT grantee::regrole::text, privilege_type, is_grantable FROM aclexplode(acl)) AS granted
UNION ALL
SELECT 'attributes', rolname, (to_jsonb(pg_roles) - 'oid')::text, NULL, NULL FROM pg_roles
UNION ALL
SELECT 'member', roleid::regrole::text, member::regrole::text, (to_jsonb(m) - '{oid,roleid,member,grantor}'::text[])::text, NULL
FROM pg_auth_members AS m
"""


class Cluster:
    """A cluster that steep is set up with, on a port of its own."""

    def __init__(self, machine, port):
        self.machine, self.port = machine, port

    def sql(self, statement, database="steep"):
        return self.machine.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql", "-p", self.port, "-U", "postgres",
                                "-d", database, "-c", statement).stdout

    def privileges(self):
        return set(self.sql(PRIVILEGES).splitlines())

    def steepctl(self, *arguments, **options):
        return self.machine.run("steepctl", *arguments, **options).stdout

    def register(self):
        self.monitor = Monitor("upgraded")
        self.steepctl("monitor", "add", self.monitor.source, self.monitor.public_base64)
        self.token = self.steepctl("token", "add", "upgraded").split()[-1]

    def store(self):
        """Store a batch; how many events the answer of a query then has."""
        wait_for(lambda: post(self.machine, self.monitor, [])[0] == 400, "its key to be known")
        status, answer = post(self.machine, self.monitor, [self.monitor.event() for _ in range(10)])
        assert status == 200, answer
        answer = wait_for(lambda: "aggregates" in query(self.machine, self.token) and query(self.machine, self.token), "an answer")
        return sum(row["eventCount"] for row in answer["aggregates"])


@pytest.fixture(scope="module")
def old_programs(machine):
    machine.run("apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io", "install",
                f"postgresql-{OLD}", timeout=600)


@pytest.fixture(scope="module")
def new_privileges(machine, old_programs):
    """Those of the installation, which was never upgraded."""
    return Cluster(machine, "5432").privileges()


@pytest.fixture
def old(machine, new_privileges):
    """steep set up with a cluster of the old version, with events in it; afterwards with its own again."""
    cluster = Cluster(machine, "5440")
    files = {program: machine.file(f"/etc/steep/{program}.env") for program in PROGRAMS}
    before = {program: file.read_text() for program, file in files.items()}
    machine.run("pg_createcluster", "--start", "--port", cluster.port, OLD, "upgraded", timeout=600)
    for program, file in files.items():
        file.write_text(before[program] + f"PGPORT={cluster.port}\n")
    try:
        assert "it works" in cluster.steepctl("setup")
        cluster.register()
        assert cluster.sql("SHOW server_version_num").startswith(OLD) and cluster.store() == 10
        yield cluster
    finally:
        for program, file in files.items():
            file.write_text(before[program])
        assert "it works" in cluster.steepctl("setup")
        for version in machine.shell("pg_lsclusters -h | awk '$2 == \"upgraded\" { print $1 }'").split():
            machine.run("pg_dropcluster", "--stop", version, "upgraded")


def check(machine, cluster, new_privileges):
    """What differs is named and mended; then nothing does, and steep works."""
    assert cluster.sql("SHOW server_version_num").startswith(machine.postgresql)
    too_much = cluster.privileges() - new_privileges
    functions = {line.split("|")[1] for line in too_much}
    assert any(name.startswith("pg_logical_emit_message(") for name in functions), too_much

    def warned():
        status = machine.run("steepctl", "status", check=False)
        return status.stdout if status.returncode == 1 else None

    # The programs are ready a while after the database is.
    status = wait_for(warned, "a warning")
    for name in functions:
        assert f"WARNING: PUBLIC can execute {name}; run steepctl migrate.\n" in status
    assert "mended: " in cluster.steepctl("migrate")
    assert cluster.privileges() == new_privileges
    status_is_ok(machine)
    assert cluster.store() == 20
    cluster.steepctl("counts", "check")
    assert cluster.steepctl("migrate").startswith("nothing to do: ")


@pytest.mark.parametrize("method", ["upgrade", "link", "dump"])
def test_pg_upgradecluster_is_followed_by_a_working_installation(machine, old, new_privileges, method):
    done = machine.run("pg_upgradecluster", "--method", method, OLD, "upgraded", timeout=600).stdout
    assert "ERROR" not in done and "Success." in done, done
    check(machine, old, new_privileges)


def test_a_dump_is_restored_into_the_new_version(machine, old, new_privileges):
    machine.run(f"/usr/lib/postgresql/{OLD}/bin/pg_dump", "-h", "/run/postgresql", "-p", old.port, "-U", "steep_backup",
                "-Fc", "-f", "/root/steep.dump", "steep")
    hba = machine.file(f"/etc/postgresql/{OLD}/upgraded/pg_hba.conf").read_text()
    ident = machine.file(f"/etc/postgresql/{OLD}/upgraded/pg_ident.conf").read_text()
    machine.run("pg_dropcluster", "--stop", OLD, "upgraded")
    machine.run("pg_createcluster", "--port", old.port, machine.postgresql, "upgraded", timeout=600)
    machine.file(f"/etc/postgresql/{machine.postgresql}/upgraded/pg_hba.conf").write_text("local all postgres peer map=steep\n" + hba)
    machine.file(f"/etc/postgresql/{machine.postgresql}/upgraded/pg_ident.conf").write_text(ident)
    machine.run("pg_ctlcluster", machine.postgresql, "upgraded", "start")
    environment = {"PGHOST": "/run/postgresql", "PGPORT": old.port, "PGUSER": "postgres"}
    machine.shell("steepctl roles | psql -X -q -v ON_ERROR_STOP=1 -d postgres;"
                  " pg_restore --exit-on-error --create -d postgres /root/steep.dump", env=environment)
    check(machine, old, new_privileges)
