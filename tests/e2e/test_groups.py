"""Batches that wait for a connection are stored together: each still gets its own answer, whatever happens."""

import concurrent.futures
import contextlib
import datetime
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

from database import Cluster
from fastcgi import ingest_params, program
from monitor import Monitor, base64_text, encode, rfc3339
from stack import SLOWNESS, alive, reachable_folder, wait_for
from test_health import BOTH
from test_metrics import scrape

SEED = int(os.environ.get("SEED", "15"))
SOURCES = [f"group-{n}" for n in range(4)]
LOCK_TIMEOUT = 2
DEADLINE = 20

SENDERS = 32
BATCHES = int(os.environ.get("BATCHES", "800"))

PROGRAM = "FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"


class Home:
    """A cluster of its own, which tests may harm, with one database."""

    def __init__(self, stack):
        self.cluster = Cluster(stack, "groups")
        self.cluster.initialize()
        self.postmaster = self.cluster.start()
        self.database = self.cluster.make_database("groups")
        self.database.migrate()
        with self.connect() as db:
            db.execute(f"ALTER ROLE steep_ingest SET lock_timeout = '{LOCK_TIMEOUT}s'")
            db.execute("ALTER TABLE public.events ADD CONSTRAINT allowed CHECK (NOT payload ? 'forbidden')")

    def connect(self, **more):
        return self.database.connect(**more)

    @contextlib.contextmanager
    def locked(self):
        """No batch is stored until the block ends."""
        with self.connect(autocommit=False) as lock:
            lock.execute("LOCK TABLE public.events IN SHARE ROW EXCLUSIVE MODE")
            yield
            with contextlib.suppress(psycopg.OperationalError):
                lock.rollback()

    def crash(self):
        """Kill the postmaster and what it started, and start another."""
        children = [int(pid) for pid in Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split()]
        os.kill(self.postmaster, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(alive, [self.postmaster, *children])), "PostgreSQL to be gone")
        # Where no process reaps zombies, PostgreSQL would find its predecessor alive.
        for lock in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):
            (self.cluster.folder / lock).unlink(missing_ok=True)
        self.postmaster = self.cluster.start()

    @contextlib.contextmanager
    def program(self, stack, monitors, **environment):
        keys = ",".join(f"{monitor.source}:{monitor.public_base64}" for monitor in monitors)
        given = {"PGHOST": str(self.cluster.folder), "PGPORT": "5432", "PGDATABASE": "groups", "PGUSER": "steep_ingest",
                 "STEEP_WORKERS": "32", "STEEP_DEADLINE": str(DEADLINE), "VIBETEA_PUBLIC_KEYS": keys}
        with program(stack, "ingest", passed=BOTH, **(given | environment)) as instance:
            wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the program to be ready")
            yield instance


@pytest.fixture(scope="module")
def home(stack):
    made = Home(stack)
    yield made
    made.cluster.remove()


@pytest.fixture(scope="module")
def monitors():
    return [Monitor(source) for source in SOURCES]


@pytest.fixture
def single(stack, home, monitors):
    """A program with one connection."""
    with home.program(stack, monitors, STEEP_CONNECTIONS="1") as instance:
        yield instance


@pytest.fixture
def asking():
    with concurrent.futures.ThreadPoolExecutor(SENDERS) as pool:
        yield pool


class Batch:
    """A signed batch. Each payload says of which batch it is, and where in it the event stands."""

    def __init__(self, number, monitor, ids, forbidden=None, spoiled_by={"forbidden": 1}):
        self.number = number
        self.ids = ids
        self.forbidden = forbidden
        instant = rfc3339(datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=number % 5))
        self.body = encode([monitor.event(id=each, timestamp=instant, payload={
            "batch": number, "place": place, "pad": "x" * (number % 7 * 40)} | (spoiled_by if place == forbidden else {}))
            for place, each in enumerate(ids)])
        self.params = ingest_params(self.body, HTTP_X_SOURCE_ID=monitor.source,
                                    HTTP_X_SIGNATURE=base64_text(monitor.key.sign(self.body).signature))

    def post(self, instance, **changes):
        return instance.ask(self.params | {"REQUEST_ID": os.urandom(16).hex()} | changes, self.body)


_numbers = iter(range(1, 1 << 30))


def some(monitors, count, forbidden=(), **more):
    """Batches of two new ids; of those with the given places in the list, the second can't be stored."""
    made = []
    for place in range(count):
        number = next(_numbers)
        made.append(Batch(number, monitors[number % len(monitors)], [f"evt_some_{number}_{n}" for n in range(2)],
                          forbidden=1 if place in forbidden else None, **more))
    return made


def stored(db, batch):
    """How many of a batch's events are stored, and in how many transactions."""
    return db.execute("SELECT count(*), count(DISTINCT created_at) FROM public.events WHERE payload->>'batch' = %s::text",
                      (str(batch.number),)).fetchone()


def transaction(db, batch):
    return db.execute("SELECT DISTINCT created_at FROM public.events WHERE payload->>'batch' = %s::text",
                      (str(batch.number),)).fetchall()


def post_together(home, instance, asking, batches, during=lambda: None, params=None, in_order=False):
    """Post the first batch, which waits for a locked table, and the others, which wait for its connection; the answers."""
    params = params or {}
    with home.locked(), home.connect() as db:
        sent = [asking.submit(batches[0].post, instance)]
        wait_for(lambda: waiting(db), "the first batch to wait")
        for place, batch in enumerate(batches[1:], 1):
            sent.append(asking.submit(batch.post, instance, **params.get(place, {})))
            if in_order:
                wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == len(sent), "it to be in hand")
                wait_for(instance.is_at_rest, "it to wait")
        wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == len(batches), "all batches to be in hand")
        # From there to the line it is a moment's work.
        time.sleep(0.3)
        during()
    return [each.result() for each in sent]


def waiting(db):
    return db.execute(f"SELECT pid {PROGRAM} AND wait_event_type = 'Lock'").fetchall()


def statuses(answers):
    return [answer.status_code for answer in answers]


def test_batches_that_wait_are_stored_by_one_transaction_each_with_its_answer(home, single, asking, monitors):
    batches = some(monitors, 12)
    answers = post_together(home, single, asking, batches)
    assert statuses(answers) == [200] * 12
    with home.connect() as db:
        assert [stored(db, batch) for batch in batches] == [(2, 1)] * 12
        assert len({str(transaction(db, batch)) for batch in batches[1:]}) == 1
        assert transaction(db, batches[0]) != transaction(db, batches[1])


def test_of_equal_ids_in_a_group_one_batch_gets_each(home, single, asking, monitors):
    batches = some(monitors, 1) + [Batch(next(_numbers), monitors[n % 4], ["evt_equal_1", f"evt_equal_{n}", "evt_equal_1"])
                                   for n in range(10, 20)]
    answers = post_together(home, single, asking, batches)
    assert statuses(answers) == [200] * 11
    assert sorted(answer.json()["inserted"] for answer in answers[1:]) == [1] * 9 + [2]
    with home.connect() as db:
        for batch, answer in zip(batches, answers):
            assert stored(db, batch)[0] == answer.json()["inserted"]
            assert answer.json()["inserted"] + answer.json()["duplicates"] == len(batch.ids)


def test_only_the_invalid_batch_of_a_group_is_refused(home, single, asking, monitors):
    batches = some(monitors, 10, forbidden=[4, 7])
    answers = post_together(home, single, asking, batches)
    assert statuses(answers) == [422 if place in (4, 7) else 200 for place in range(10)]
    assert [rejected["index"] for rejected in answers[4].json()["rejected"]] == [1]
    with home.connect() as db:
        assert [stored(db, batch)[0] for batch in batches] == [0 if place in (4, 7) else 2 for place in range(10)]


@pytest.fixture
def patient(home):
    """The table may be locked for longer than a request lasts."""
    with home.connect() as db:
        db.execute(f"ALTER ROLE steep_ingest SET lock_timeout = '{2 * DEADLINE}s'")
        yield
        db.execute(f"ALTER ROLE steep_ingest SET lock_timeout = '{LOCK_TIMEOUT}s'")


@pytest.fixture
def raising(home):
    """Storing an event whose payload names an SQLSTATE raises it, always or the given number of times."""
    with home.connect() as db:
        for name in ("raised", "raised_0", "raised_1"):
            db.execute(f"CREATE SEQUENCE public.{name}; GRANT USAGE ON SEQUENCE public.{name} TO PUBLIC")
        db.execute("""CREATE FUNCTION public.raise_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.payload ? 'raise' AND
              nextval('public.raised' || coalesce(NEW.payload->>'counter', '')) <= coalesce((NEW.payload->>'times')::int, 1000)
            THEN RAISE EXCEPTION USING ERRCODE = NEW.payload->>'raise'; END IF; RETURN NEW; END $$""")
        db.execute("CREATE TRIGGER raise_it BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION public.raise_it()")
        yield db
        db.execute("DROP FUNCTION public.raise_it() CASCADE; DROP SEQUENCE public.raised, public.raised_0, public.raised_1")


@pytest.mark.parametrize("sqlstate", ["22003", "22P02", "23502", "23514", "54000"])
def test_an_error_of_the_data_refuses_one_batch_of_a_group(sqlstate, raising, home, single, asking, monitors):
    batches = some(monitors, 6, forbidden=[3], spoiled_by={"raise": sqlstate})
    answers = post_together(home, single, asking, batches)
    assert statuses(answers) == [400 if place == 3 else 200 for place in range(6)]
    assert [stored(raising, batch)[0] for batch in batches] == [0 if place == 3 else 2 for place in range(6)]


# Of 08P01 and 57P01 a proxy tells that the database behind it is lost: the connection to the proxy is not.
@pytest.mark.parametrize("sqlstate", ["53100", "53200", "55P03", "57014", "25006", "40001", "40P01", "08P01", "57P01"])
def test_a_shortage_is_503_for_the_whole_group(sqlstate, raising, home, single, asking, monitors):
    batches = some(monitors, 6, forbidden=[3], spoiled_by={"raise": sqlstate})
    answers = post_together(home, single, asking, batches)
    assert statuses(answers) == [200] + [503] * 5
    assert [stored(raising, batch)[0] for batch in batches] == [2] + [0] * 5
    # A conflict is tried again, a shortage is not.
    tries = raising.execute("SELECT last_value FROM public.raised").fetchone()[0]
    assert tries == (4 if sqlstate.startswith("40") else 1)


@pytest.mark.parametrize("sqlstate", ["23503", "42501", "P0001"])
def test_another_error_is_500_for_the_whole_group(sqlstate, raising, home, single, asking, monitors):
    batches = some(monitors, 6, forbidden=[3], spoiled_by={"raise": sqlstate})
    assert statuses(post_together(home, single, asking, batches)) == [200] + [500] * 5
    assert [stored(raising, batch)[0] for batch in batches] == [2] + [0] * 5
    assert raising.execute("SELECT last_value FROM public.raised").fetchone() == (1,)


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_conflict_that_ends_costs_nothing(sqlstate, raising, home, single, asking, monitors):
    batches = some(monitors, 6, forbidden=[3], spoiled_by={"raise": sqlstate, "times": 2})
    assert statuses(post_together(home, single, asking, batches)) == [200] * 6
    assert [stored(raising, batch) for batch in batches] == [(2, 1)] * 6


@pytest.mark.parametrize("refused", [1, 2], ids=["the leader's", "another"])
def test_a_shortage_in_a_group_with_an_invalid_batch_is_logged_for_each_that_met_it(refused, raising, home, patient, single, asking, monitors):
    """By the leader, the one with the latest deadline, which had its own answer before."""
    spoilt = {refused: {"raise": "22003"}, 3: {"raise": "53100"}}
    # PostgreSQL stores in order of the ids, so it meets the invalid batch first.
    batches = [Batch(next(_numbers), monitors[0], [f"evt_rest_{refused}_{place}"], 0 if place in spoilt else None, spoilt.get(place))
               for place in range(5)]
    ids = [os.urandom(16).hex() for _ in batches]
    params = {place: {"REQUEST_ID": ids[place], "REQUEST_MSEC": f"{time.time() - (0 if place == 1 else 2):.3f}"} for place in range(1, 5)}
    answers = post_together(home, single, asking, batches, params=params, in_order=True)
    assert statuses(answers) == [400 if place == refused else 200 for place in range(3)] + [503] * 2
    for place, sqlstate in ((refused, "22003"), (3, "53100"), (4, "53100")):
        wait_for(lambda: f"request {ids[place]} failed with SQLSTATE {sqlstate}\n" in (home.cluster.folder / "log").read_text(),
                 "PostgreSQL's line")


@pytest.fixture
def raising_at_commit(raising):
    """The same, but the error comes after the statement's own result."""
    raising.execute("DROP TRIGGER raise_it ON public.events")
    raising.execute("CREATE CONSTRAINT TRIGGER raise_it AFTER INSERT ON public.events DEFERRABLE INITIALLY DEFERRED"
                    " FOR EACH ROW EXECUTE FUNCTION public.raise_it()")
    return raising


@pytest.mark.parametrize("sqlstate, expected", [("53100", [200] + [503] * 5), ("23514", [200, 200, 200, 400, 200, 200])])
def test_a_group_that_fails_at_its_commit_is_not_acknowledged(sqlstate, expected, raising_at_commit, home, single, asking, monitors):
    batches = some(monitors, 6, forbidden=[3], spoiled_by={"raise": sqlstate})
    assert statuses(post_together(home, single, asking, batches)) == expected
    assert [stored(raising_at_commit, batch)[0] for batch in batches] == [2 if status == 200 else 0 for status in expected]


@pytest.mark.parametrize("sqlstate", ["42P05", "26000", "0A000"])
def test_statements_of_all_connections_are_sent_again_unprepared(sqlstate, stack, raising, home, asking, monitors):
    """As behind a pooler: each of two connections meets the error before the program knows."""
    batches = [some(monitors, 1, forbidden=[0], spoiled_by={"raise": sqlstate, "times": 1, "counter": f"_{n}"})[0]
               for n in range(2)]
    with home.program(stack, monitors, STEEP_CONNECTIONS="2") as instance:
        with home.locked():
            sent = [asking.submit(batch.post, instance) for batch in batches]
            wait_for(lambda: len(waiting(raising)) == 2, "both to wait")
        assert statuses([each.result() for each in sent]) == [200] * 2
    assert [stored(raising, batch) for batch in batches] == [(2, 1)] * 2


def test_a_locked_table_costs_a_group_one_wait(home, single, asking, monitors):
    batches = some(monitors, 16)
    begun = time.monotonic()
    answers = post_together(home, single, asking, batches, during=lambda: time.sleep(2.5 * LOCK_TIMEOUT))
    assert statuses(answers) == [503] * 16
    assert all(answer.headers.get_list("Retry-After") for answer in answers)
    # One by one they would have waited for 16 time-outs.
    assert time.monotonic() - begun < 8 * LOCK_TIMEOUT
    with home.connect() as db:
        assert [stored(db, batch)[0] for batch in batches] == [0] * 16
    assert single.errors.read_text().count("sqlstate=55P03") >= 16


def act(home, function, number):
    """Call a function on the backend of a group: the second that waits, as the first's is gone."""
    with home.connect() as db:
        for _ in range(number):
            pid, = wait_for(lambda: waiting(db), "a statement to wait")[0]
            started = db.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
            db.execute(f"SELECT {function}({pid})")
            wait_for(lambda: db.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() != started,
                     "the statement to end")


def test_a_cancelled_group_is_503_and_not_stored(home, single, asking, monitors):
    batches = some(monitors, 8)

    def cancel_both():
        act(home, "pg_cancel_backend", 2)
        time.sleep(0.2)

    answers = post_together(home, single, asking, batches, during=cancel_both)
    assert statuses(answers) == [503] * 8
    with home.connect() as db:
        assert [stored(db, batch)[0] for batch in batches] == [0] * 8
    assert statuses(post_together(home, single, asking, batches)) == [200] * 8


def test_a_group_whose_backend_is_terminated_is_stored_all_the_same(home, single, asking, monitors):
    batches = some(monitors, 8)

    def end_the_groups():
        act(home, "pg_cancel_backend", 1)
        act(home, "pg_terminate_backend", 1)
        with home.connect() as db:
            wait_for(lambda: waiting(db), "the group to be sent again")

    answers = post_together(home, single, asking, batches, during=end_the_groups)
    assert statuses(answers) == [503] + [200] * 7
    with home.connect() as db:
        assert [stored(db, batch) for batch in batches[1:]] == [(2, 1)] * 7


def test_a_group_survives_the_end_of_the_postmaster(home, single, asking, monitors):
    batches = some(monitors, 8)

    def cancel_the_first_and_crash():
        act(home, "pg_cancel_backend", 1)
        with home.connect() as db:
            wait_for(lambda: waiting(db), "the group to be sent")
        home.crash()

    answers = post_together(home, single, asking, batches, during=cancel_the_first_and_crash)
    # The group waits for the database, or is told to come again: half the workers may wait.
    assert set(statuses(answers)) <= {200, 503}
    with home.connect() as db:
        assert [stored(db, batch)[0] for batch, answer in zip(batches, answers) if answer.status_code == 200] == \
            [2] * statuses(answers).count(200)
    again = [batch.post(single) for batch in batches]
    assert statuses(again) == [200] * 8
    with home.connect() as db:
        assert [stored(db, batch) for batch in batches] == [(2, 1)] * 8
    assert all(answer.json()["inserted"] + answer.json()["duplicates"] == 2 for answer in again)


class Relay:
    """Between the program and PostgreSQL: connections that can be cut."""

    def __init__(self, home):
        self.behind = str(home.cluster.folder / ".s.PGSQL.5432")
        self.folder = reachable_folder("relay")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.folder / ".s.PGSQL.5432"))
        (self.folder / ".s.PGSQL.5432").chmod(0o666)
        self.listener.listen(16)
        self.ends = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                front, _ = self.listener.accept()
                behind = socket.socket(socket.AF_UNIX)
                self.ends += [front, behind]
                with contextlib.suppress(OSError):
                    behind.connect(self.behind)
                    for one, other in ((front, behind), (behind, front)):
                        threading.Thread(target=self.copy, args=(one, other), daemon=True).start()

    def copy(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        self.end(one, other)

    def end(self, *ends):
        for each in ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.end(*self.ends)

    def close(self):
        self.end(self.listener)
        self.cut()
        for each in [self.listener, *self.ends]:
            each.close()
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)


def test_a_group_whose_connection_is_cut_is_stored_once(stack, home, asking, monitors):
    batches = some(monitors, 8)
    relay = Relay(home)
    try:
        with home.program(stack, monitors, STEEP_CONNECTIONS="1", PGHOST=str(relay.folder)) as instance:
            def cut_the_group():
                act(home, "pg_cancel_backend", 1)
                with home.connect() as db:
                    wait_for(lambda: waiting(db), "the group to be sent")
                    relay.cut()
                    # The first backend does not notice while it waits.
                    wait_for(lambda: len(waiting(db)) == 2, "the group to be sent again")

            answers = post_together(home, instance, asking, batches, during=cut_the_group)
            assert statuses(answers) == [503] + [200] * 7
            assert all(answer.json()["inserted"] + answer.json()["duplicates"] == 2 for answer in answers[1:])
    finally:
        relay.close()
    with home.connect() as db:
        assert [stored(db, batch) for batch in batches[1:]] == [(2, 1)] * 7
        assert db.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []


def test_a_member_of_a_group_is_503_at_its_own_deadline(home, patient, single, asking, monitors):
    batches = some(monitors, 6)
    answered = []

    def wait_for_the_late_one():
        with home.connect() as db:
            act(home, "pg_cancel_backend", 1)
            wait_for(lambda: waiting(db), "the group to be sent")
            wait_for(lambda: scrape(single, "ingest")["steep_workers_busy"] == 4, "one to be answered")
            assert waiting(db)
            answered.append(True)

    # A request that nginx has had for so long that its deadline is near.
    msec = f"{time.time() - DEADLINE + 2 * SLOWNESS:.3f}"
    answers = post_together(home, single, asking, batches, during=wait_for_the_late_one, params={3: {"REQUEST_MSEC": msec}})
    assert answered
    assert statuses(answers) == [503, 200, 200, 503, 200, 200]


class Watch:
    """Counts the program's backends, as long as it runs."""

    def __init__(self, home):
        self.home = home
        self.most = 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stopped.is_set():
            with contextlib.suppress(psycopg.OperationalError), self.home.connect() as db:
                while not self.stopped.wait(0.02):
                    self.most = max(self.most, db.execute(f"SELECT count(*) {PROGRAM}").fetchone()[0])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def active(db):
    return db.execute(f"SELECT count(*) {PROGRAM} AND state = 'active'").fetchone()[0]


@contextlib.contextmanager
def hanging(stack, home, monitors, trigger):
    """A program with a short deadline, and a trigger that takes longer."""
    with home.connect() as db, home.program(stack, monitors, STEEP_CONNECTIONS="2", STEEP_WORKERS="8", STEEP_DEADLINE="2") as instance:
        db.execute("CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS"
                   " $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$")
        db.execute(f"CREATE {trigger} EXECUTE FUNCTION public.hang()")
        try:
            yield instance
        finally:
            db.execute("DROP FUNCTION public.hang() CASCADE")


@pytest.fixture
def slow(stack, home, monitors):
    with hanging(stack, home, monitors, "TRIGGER hang BEFORE INSERT ON public.events") as instance:
        yield instance


@pytest.fixture
def slow_to_commit(stack, home, monitors):
    """PostgreSQL's statement_timeout does not include the commit."""
    with hanging(stack, home, monitors, "CONSTRAINT TRIGGER hang AFTER INSERT ON public.events"
                 " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW") as instance:
        yield instance


@pytest.mark.parametrize("what", ["slow", "slow_to_commit"])
def test_a_statement_ends_with_its_request(what, request, home, asking, monitors):
    instance = request.getfixturevalue(what)
    batches = some(monitors, 24)
    with home.connect() as db, Watch(home) as watch:
        answers = list(asking.map(lambda batch: batch.post(instance), batches))
        assert statuses(answers) == [503] * 24
        wait_for(lambda: active(db) == 0, "the statements to end", 10)
        assert [stored(db, batch)[0] for batch in batches] == [0] * 24
        db.execute("DROP TRIGGER hang ON public.events")
        wait_for(lambda: batches[0].post(instance).status_code == 200, "a batch to be stored")
    assert 1 <= watch.most <= 2


def test_a_backend_that_does_not_answer_counts_as_one(home, slow, asking, monitors):
    batches = some(monitors, 24)
    with home.connect() as db, Watch(home) as watch:
        sent = [asking.submit(batch.post, slow) for batch in batches]
        frozen = [pid for pid, in wait_for(lambda: active(db) == 2 and db.execute(f"SELECT pid {PROGRAM}").fetchall(),
                                           "two statements")]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert statuses([each.result() for each in sent]) == [503] * 24
            # Requests that find no connection are answered all the same.
            assert some(monitors, 1)[0].post(slow).status_code == 503
            time.sleep(3)
            assert {pid for pid, in db.execute(f"SELECT pid {PROGRAM}").fetchall()} == set(frozen)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        wait_for(lambda: active(db) == 0, "the statements to end")
        db.execute("DROP TRIGGER hang ON public.events")
        wait_for(lambda: batches[0].post(slow).status_code == 200, "a batch to be stored")
    assert watch.most <= 2


class Sender(threading.Thread):
    """Posts batches, each until its answer is final, the last one after an event: what was answered, and when."""

    def __init__(self, instance, batches, may_end):
        super().__init__(daemon=True)
        self.instance = instance
        self.batches = batches
        self.may_end = may_end
        self.answers = []  # batch, final answer, earlier statuses, from, to

    def run(self):
        for batch in self.batches:
            if batch is self.batches[-1]:
                self.may_end.wait()
            earlier, begun = [], time.monotonic()
            while (answer := batch.post(self.instance)).status_code == 503:
                earlier.append(answer.status_code)
                time.sleep(0.05)
            self.answers.append((batch, answer, earlier, begun, time.monotonic()))


def plans(chooser, monitors, prefix, senders, count):
    """For each sender its batches: of all sizes, with ids of others, some twice, some that PostgreSQL refuses."""
    planned = [[] for _ in range(senders)]
    recent = []
    for _ in range(count):
        size = chooser.choice([1, 1, 1, 1, 1, 2, 3, 5, 10, 10, 40, 100])
        if chooser.random() < 0.01:
            size = chooser.choice([300, 600, 1000])
        number = next(_numbers)
        ids = [f"evt_{prefix}_{chooser.randrange(1 << 40):010x}_{number}_{place}" for place in range(size)]
        for place in range(size):
            # A place may name an id of this batch or of a recent one.
            if chooser.random() < 0.15:
                ids[place] = chooser.choice(recent[-200:] + ids)
        forbidden = chooser.randrange(size) if chooser.random() < 0.03 else None
        if forbidden is None:
            recent += ids[:3]
        batch = Batch(number, chooser.choice(monitors), ids, forbidden)
        # The same at once from several.
        for sender in chooser.sample(range(senders), chooser.choice([1, 1, 1, 1, 1, 1, 1, 1, 2, 3])):
            planned[sender].append(batch)
    return planned


class Faults(threading.Thread):
    """Disturbs the program's backends at random until it is stopped; when it did what that loses an answer."""

    KINDS = ["terminate", "cancel", "cancel", "lock"]

    def __init__(self, home, chooser, is_half_done, is_calm):
        super().__init__(daemon=True)
        self.home = home
        self.chooser = chooser
        self.stopped = threading.Event()
        self.is_half_done = is_half_done
        self.is_calm = is_calm
        self.losses = []
        self.done = {}
        self.has_done_all = threading.Event()

    def run(self):
        kinds = []
        while not self.stopped.wait(self.chooser.uniform(0, 0.08)):
            if not self.is_calm():
                continue
            kinds = kinds or self.chooser.sample(self.KINDS, len(self.KINDS))
            kind = "crash" if "crash" not in self.done and self.is_half_done() else kinds.pop()
            begun = time.monotonic()
            with contextlib.suppress(psycopg.OperationalError):
                getattr(self, kind)()
                self.done[kind] = self.done.get(kind, 0) + 1
            if set(self.done) == {*self.KINDS, "crash"}:
                self.has_done_all.set()
            if kind in ("terminate", "crash"):
                self.losses.append((begun, time.monotonic()))

    def terminate(self):
        # Returns when it is gone.
        self.one("pg_terminate_backend(pid, 5000)")

    def cancel(self):
        self.one("pg_cancel_backend(pid)")

    def one(self, call):
        with self.home.connect() as db:
            db.execute(f"SELECT {call} FROM (SELECT pid {PROGRAM} ORDER BY state = 'active' DESC, random() LIMIT 1) AS one")

    def lock(self):
        with self.home.locked():
            time.sleep(self.chooser.uniform(0, 0.2))

    def crash(self):
        self.home.crash()

    def overlaps(self, begun, ended):
        return any(begun <= to and ended >= since for since, to in self.losses)


@pytest.mark.parametrize("has_faults", [False, True], ids=["undisturbed", "faults"])
@pytest.mark.parametrize("connections", [1, 2])
def test_each_of_thousands_of_batches_gets_its_own_answer(stack, home, monitors, connections, has_faults):
    print(f"SEED={SEED}")
    chooser = random.Random(f"{SEED} {connections} {has_faults}")
    prefix = f"mix{connections}{'f' if has_faults else 'u'}"
    planned = plans(chooser, monitors, prefix, SENDERS, BATCHES // 2 if has_faults else BATCHES)
    senders = []

    def is_half_done():
        return 2 * sum(len(sender.answers) for sender in senders) > sum(map(len, planned))

    def is_calm():
        # A slow machine answers fewer batches between two faults, and only undisturbed ones are compared in full.
        given = [answer for sender in senders for answer in sender.answers]
        undisturbed = sum(not earlier and not faults.overlaps(begun, ended) for _, _, earlier, begun, ended in given)
        return 2 * undisturbed >= len(given) or len(given) >= sum(map(len, planned)) - SENDERS

    faults = Faults(home, chooser, is_half_done, is_calm)
    with home.program(stack, monitors, STEEP_CONNECTIONS=str(connections)) as instance, Watch(home) as watch:
        senders += [Sender(instance, each, faults.has_done_all) for each in planned]
        if has_faults:
            faults.start()
        else:
            faults.has_done_all.set()
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join((300 + BATCHES / 10) * SLOWNESS)
        faults.stopped.set()
        if has_faults:
            faults.join()
    answers = [answer for sender in senders for answer in sender.answers]
    assert len(answers) == sum(map(len, planned))
    check_answers(home, prefix, answers, faults)
    assert watch.most <= connections
    if not has_faults:
        assert not any(earlier for _, _, earlier, _, _ in answers)
    else:
        assert set(faults.done) == {"terminate", "cancel", "lock", "crash"}
    print(f"{len(answers)} answers, {sum(len(earlier) for _, _, earlier, _, _ in answers)} times 503, faults {faults.done}")


def check_answers(home, prefix, answers, faults):
    """Compare each answer with what is stored."""
    with home.connect() as db:
        rows = db.execute("SELECT id, source, (payload->>'batch')::int, (payload->>'place')::int, created_at FROM public.events"
                          " WHERE id LIKE %s", (f"evt_{prefix}_%",)).fetchall()
        assert db.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []
    of_batch, sums, certain = {}, {}, {}
    for each, _, number, place, created_at in rows:
        of_batch.setdefault(number, []).append((place, each, created_at))

    for batch, answer, earlier, begun, ended in answers:
        assert answer.status_code == (200 if batch.forbidden is None else 422), f"{answer.status_code} {answer.text}"
        certain[batch] = certain.get(batch, True) and not earlier and not faults.overlaps(begun, ended)
        if batch.forbidden is not None:
            assert [rejected["index"] for rejected in answer.json()["rejected"]] == [batch.forbidden]
            assert batch.number not in of_batch
            continue
        said = answer.json()
        assert said["inserted"] + said["duplicates"] == len(batch.ids)
        sums[batch] = sums.get(batch, 0) + said["inserted"]

    # What was acknowledged is there, and nothing else.
    assert {each for each, *_ in rows} == {each for batch in sums for each in batch.ids}
    assert len(rows) == len({each for each, *_ in rows})
    for batch, inserted in sums.items():
        mine = of_batch.get(batch.number, [])
        # An answer that was lost counted them before.
        assert inserted == len(mine) if certain[batch] else inserted <= len(mine), batch.number
        assert all(batch.ids.index(each) == place for place, each, _ in mine)
        assert len({created_at for _, _, created_at in mine}) <= 1 or not certain[batch]
    assert sum(certain[batch] for batch in sums) > len(sums) / 4

    # Batches really were stored together.
    groups = {}
    for number, mine in of_batch.items():
        for _, _, created_at in mine:
            groups.setdefault(created_at, set()).add(number)
    together = [len(numbers) for numbers in groups.values() if len(numbers) > 1]
    print(f"{len(of_batch)} batches in {len(groups)} transactions, {len(together)} of groups, of {max(together)} at most")
    assert sum(together) > len(of_batch) / 3
