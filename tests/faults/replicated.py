"""A primary and its standby, which queries read, below two front ends; the faults of both, and failovers."""

import contextlib
import datetime
import time

import checks
import faults
from faults import of
from front_ends import FrontEnd, behind_nginx
from monitors import UNAVAILABLE, Dashboard
from replicas import Pair, behind, suspended
from scaled import FREEZE_SECONDS, logs_of, no_front_end_ended_by_itself
from stack import Stack, wait_for
from trial import Trial

DEADLINE, WAIT = 6, 3
STALENESS = 10
SIZES = [1, 1, 1, 2, 5, 10, 20, 50, 100, 300]


class Installation(Stack):
    """A stack with a pair in place of its database."""

    def __init__(self, stack, pair):
        hosts = pair.hosts() | {"PGUSER": "postgres", "PGTARGETSESSIONATTRS": "read-write", "PGCONNECT_TIMEOUT": "2"}
        super().__init__(stack.state, stack.values | hosts, stack.process)

    def connect(self, **changes):
        return super().connect(**({"target_session_attrs": "read-write", "connect_timeout": 2} | changes))


class TimedDashboard(Dashboard):
    """An answer has what was acknowledged until the time of its data, which is not too old."""

    def check_counts(self, source=None):
        self.asked = datetime.datetime.now(datetime.timezone.utc)
        return super().check_counts(source)

    def least(self, before, meta):
        fetched = datetime.datetime.fromisoformat(meta["fetchedAt"].replace("Z", "+00:00"))
        assert self.asked - fetched <= datetime.timedelta(seconds=STALENESS), f"the data of {fetched} is too old at {self.asked}"
        return {monitor: max([number for at, number in monitor.times if at <= fetched], default=0) for monitor in before}


class Scale:
    SETTINGS = {"STEEP_DEADLINE": str(DEADLINE), "STEEP_DATABASE_WAIT": str(WAIT)}

    def __init__(self, stack):
        self.pair = Pair(stack)
        self.stack = Installation(stack, self.pair)
        self.front_ends = [FrontEnd(stack, name, STEEP_STALENESS=str(STALENESS), **self.pair.hosts()) for name in ("near", "far")]

    @contextlib.contextmanager
    def standing(self):
        with contextlib.ExitStack() as held:
            held.callback(self.pair.remove)
            self.pair.attach()
            self.stack.token = self.stack.steepctl("token", "add", "faults").stdout.split()[-1]
            for front_end in self.front_ends:
                held.callback(front_end.stop)
                for name, wanted in (("ingest", "read-write"), ("query", "prefer-standby")):
                    front_end.programs[name].environment["PGTARGETSESSIONATTRS"] = wanted
                front_end.start()
            held.enter_context(behind_nginx(self.stack, self.front_ends))
            yield self

    def trial(self, seed):
        return Trial(self.stack, seed, DEADLINE, None, SIZES, CHECKS, programs=logs_of(self.front_ends), front_ends=self.front_ends,
                     dashboard=TimedDashboard)

    def await_reading(self):
        """Wait until the queries are the standby's."""
        def is_read():
            with self.stack.client("127.0.1.103") as client:
                client.get("/query?days=7", headers={"Authorization": f"Bearer {self.stack.token}"})
            return self.pair.sessions("query.fcgi")[1] > 0

        wait_for(is_read, "the standby to be read", 60)


def fail_over(trial, break_primary, seconds):
    """Promote the standby, which is synchronous, once the primary is broken; then make this one the new standby."""
    pair = trial.scale.pair
    pair.make_synchronous()
    with trial.database_away():
        # The standby gets nothing for a moment before, so that batches which do not wait for it would be lost.
        with trial.load(), suspended(pair.standby.process("walreceiver")):
            time.sleep(0.5)
            break_primary()
        time.sleep(seconds)
        pair.promote()
        trial.wait_for_progress(trial.monitors)
    pair.replace()


@of("database", UNAVAILABLE)
def the_primary_is_killed_and_its_standby_promoted(trial):
    fail_over(trial, trial.scale.pair.primary.kill, trial.random.uniform(0, 2))


@of("database", UNAVAILABLE)
def the_primary_is_frozen_and_its_standby_promoted(trial):
    fail_over(trial, trial.scale.pair.primary.freeze, trial.random.uniform(0, 2))


@of("database", UNAVAILABLE)
def the_primary_is_frozen_for_longer_than_the_deadline_before_its_standby_is_promoted(trial):
    fail_over(trial, trial.scale.pair.primary.freeze, trial.deadline + trial.margin)


@contextlib.contextmanager
def read_standby(trial):
    """The standby, which queries read and batches don't wait for: its faults cost no batch anything."""
    trial.scale.pair.make_synchronous("")
    trial.scale.await_reading()
    trial.concerned = lambda source: source is None
    yield trial.scale.pair.standby
    trial.scale.pair.await_streaming()
    trial.scale.await_reading()


@of("database", UNAVAILABLE)
def the_standby_is_killed_and_started_again(trial):
    with read_standby(trial) as standby:
        with trial.load():
            standby.kill()
        trial.wait_for_progress(trial.monitors)
        time.sleep(trial.random.uniform(0, 2))
        standby.start()


@of("database", UNAVAILABLE)
def the_standby_is_frozen_for_longer_than_the_deadline(trial):
    with read_standby(trial) as standby:
        with trial.load():
            standby.freeze()
        try:
            trial.wait_for_progress(trial.monitors)
            time.sleep(trial.deadline + FREEZE_SECONDS)
        finally:
            standby.thaw()


@of("database")
def the_standby_is_cut_off_for_longer_than_it_may_lag(trial):
    """It goes on answering until then, with what it has."""
    with read_standby(trial), behind(trial.scale.pair, "cut off"):
        trial.wait_for_progress(trial.monitors)
        time.sleep(STALENESS + FREEZE_SECONDS)
        wait_for(lambda: trial.scale.pair.sessions("query.fcgi")[0] > 0, "the primary to be read", 20)


# What must hold afterwards.

def the_standby_counts_them_all(trial):
    sent = {monitor.name: monitor.begun for monitor in trial.monitors}
    wait_for(lambda: trial.observer.check_counts() == sent or trial.violations, "the standby to count all events")


def the_new_standby_is_of_the_primary(trial):
    pair = trial.scale.pair
    pair.caught_up()
    count = "SELECT count(*) FROM public.events"
    if pair.standby.ask(count) != pair.primary.ask(count):
        trial.violated("the standby and the primary differ")


MAINS = [the_primary_is_killed_and_its_standby_promoted, the_primary_is_frozen_and_its_standby_promoted,
         the_standby_is_killed_and_started_again, the_standby_is_frozen_for_longer_than_the_deadline,
         the_standby_is_cut_off_for_longer_than_it_may_lag]
LONG = [the_primary_is_frozen_for_longer_than_the_deadline_before_its_standby_is_promoted]
OTHERS = [faults.nginx_is_reloaded, faults.a_worker_of_nginx_is_killed, faults.a_key_is_rotated,
          faults.connections_are_cut_in_mid_body, faults.connections_are_cut_in_mid_reply]
CHECKS = [checks.every_event_is_stored_once, the_standby_counts_them_all, checks.the_hourly_counts_are_those_of_the_events,
          the_new_standby_is_of_the_primary, checks.the_programs_report_no_fault, checks.nothing_ended_by_itself,
          no_front_end_ended_by_itself]
