"""A router and its shards, each behind a cable, with PgBouncer between them as described; and their faults."""

import contextlib
import signal
import time

import checks
import faults
from faults import of, signal_all
from front_ends import Cable
from monitors import UNAVAILABLE, Dashboard
from shards import PooledShards, shard_of
from stack import wait_for
from trial import MONITORS, Trial

DEADLINE = 20  # the default: PgBouncer gives a shard up before it
SIZES = [1, 1, 1, 2, 5, 10, 20, 50, 100]

# Longer than PgBouncer waits for a shard that hangs.
FREEZE_SECONDS = 8


class CabledShards(PooledShards):
    def __init__(self, stack, count):
        self.cables = []
        super().__init__(stack, count, router=False)

    def place(self, number):
        self.cables.append(Cable("127.0.0.4", f"{self.shards[number].cluster['host']}/.s.PGSQL.5432"))
        self.cables[-1].start()
        host, port = self.cables[-1].address
        return f"host={host} port={port}"

    def remove(self):
        for cable in self.cables:
            cable.stop()
        super().remove()

    def postmaster(self, number):
        return int((self.cluster(number).data / "postmaster.pid").read_text().split()[0])


class MixedDashboard(Dashboard):
    """Asks for all sources, which takes all shards, and for one, which takes its own."""

    def turn(self):
        self.check_counts(self.random.choice([None, *(monitor.name for monitor in self.trial.monitors)]))


class Scale:
    SETTINGS = {"STEEP_DEADLINE": str(DEADLINE)}
    COUNT = 2

    def __init__(self, stack):
        self.stack = stack
        self.shards = CabledShards(stack, self.COUNT)

    @contextlib.contextmanager
    def standing(self):
        with contextlib.ExitStack() as held:
            held.callback(self.shards.remove)
            with self.stack.connect() as router:
                router.execute("TRUNCATE public.events")
            self.stack.steepctl("shards", "init", input=self.shards.strings())
            yield self

    def trial(self, seed):
        """Of the first seed from which there is a monitor for each shard."""
        while True:
            trial = Trial(self.stack, seed, DEADLINE, None, SIZES, CHECKS, dashboard=MixedDashboard,
                          tables=[shard.connect for shard in self.shards.shards])
            if {self.shard_of(monitor.name) for monitor in trial.monitors} == set(range(self.COUNT)):
                return trial
            seed += 1

    def shard_of(self, source):
        return shard_of(source, self.COUNT)


class FourShards(Scale):
    COUNT = 4


@contextlib.contextmanager
def one_broken(trial):
    """The number of a shard that is to be broken in the block: it costs the sources of the others nothing but time."""
    scale = trial.scale
    number = trial.random.randrange(scale.COUNT)
    trial.concerned = lambda source: source is None or scale.shard_of(source) == number
    with trial.database_away():
        yield number


def go_on_elsewhere(trial, number):
    began = time.monotonic()
    trial.wait_for_progress([monitor for monitor in trial.monitors if trial.scale.shard_of(monitor.name) != number])
    time.sleep(max(0, began + FREEZE_SECONDS - time.monotonic()))


@of("database", UNAVAILABLE)
def a_shard_is_killed_and_started_again(trial):
    shards = trial.scale.shards
    with one_broken(trial) as number:
        with trial.load():
            signal_all(shards.postmaster(number), signal.SIGKILL)
        go_on_elsewhere(trial, number)
        # Nobody has waited for it: PostgreSQL would think that it runs.
        (shards.cluster(number).data / "postmaster.pid").unlink()
        shards.start(number)


@of("database", UNAVAILABLE)
def a_shard_is_frozen(trial):
    with one_broken(trial) as number, contextlib.ExitStack() as thawed:
        with trial.load():
            thawed.enter_context(trial.scale.shards.frozen(number))
        go_on_elsewhere(trial, number)


@of("database", UNAVAILABLE)
def a_shard_is_cut_off(trial):
    with one_broken(trial) as number:
        cable = trial.scale.shards.cables[number]
        with trial.load():
            cable.cut()
        try:
            go_on_elsewhere(trial, number)
        finally:
            cable.mend()


def freeze_pooler(trial, seconds):
    with trial.database_away():
        with trial.load():
            trial.scale.shards.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            trial.scale.shards.process.send_signal(signal.SIGCONT)


@of("database", UNAVAILABLE)
def the_pooler_of_the_shards_is_killed_and_started_again(trial):
    with trial.database_away():
        with trial.load():
            trial.scale.shards.kill_pooler()
        time.sleep(trial.random.uniform(0, 2))
        trial.scale.shards.start_pooler()


@of("database", UNAVAILABLE)
def the_pooler_of_the_shards_is_frozen(trial):
    freeze_pooler(trial, FREEZE_SECONDS)


@of("database", UNAVAILABLE)
def the_pooler_of_the_shards_is_frozen_for_longer_than_the_deadline(trial):
    freeze_pooler(trial, trial.deadline + trial.margin + 5)


# What must hold afterwards.

def every_source_is_in_its_shard(trial):
    said = trial.stack.steepctl("shards", "check", check=False)
    if said.returncode != 0:
        trial.violated(f"steepctl shards check: {said.stdout}{said.stderr}")


OF_A_SHARD = [a_shard_is_killed_and_started_again, a_shard_is_frozen, a_shard_is_cut_off]
OF_ALL = [faults.the_postmaster_is_killed_and_started_again, faults.all_of_the_database_is_killed_at_one_blow,
          the_pooler_of_the_shards_is_killed_and_started_again, the_pooler_of_the_shards_is_frozen]
LONG = [the_pooler_of_the_shards_is_frozen_for_longer_than_the_deadline, faults.the_database_is_frozen_for_longer_than_the_deadline]
OTHERS = [faults.nginx_is_reloaded, faults.a_worker_of_nginx_is_killed, faults.a_key_is_rotated,
          faults.connections_are_cut_in_mid_body, faults.connections_are_cut_in_mid_reply]
CHECKS = [checks.every_event_is_stored_once, checks.the_heatmap_counts_them_all, checks.the_hourly_counts_are_those_of_the_events,
          every_source_is_in_its_shard, checks.no_sessions_are_left_behind, checks.the_programs_report_no_fault,
          checks.nothing_ended_by_itself]
