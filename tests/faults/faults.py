"""The faults, one function each. A fault is over when it is undone; the monitors may still be recovering."""

import contextlib
import os
import signal
import time
from pathlib import Path

import psycopg

from monitor import Monitor
from monitors import BROKEN, UNAVAILABLE, FieldMonitor
from stack import alive, wait_for

# Faults of one part take turns; those of different parts overlap.
PART = {}

# What a client may get other than an acknowledgement. Anything else must not happen:
# a suspended program refuses no request, and a terminated session loses no batch.
COST = {}


def of(part, cost=""):
    def note(fault):
        PART[fault] = part
        COST[fault] = cost
        return fault

    return note


def sentence(fault):
    return fault.__name__.replace("_", " ").replace("ingest", "ingest.fcgi").replace("query", "query.fcgi")


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def signal_all(postmaster, number):
    """Signal the postmaster and all its children, while it starts no others."""
    os.kill(postmaster, signal.SIGSTOP)
    for pid in [*children_of(postmaster), postmaster]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def batch_in_hand(trial):
    """The backend that stores a batch, blocked until the block ends."""
    with trial.stack.connect(autocommit=False) as lock, trial.stack.connect() as connection:
        lock.execute("LOCK TABLE public.events IN SHARE ROW EXCLUSIVE MODE")
        pid, = wait_for(lambda: connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"
                                                   " AND wait_event_type = 'Lock'").fetchone(), "a batch to be stored")
        yield pid
        lock.rollback()


@of("database", UNAVAILABLE)
def the_postmaster_is_killed_and_started_again(trial):
    with trial.load(), trial.database_away():
        keeper = trial.stack.stop_database(signal.SIGKILL)
        trial.stack.start_database(keeper)


@of("database", UNAVAILABLE)
def all_of_the_database_is_killed_at_one_blow(trial):
    with trial.load(), trial.database_away():
        signal_all(trial.stack.pid("postgres"), signal.SIGKILL)
        wait_for(trial.stack.database_answers, "PostgreSQL to be back", 40)


@of("database", UNAVAILABLE)
def the_database_is_stopped_for_20_seconds(trial):
    with trial.database_away():
        keeper = trial.stack.stop_database()
        time.sleep(20)
        trial.stack.start_database(keeper)


@of("database", UNAVAILABLE)
def the_database_is_frozen_for_longer_than_the_deadline(trial):
    """For so long that a program that ignores the deadline exceeds the margin."""
    with trial.database_away():
        signal_all(trial.stack.pid("postgres"), signal.SIGSTOP)
        try:
            time.sleep(trial.deadline + trial.margin + 5)
        finally:
            signal_all(trial.stack.pid("postgres"), signal.SIGCONT)


@of("database")
def a_backend_is_terminated(trial):
    with trial.database_away(), batch_in_hand(trial) as pid:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid), "the backend to end")


@of("database", UNAVAILABLE)
def a_backend_is_killed(trial):
    """PostgreSQL then terminates all other backends and recovers."""
    with trial.database_away():
        with contextlib.suppress(psycopg.OperationalError), batch_in_hand(trial) as pid:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not alive(pid), "the backend to end")
        wait_for(trial.stack.database_answers, "PostgreSQL to be back", 40)


@contextlib.contextmanager
def full_disk(trial, log, message):
    """No free space, as a log reports; there is space again a while after the block ends."""
    with trial.database_away():
        before = len(trial.stack.log_text(log))
        trial.disk.fill()
        try:
            yield
            wait_for(lambda: message in trial.stack.log_text(log)[before:], "the database to miss room")
            time.sleep(trial.random.uniform(1, 3))
        finally:
            trial.disk.make_room()
        wait_for(trial.stack.database_answers, "PostgreSQL to be back", 40)


@of("database", UNAVAILABLE)
def the_disk_of_the_database_is_full(trial):
    """When the lock is released, one statement stores the batches that wait for a connection."""
    with contextlib.ExitStack() as lock:
        lock.enter_context(batch_in_hand(trial))
        time.sleep(0.5)
        with full_disk(trial, "ingest", "sqlstate=53100"), contextlib.suppress(psycopg.OperationalError):
            lock.close()


@of("database", UNAVAILABLE)
def the_disk_is_full_when_the_log_of_the_database_needs_room(trial):
    """PostgreSQL panics and cannot recover before there is space."""
    with full_disk(trial, "postgresql", "PANIC:"):
        trial.switch_log()


def end_program(trial, name, number):
    before = trial.stack.pid(name)
    os.kill(before, number)
    wait_for(lambda: trial.stack.pid(name) not in (None, before) and alive(trial.stack.pid(name)),
             f"{name} to be started again", trial.deadline + 20)
    trial.pids[name] = trial.stack.pid(name)
    trial.wait_until_it_answers(name)


@of("ingest", UNAVAILABLE)
def ingest_is_killed(trial):
    with trial.load():
        end_program(trial, "ingest", signal.SIGKILL)


@of("ingest")
def ingest_is_stopped_under_load(trial):
    with trial.load():
        end_program(trial, "ingest", signal.SIGTERM)


@of("query", UNAVAILABLE)
def query_is_killed(trial):
    end_program(trial, "query", signal.SIGKILL)


@of("nginx", BROKEN)
def nginx_is_reloaded(trial):
    os.kill(trial.stack.pid("nginx"), signal.SIGHUP)


@of("nginx", BROKEN)
def nginx_is_restarted(trial):
    end_program(trial, "nginx", signal.SIGQUIT)


@of("nginx", BROKEN)
def a_worker_of_nginx_is_killed(trial):
    os.kill(trial.random.choice(children_of(trial.stack.pid("nginx"))), signal.SIGKILL)


@of("keys")
def a_key_is_rotated(trial):
    """Add the new key, switch to it, remove the old one: no batch is refused."""
    monitor = trial.random.choice(trial.monitors)
    new, old = Monitor(monitor.name), monitor.signer
    trial.administer("add", monitor.name, new.public_base64)
    trial.wait_until_known(new)
    with monitor.signing:
        monitor.signer = new
    trial.administer("remove", monitor.name, old.public_base64)


def cut(trial, how):
    for monitor in trial.monitors:
        monitor.cuts.append(how)
    wait_for(lambda: not any(monitor.cuts for monitor in trial.monitors) or not trial.goes_on(),
             "every monitor's connection to be cut", 40 + trial.deadline)


@of("connections")
def connections_are_cut_in_mid_body(trial):
    cut(trial, FieldMonitor.cut_in_mid_body)


@of("connections")
def connections_are_cut_in_mid_reply(trial):
    cut(trial, FieldMonitor.cut_in_mid_reply)


# A round has one fault of the database, and some others within so many seconds: more of them where
# it takes long. At the end of a frozen database no other fault occurs: only the deadline ends its requests.
LONG = {the_database_is_stopped_for_20_seconds: 20, the_database_is_frozen_for_longer_than_the_deadline: 2}
BRIEF = [the_postmaster_is_killed_and_started_again, all_of_the_database_is_killed_at_one_blow, a_backend_is_terminated,
         a_backend_is_killed]
FULL = [the_disk_of_the_database_is_full, the_disk_is_full_when_the_log_of_the_database_needs_room]
OTHERS = [ingest_is_killed, ingest_is_stopped_under_load, query_is_killed, nginx_is_reloaded, nginx_is_restarted,
          a_worker_of_nginx_is_killed, a_key_is_rotated, connections_are_cut_in_mid_body, connections_are_cut_in_mid_reply]

# Faults that keep the programs and nginx running, so that their memory can be observed.
SPARING = [a_backend_is_terminated, the_postmaster_is_killed_and_started_again, a_backend_is_killed]
SPARING_OTHERS = [a_key_is_rotated, connections_are_cut_in_mid_body, connections_are_cut_in_mid_reply]
