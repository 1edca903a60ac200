"""Two front ends, one of them over TCP and a cable, and PgBouncer; and their faults."""

import contextlib
import os
import signal
import time

import checks
import faults
from faults import batch_in_hand, of
from front_ends import PROGRAMS, Cable, FrontEnd, behind_nginx
from monitors import UNAVAILABLE
from pooler import Pooler
from stack import alive, wait_for
from trial import Trial

DEADLINE, WAIT = 6, 3
SIZES = [1, 1, 1, 2, 5, 10, 20, 50, 100, 300]

# Longer than the deadline, but not by the margin that a program has.
FREEZE_SECONDS = 1

CONNECTIONS = 3  # of the pooler, for each role


class Scale:
    """Two front ends behind an installation's nginx, which reach its database through one pooler."""

    SETTINGS = {"STEEP_DEADLINE": str(DEADLINE), "STEEP_DATABASE_WAIT": str(WAIT)}

    def __init__(self, stack):
        self.stack = stack
        self.pooler = Pooler(stack)
        self.near = FrontEnd(stack, "near", **self.pooler.environment)
        self.far = FrontEnd(stack, "far", "127.0.0.2", **self.pooler.environment)
        self.front_ends = [self.near, self.far]
        self.cables = {name: Cable("127.0.0.4", self.far.address_of(name)) for name in PROGRAMS}

    @contextlib.contextmanager
    def standing(self):
        with contextlib.ExitStack() as held:
            held.callback(self.pooler.stop)
            # Few connections, so that sessions change hands.
            self.pooler.configure(default_pool_size=CONNECTIONS, max_client_conn=200)
            self.pooler.start()
            for front_end in self.front_ends:
                held.callback(front_end.stop)
                front_end.start()
            for cable in self.cables.values():
                cable.start()
                held.callback(cable.stop)
            held.enter_context(behind_nginx(self.stack, self.front_ends, {
                ("far", name): f"{cable.address[0]}:{cable.address[1]}" for name, cable in self.cables.items()}))
            yield self

    def trial(self, seed):
        return Trial(self.stack, seed, DEADLINE, None, SIZES, CHECKS, programs=logs_of(self.front_ends), front_ends=self.front_ends)


def logs_of(front_ends):
    return [f"{front_end.name}-{name}" for front_end in front_ends for name in PROGRAMS]


@of("front end", UNAVAILABLE)
def a_front_end_is_killed_under_load(trial):
    with trial.load():
        front_end = trial.random.choice(trial.scale.front_ends)
        for name in PROGRAMS:
            front_end.programs[name].kill()
        for name in PROGRAMS:
            front_end.restart(name)


@of("front end")
def a_front_end_is_stopped_under_load(trial):
    with trial.load():
        front_end = trial.random.choice(trial.scale.front_ends)
        for name in PROGRAMS:
            front_end.programs[name].process.terminate()
            code = front_end.programs[name].process.wait(trial.deadline + trial.margin)
            assert code == 0, f"{front_end.name}'s {name}.fcgi ended with {code}"
            front_end.restart(name)


@of("front end", UNAVAILABLE)
def a_front_end_is_gone_for_some_seconds(trial):
    with trial.load():
        front_end = trial.random.choice(trial.scale.front_ends)
        for each in front_end.programs.values():
            each.kill()
            each.close()
        time.sleep(trial.random.uniform(2, 5))
        front_end.start()


@of("front end", UNAVAILABLE)
def a_front_end_is_frozen(trial):
    front_end = trial.random.choice(trial.scale.front_ends)
    with trial.load():
        for each in front_end.programs.values():
            each.signal(signal.SIGSTOP)
    try:
        time.sleep(trial.deadline + FREEZE_SECONDS)
    finally:
        for each in front_end.programs.values():
            each.signal(signal.SIGCONT)


@of("front end", UNAVAILABLE)
def a_front_end_is_cut_off(trial):
    with trial.load():
        for cable in trial.scale.cables.values():
            cable.cut()
    try:
        time.sleep(trial.deadline + FREEZE_SECONDS)
    finally:
        for cable in trial.scale.cables.values():
            cable.mend()


@of("database", UNAVAILABLE)
def the_pooler_is_killed_and_started_again(trial):
    with trial.load(), trial.database_away():
        trial.scale.pooler.kill()
        time.sleep(trial.random.uniform(0, 1))
        trial.scale.pooler.start()


@of("database", UNAVAILABLE)
def the_pooler_is_frozen_for_longer_than_the_deadline(trial):
    with trial.database_away():
        with trial.load():
            trial.scale.pooler.signal(signal.SIGSTOP)
        try:
            time.sleep(trial.deadline + trial.margin + 5)
        finally:
            trial.scale.pooler.signal(signal.SIGCONT)


@of("database", UNAVAILABLE)
def the_pooler_is_cut_off_from_the_database(trial):
    """All its sessions end, one of them with a batch in hand."""
    with trial.database_away(), batch_in_hand(trial), trial.stack.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name IN ('ingest.fcgi', 'query.fcgi')")


MAINS = [a_front_end_is_killed_under_load, a_front_end_is_stopped_under_load, a_front_end_is_gone_for_some_seconds, a_front_end_is_frozen,
         a_front_end_is_cut_off, the_pooler_is_killed_and_started_again, the_pooler_is_frozen_for_longer_than_the_deadline,
         the_pooler_is_cut_off_from_the_database]


# What must hold afterwards.

def no_front_end_ended_by_itself(trial):
    for front_end in trial.scale.front_ends:
        for name, each in front_end.programs.items():
            if not alive(each.process.pid):
                trial.violated(f"{front_end.name}'s {name}.fcgi has ended; nobody ended it")


def the_pooler_keeps_to_its_size(trial):
    """The installation's own programs have sessions of their own, of the pool, of the keys and of the probe."""
    own = max(2, len(os.sched_getaffinity(0))) + 2
    with trial.stack.connect() as connection:
        def few():
            return not connection.execute(
                "SELECT FROM pg_stat_activity WHERE usename IN ('steep_ingest', 'steep_query')"
                " GROUP BY usename HAVING count(*) > %s", (CONNECTIONS + own,)).fetchall()
        wait_for(few, "the sessions of former programs to end")


OTHERS = [faults.nginx_is_reloaded, faults.a_worker_of_nginx_is_killed, faults.a_key_is_rotated, faults.a_backend_is_terminated,
          faults.connections_are_cut_in_mid_body, faults.connections_are_cut_in_mid_reply]
CHECKS = [checks.every_event_is_stored_once, checks.the_heatmap_counts_them_all, checks.the_hourly_counts_are_those_of_the_events,
          checks.the_programs_report_no_fault, checks.nothing_ended_by_itself, no_front_end_ended_by_itself,
          the_pooler_keeps_to_its_size]
