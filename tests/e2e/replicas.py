"""A primary and its standby by streaming replication, each a cluster of its own that a test may harm."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

from psycopg import OperationalError

from database import Cluster
from front_ends import Cable
from stack import alive, call, wait_for

NAME = "replicated"


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Replica(Cluster):
    """One of the two; PostgreSQL's processes can be suspended, killed, or cut off from the other."""

    def __init__(self, stack, name):
        super().__init__(stack, name)
        self.postmaster = None

    def start(self):
        self.postmaster = super().start()

    def processes(self):
        return [self.postmaster, *children(self.postmaster)]

    def process(self, title):
        """The pid of the one process whose title contains these words."""
        def find():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                return [pid for pid in children(self.postmaster) if title in Path(f"/proc/{pid}/cmdline").read_text()]
        return wait_for(find, f"a process called {title}")[0]

    def signal_all(self, number):
        # The first one first: it would start others.
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self):
        self.signal_all(signal.SIGSTOP)

    def thaw(self):
        self.signal_all(signal.SIGCONT)

    def kill(self):
        """As when the machine loses its power, except that what was written is not lost."""
        pids = self.processes()
        self.freeze()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(alive(pid) for pid in pids), "all processes to end")
        # Of a process that nobody has waited for, PostgreSQL would think that it runs.
        for lock in (self.data / "postmaster.pid", self.folder / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)

    def remove(self):
        if self.postmaster is not None and alive(self.postmaster):
            self.thaw()
        super().remove()

    def connect(self, **more):
        return self.database(NAME).connect(**more)

    def ask(self, statement, *arguments):
        def answer():
            try:
                with self.connect() as db:
                    return [db.execute(statement, arguments).fetchone()[0]]
            except OperationalError as error:
                # A standby ends what needs rows that it is about to remove.
                if "conflict with recovery" not in str(error):
                    raise

        return wait_for(answer, "an answer of PostgreSQL")[0]

    def prepare(self):
        """Make a primary with a migrated database, and start it."""
        self.initialize()
        self.configure(shared_buffers="16MB", max_standby_streaming_delay="0", wal_receiver_status_interval="1s",
                       wal_keep_size="256MB", wal_retrieve_retry_interval="200ms")
        self.start()
        self.make_database(NAME).migrate()

    def copy(self, other):
        """Become what another is, which does not run."""
        call("cp", "-a", "--reflink=auto", other.data, self.data)


class Pair:
    """Made anew, or quicker as two copies of a Replica that was prepared and stopped."""

    def __init__(self, stack, model=None):
        self.stack = stack
        self.model = model
        self.primary = Replica(stack, "primary")
        self.standby = Replica(stack, "standby")
        if model:
            self.primary.copy(model)
            self.primary.start()
        else:
            self.primary.prepare()
        # The standby's way to the primary, which a test may take away.
        self.link = self.standby.folder / "upstream"
        self.link.symlink_to(self.primary.folder)

    def attach(self):
        upstream = f"host={self.link} port=5432 user=postgres application_name=standby"
        if self.model:
            # A primary that begins with the same write-ahead log; a later standby does not.
            self.standby.copy(self.model)
            self.standby.configure(primary_conninfo=upstream)
            (self.standby.data / "standby.signal").touch()
            self.model = None
        else:
            self.standby.run("pg_basebackup", "-d", upstream, "-D", self.standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        self.standby.start()
        self.await_streaming()

    def await_streaming(self):
        wait_for(lambda: self.primary.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 1, "the standby to stream")

    def hosts(self, first=None):
        """The variables of a program that knows both."""
        hosts = [self.standby, self.primary] if first is self.standby else [self.primary, self.standby]
        return {"PGHOST": ",".join(str(each.folder) for each in hosts), "PGPORT": "5432", "PGDATABASE": NAME}

    def caught_up(self):
        """Wait until the standby shows what the primary does."""
        reached = self.primary.ask("SELECT pg_current_wal_lsn()::text")
        wait_for(lambda: self.standby.ask("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", reached), "the standby to catch up")

    def make_synchronous(self, names="*"):
        with self.primary.connect() as db:
            db.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            db.execute("SELECT pg_reload_conf()")
        if names:
            wait_for(lambda: self.primary.ask("SELECT sync_state FROM pg_stat_replication") == "sync", "it to be synchronous")

    def apply_before_acknowledging(self):
        """The setting that the operator's documentation gives, with which one reads one's own write on the standby."""
        with self.primary.connect() as db:
            db.execute(f"ALTER ROLE steep_ingest IN DATABASE {NAME} SET synchronous_commit = remote_apply")

    def steepctl(self):
        """The variables of an administrator."""
        return {"PGHOST": str(self.primary.folder), "PGPORT": "5432", "PGUSER": "postgres", "PGDATABASE": NAME}

    def promote(self):
        self.standby.run("pg_ctl", "-D", self.standby.data, "-w", "promote")

    def replace(self):
        """Make the primary that was lost anew, as the standby of the one that was promoted."""
        if alive(self.primary.postmaster):
            # Before it can run again.
            self.primary.kill()
        shutil.rmtree(self.primary.data)
        self.link.unlink()
        self.primary, self.standby = self.standby, self.primary
        self.link = self.standby.folder / "upstream"
        self.link.symlink_to(self.primary.folder)
        self.attach()

    def sessions(self, name):
        """How many sessions of a program the primary and the standby have."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        return tuple(each.ask(count, name) for each in (self.primary, self.standby))

    def remove(self):
        for each in (self.standby, self.primary):
            each.remove()


@contextlib.contextmanager
def suspended(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def cabled(replica):
    """A cable that leads to a server."""
    made = Cable("127.0.0.1", replica.folder / ".s.PGSQL.5432")
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def both_cabled(pair):
    """Cables to the primary and to the standby, and the variables of a program that uses them."""
    with cabled(pair.primary) as to_primary, cabled(pair.standby) as to_standby:
        addresses = [each.address for each in (to_primary, to_standby)]
        yield to_primary, to_standby, {"PGHOST": ",".join(host for host, _ in addresses), "PGPORT": ",".join(str(port) for _, port in addresses)}


@contextlib.contextmanager
def streaming_through_a_cable(pair):
    """The standby's way to the primary is one, until the end of the context."""
    def lead(way):
        with pair.standby.connect() as db:
            db.execute(f"ALTER SYSTEM SET primary_conninfo = '{way}'")
            db.execute("SELECT pg_reload_conf()")

    kept = pair.standby.ask("SHOW primary_conninfo")
    with cabled(pair.primary) as cable:
        host, port = cable.address
        lead(f"host={host} port={port} user=postgres application_name=cabled")
        wait_for(lambda: pair.primary.ask("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'cabled' AND state = 'streaming'"),
                 "the standby to stream through the cable")
        try:
            yield cable
        finally:
            lead(kept)


@contextlib.contextmanager
def behind(pair, how):
    """Let the standby fall behind, in one of the ways in which it can: it goes on serving what it has."""
    with contextlib.ExitStack() as undone:
        if how == "frozen":
            undone.enter_context(suspended(pair.standby.process("walreceiver")))
        elif how == "paused":
            pair.standby.ask("SELECT pg_wal_replay_pause()::text")
            undone.callback(pair.standby.ask, "SELECT pg_wal_replay_resume()::text")
        elif how == "unheard":
            cable = undone.enter_context(streaming_through_a_cable(pair))
            cable.cut()
            undone.callback(cable.mend)
        else:
            pair.link.unlink()
            undone.callback(pair.link.symlink_to, pair.primary.folder)
            pair.primary.ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication")
        yield
