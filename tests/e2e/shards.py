"""A router and its shards, each a cluster of its own on this machine, made by steepctl."""

import contextlib
import hashlib
import itertools
import os
import re
import signal
import subprocess
from pathlib import Path

from database import Cluster
from stack import ROOT, reachable_folder, wait_for

# A frozen shard holds a statement for query_timeout, which is shorter than ingest.fcgi waits; then
# new ones fail at once, but for those that wait while it tries to log in again.
POOLER = re.search(r"^```ini\n(query_timeout .*?)^```$", (ROOT / "deploy" / "SCALING.md").read_text(), re.M | re.S)[1].splitlines()


def shard_of(source, shards):
    """The definition that must never change: the lowest bits of the MD5 of the name."""
    return int(hashlib.md5(source.encode()).hexdigest(), 16) % shards


def source_on(shard, shards=2, prefix="shard-source"):
    """A name that belongs to a shard."""
    return next(name for name in (f"{prefix}-{n}" for n in itertools.count()) if shard_of(name, shards) == shard)


# Views in place of the router's tables of events and counts, for tests that fill them and look at them.
VIEWS = """
ALTER TABLE public.hourly_counts RENAME TO own_counts;
CREATE FUNCTION proxy.counts() RETURNS TABLE (source text, hour timestamptz, event_count bigint)
  LANGUAGE plproxy SECURITY DEFINER AS $$ CLUSTER 'steep'; RUN ON ALL; SELECT c.source, c.hour, c.event_count FROM public.hourly_counts AS c; $$;
ALTER FUNCTION proxy.counts() OWNER TO steep_owner;
CREATE VIEW public.hourly_counts AS SELECT * FROM proxy.counts();
ALTER TABLE public.events RENAME TO own_events;
CREATE FUNCTION proxy.events() RETURNS TABLE (id text, source text, "timestamp" timestamptz, event_type text, payload jsonb, created_at timestamptz)
  LANGUAGE plproxy SECURITY DEFINER AS $$ CLUSTER 'steep'; RUN ON ALL;
  SELECT e.id, e.source, e."timestamp", e.event_type, e.payload, e.created_at FROM public.events AS e; $$;
ALTER FUNCTION proxy.events() OWNER TO steep_owner;
CREATE VIEW public.events AS SELECT * FROM proxy.events();
CREATE FUNCTION proxy.change_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET datestyle = ISO SET timezone = UTC AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    PERFORM proxy.delete_events(proxy.hash(OLD.source) & (proxy.shards() - 1), proxy.level(), proxy.shards(), OLD.source, ARRAY[OLD.id]);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    NEW.created_at := coalesce(NEW.created_at, now());
    PERFORM proxy.store_events(proxy.hash(NEW.source) & (proxy.shards() - 1), proxy.level(), proxy.shards(), NEW.source, jsonb_build_array(to_jsonb(NEW)));
  END IF;
  RETURN coalesce(NEW, OLD);
END $$;
ALTER FUNCTION proxy.change_event() OWNER TO steep_owner;
CREATE TRIGGER change_event INSTEAD OF INSERT OR UPDATE OR DELETE ON public.events FOR EACH ROW EXECUTE FUNCTION proxy.change_event();
"""


class Shards:
    def __init__(self, stack, count=2, router=True):
        self.stack = stack
        self.clusters = []
        try:
            if router:
                self.router = self.make("router")
            self.shards = [self.make(f"shard{number}") for number in range(count)]
        except BaseException:
            self.remove()
            raise

    def make(self, name):
        cluster = Cluster(self.stack, name)
        self.clusters.append(cluster)
        cluster.initialize()
        cluster.configure(shared_buffers="16MB", max_connections=60)
        cluster.postmaster = cluster.start()
        return cluster.make_database("steep")

    def remove(self):
        for cluster in self.clusters:
            cluster.remove()

    def cluster(self, number):
        return self.clusters[number - len(self.shards)]

    def string(self, number, more=""):
        return f"host={self.shards[number].cluster['host']} port=5432 dbname=steep user=postgres{more}"

    @property
    def environment(self):
        return {"PGHOST": self.router.cluster["host"], "PGPORT": "5432", "PGDATABASE": "steep"}

    def steepctl(self, *arguments, input=""):
        done = self.stack.steepctl(*arguments, check=False, input=input, PGUSER="postgres", **self.environment)
        return done.returncode, done.stdout, done.stderr

    def init(self, more=""):
        status, output, errors = self.steepctl("shards", "init", input=self.strings(more))
        assert status == 0, errors
        return output

    def divide(self, stack):
        """Make an installation's database the router."""
        with stack.connect() as router:
            router.execute("TRUNCATE public.events")
        stack.steepctl("shards", "init", input=self.strings())

    def show(self, stack):
        """Let tests read the events of all shards in the router."""
        with stack.connect() as router:
            router.execute(VIEWS)
        for shard in self.shards:
            with shard.connect() as connection:
                connection.execute("GRANT SELECT ON public.events, public.hourly_counts TO steep_router; ALTER ROLE steep_router BYPASSRLS")

    def strings(self, more=""):
        return "".join(self.string(number, more) + "\n" for number in range(len(self.shards)))

    def copy(self, number, new):
        """Dump a shard and restore it as another, whose cluster has the roles."""
        self.cluster(new).run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", ROOT / "sql" / "roles.sql", env={"PGDATABASE": "steep"})
        self.cluster(new).run("psql", "-X", "-q", "-c", "CREATE ROLE steep_router", env={"PGDATABASE": "steep"})
        dump = self.cluster(number).folder / "dump"
        self.cluster(number).run("pg_dump", "-Fc", "-f", dump, "steep")
        self.cluster(new).run("pg_restore", "--exit-on-error", "-d", "steep", dump)

    def where(self, event_id):
        """The numbers of the shards that have an event; -1 is the router."""
        found = []
        for number, database in enumerate([self.router, *self.shards], -1):
            with database.connect() as connection:
                found += [number] * connection.execute("SELECT count(*) FROM public.events WHERE id = %s", (event_id,)).fetchone()[0]
        return found

    def stop(self, number):
        self.cluster(number).stop("immediate")

    def start(self, number):
        self.cluster(number).start()

    def is_reached(self, number):
        """Whether the router reaches a shard, in a session of its own."""
        with self.router.connect() as connection:
            return not any(line.startswith(f"Shard {number} cannot be reached") for line, in connection.execute("SELECT proxy.check_shards()"))


class PooledShards(Shards):
    """The same with a PgBouncer between the router and its shards, as deploy/SCALING.md says."""

    def __init__(self, stack, count=2, router=True):
        super().__init__(stack, count, router)
        self.folder = reachable_folder("pooler")
        if self.router_user:
            os.chown(self.folder, self.router_user["user"], self.router_user["group"])
        (self.folder / "users").write_text("".join(f'"{user}" ""\n' for user in ("postgres", "steep_router")))
        (self.folder / "pgbouncer.ini").write_text("\n".join([
            "[databases]", *(f"shard{number} = {self.place(number)} dbname=steep" for number in range(len(self.shards))),
            "[pgbouncer]", "pool_mode = transaction", f"unix_socket_dir = {self.folder}", "listen_port = 6432",
            "auth_type = trust", f"auth_file = {self.folder}/users", *POOLER, ""]))
        self.start_pooler()

    def place(self, number):
        """Where PgBouncer finds a shard."""
        return f"host={self.shards[number].cluster['host']} port=5432"

    def start_pooler(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(["/usr/sbin/pgbouncer", str(self.folder / "pgbouncer.ini")], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, cwd="/", **self.router_user)
        wait_for((self.folder / ".s.PGSQL.6432").exists, "PgBouncer to listen")

    def kill_pooler(self):
        self.process.kill()
        self.process.wait()
        # Of one that was killed, the next one asks whether it still runs.
        (self.folder / ".s.PGSQL.6432").unlink()

    @property
    def router_user(self):
        return self.clusters[0].user

    def string(self, number, more=""):
        return f"host={self.folder} port=6432 dbname=shard{number} user=postgres{more}"

    def remove(self):
        if getattr(self, "process", None):
            self.process.kill()
            self.process.wait()
            subprocess.run(["rm", "-rf", str(self.folder)], check=True)
        super().remove()

    @contextlib.contextmanager
    def frozen(self, number):
        """No process of a shard runs until the block ends; the kernel still takes connections to it."""
        postmaster = int((self.cluster(number).data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)
        stopped = [postmaster, *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())]
        for pid in stopped[1:]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
