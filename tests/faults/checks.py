"""What must hold once every fault is over and every request answered."""

import os
import re
import time

import psycopg

from monitors import NUMBER_DIGITS
from stack import alive, wait_for


def every_event_is_stored_once(trial):
    """Every event that was sent is stored once and unchanged, and nothing else is."""
    rows = []
    for connect in trial.tables:
        with connect() as connection:
            # Read the table itself, not an index.
            connection.execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")
            rows += connection.execute(
                "SELECT source, count(*), count(DISTINCT id), count(*) FILTER (WHERE id = 'evt_' || %(run)s || right(source, 2)"
                f" || lpad(payload->>'number', {NUMBER_DIGITS}, '0')) FROM public.events WHERE source LIKE %(sources)s GROUP BY 1",
                {"run": trial.run_id, "sources": f"fault-{trial.run_id}-%"}).fetchall()
    stored = {source: numbers for source, *numbers in rows}
    if len(stored) != len(rows):
        trial.violated(f"a source is in more than one database: {rows}")
    lost = doubled = 0
    for monitor in trial.monitors:
        count, distinct, right = stored.pop(monitor.name, (0, 0, 0))
        lost += monitor.begun - min(distinct, right)
        doubled += count - distinct
        if not count == distinct == right == monitor.begun == monitor.acknowledged:
            trial.violated(f"{monitor.name} sent {monitor.begun} events, {monitor.acknowledged} were acknowledged; {count} are"
                           f" stored with {distinct} ids, {right} of them as they were sent")
    if stored:
        trial.violated(f"events of nobody: {stored}")
    trial.counts["lost"], trial.counts["doubled"] = lost, doubled


def the_heatmap_counts_them_all(trial):
    counted = wait_for(lambda: trial.observer.check_counts() or trial.violations, "the counts")
    sent = {monitor.name: monitor.begun for monitor in trial.monitors}
    if not trial.violations and counted != sent:
        trial.violated(f"the heatmap is of {counted}; sent were {sent}")


def the_hourly_counts_are_those_of_the_events(trial):
    with trial.stack.connect() as connection:
        wrong = connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall()
    if wrong:
        trial.violated(f"the hourly counts differ from the events: {wrong}")


def no_sessions_are_left_behind(trial):
    """No program leaves sessions behind: there is one for each connection of the pool and one for the keys,
    and a moment ago there may have been one of the probe."""
    with trial.stack.connect() as connection:
        def few():
            return not connection.execute(
                "SELECT FROM pg_stat_activity WHERE usename IN ('steep_ingest', 'steep_query')"
                " GROUP BY usename HAVING count(*) > %s", (max(2, len(os.sched_getaffinity(0))) + 1,)).fetchall()
        wait_for(few, "the sessions of former programs to end")


def the_programs_report_no_fault(trial):
    """No internal error, and no request that took longer than the deadline and the time in which no program could take it."""
    absent = trial.absent(trial.round_began, time.monotonic())
    for name in trial.programs:
        with open(trial.stack.log(name), encoding="utf-8", errors="replace") as log:
            log.seek(trial.log_places[name])
            text = log.read()
            trial.log_places[name] = log.tell()
        for line in text.splitlines():
            took = re.search(r" ms=(\d+)", line)
            seconds = int(took[1]) / 1000 if took else 0
            trial.note_most("request", seconds)
            if " status=500 " in line or (" level=error " in line and " event=database_away " not in line):
                trial.violated(f"{name}.log says: {line}")
            if seconds > trial.deadline + trial.margin + absent:
                trial.violated(f"{name}.log has one that took longer than the deadline: {line}")


def the_index_knows_every_row(trial):
    with trial.stack.connect() as connection:
        connection.execute("CREATE EXTENSION amcheck")
        try:
            connection.execute("SELECT bt_index_check('public.events_pkey', true)")
        except psycopg.Error as error:
            trial.violated(f"the index of the primary key is not right: {error}")


def nothing_ended_by_itself(trial):
    for name, pid in trial.pids.items():
        if trial.stack.pid(name) != pid or not alive(pid):
            trial.violated(f"{name} is not the process any more that it was; nobody ended it")


AFTER_A_ROUND = [every_event_is_stored_once, the_heatmap_counts_them_all, the_hourly_counts_are_those_of_the_events,
                 no_sessions_are_left_behind, the_programs_report_no_fault, nothing_ended_by_itself]
