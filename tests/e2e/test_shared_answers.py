"""Requests that ask the same at the same time share an execution of the statement, and each keeps what is its own."""

import concurrent.futures
import contextlib
import fcntl
import gzip
import json
import os
import re
import signal
import struct
import termios
import time

import pytest

from fastcgi import STDIN, connect, head, program, query_params, read_answer, record
from monitor import new_id
from stack import SLOWNESS, wait_for
from test_health import BOTH
from test_metrics import scrape
from wire import check_retry_after, header

TOKEN = "shared-token"
SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND usename = 'steep_query' AND application_name = 'query.fcgi'"


@pytest.fixture(scope="module")
def kept(stack):
    """Some counts of a source that no other test has, so that an answer is worth compressing."""
    source = f"shared-{os.urandom(6).hex()}"
    with stack.connect() as db:
        db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                   " SELECT 'evt_' || %s::text || h, %s, now() - make_interval(hours => h), 'tool', '{}' FROM generate_series(1, 60) h",
                   [source, source])
    return source


@contextlib.contextmanager
def serving(stack, **more):
    with program(stack, "query", passed=BOTH, VIBETEA_SUBSCRIBER_TOKEN=TOKEN, PGOPTIONS="-c lock_timeout=60s", **more) as instance:
        wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "the tokens to be read")
        yield instance


@pytest.fixture
def instance(stack):
    with serving(stack, STEEP_DEADLINE=str(20 * SLOWNESS)) as made:
        yield made


@contextlib.contextmanager
def locked(stack):
    """No question is answered until the block ends, nor a lock waited for too long."""
    with stack.connect(autocommit=False) as lock:
        lock.execute("LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
        yield lock
        lock.rollback()


def wait_for_lock(stack):
    with stack.connect() as db:
        return wait_for(lambda: db.execute(f"SELECT pid {SESSIONS} AND wait_event_type = 'Lock'").fetchone(), "a question to wait")[0]


def has_read(connection):
    """Whether the program has read all that was sent over a socket."""
    return struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0] == 0


class Asked:
    """Questions on their way to a program, each on a connection of its own."""

    def __init__(self, instance, opened):
        self.instance, self.opened, self.connections, self.ids = instance, opened, [], []

    def ask(self, query, **changes):
        params = query_params(TOKEN, query, **changes)
        self.ids.append(params["REQUEST_ID"])
        self.connections.append(self.opened.enter_context(connect(self.instance.path)))
        # In one piece: the program does not look for the end of a body before it answers.
        self.connections[-1].sendall(head(params) + record(STDIN))
        wait_for(lambda: has_read(self.connections[-1]), "the question to be read", every=0.002)

    def answers(self):
        return [self.answer(at) for at in range(len(self.connections))]

    def answer(self, at):
        """One answer; then the connection is closed, as libfcgi waits for that."""
        with self.connections[at] as connection:
            return read_answer(connection)


@pytest.fixture
def asked(instance):
    with contextlib.ExitStack() as opened:
        yield Asked(instance, opened)


def counts(answer):
    assert answer.status_code == 200, answer.text
    return sum(row["eventCount"] for row in json.loads(body(answer))["aggregates"])


def body(answer):
    return gzip.decompress(answer.content) if header(answer, "Content-Encoding") == "gzip" else answer.content


def test_200_identical_questions_cost_two_executions(stack, instance, asked, kept):
    """fetchedAt tells the executions apart."""
    gzipped = {"HTTP_ACCEPT_ENCODING": "gzip"}
    with locked(stack):
        asked.ask(f"source={kept}", **gzipped)
        wait_for_lock(stack)
        for _ in range(199):
            asked.ask(f"source={kept}", **gzipped)
        assert scrape(instance, "query")["steep_workers_busy"] == 1
    answers = asked.answers()
    assert [answer.status_code for answer in answers] == [200] * 200
    assert len({answer.content for answer in answers}) == 2
    assert len({answer.content for answer in answers[1:]}) == 1
    assert scrape(instance, "query")["steep_answers_shared_total"] == 198
    log = instance.errors.read_text()
    assert all(len(re.findall(rf"event=query request_id={each} status=200", log)) == 1 for each in asked.ids)


def test_an_answer_counts_what_was_stored_before_it_was_asked_and_not_what_an_older_run_saw(stack, db, asked, kept):
    with locked(stack) as lock:
        before = lock.execute("SELECT sum(event_count) FROM public.hourly_counts WHERE source = %s", [kept]).fetchone()[0]
        asked.ask(f"source={kept}")
        runner = wait_for_lock(stack)
        lock.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES (%s, %s, now(), 'tool', '{}')",
                     [new_id(), kept])
        os.kill(runner, signal.SIGSTOP)
        try:
            lock.commit()
            asked.ask(f"source={kept}")
        finally:
            os.kill(runner, signal.SIGCONT)
    assert [counts(answer) for answer in asked.answers()] == [before, before + 1]


def test_each_gets_the_form_that_it_accepts(stack, asked, kept):
    with locked(stack):
        asked.ask(f"source={kept}")
        wait_for_lock(stack)
        for _ in range(3):
            asked.ask(f"source={kept}", HTTP_ACCEPT_ENCODING="gzip")
            asked.ask(f"source={kept}")
            asked.ask(f"source={kept}", HTTP_ACCEPT_ENCODING="gzip", REQUEST_METHOD="HEAD")
    answers = asked.answers()[1:]
    assert [header(answer, "Content-Encoding") for answer in answers] == ["gzip", None, "gzip"] * 3
    assert {header(answer, "Vary") for answer in answers} == {"Accept-Encoding"}
    assert len({body(answer) for answer in answers[0::3] + answers[1::3]}) == 1
    for answer, same in zip(answers[2::3], answers[0::3]):
        assert answer.content == b"" and header(answer, "Content-Length") == str(len(same.content))


def test_other_questions_get_answers_of_their_own(stack, asked, kept):
    rows = {"source", "date", "hour", "eventCount"}
    questions = {f"source={kept}": rows, f"source={kept}&days=30": rows, f"days=7&source={kept}0": None, f"source={kept}&days=7": rows,
                 f"source={kept}&group_by=hour": rows - {"source"}, f"source={kept}&group_by=source": {"source", "eventCount"}}
    with locked(stack):
        for question in list(questions) * 3:
            asked.ask(question)
    answers = [json.loads(answer.content) for answer in asked.answers()]
    for (question, members), answer in zip(list(questions.items()) * 3, answers):
        assert answer["meta"]["daysRequested"] == (30 if "days=30" in question else 7)
        assert all(set(row) == members and row.get("source", kept) == kept for row in answer["aggregates"])
        assert bool(answer["aggregates"]) == (members is not None)


def test_each_that_waits_has_a_deadline_of_its_own(stack, kept):
    deadline = 3 * SLOWNESS
    with serving(stack, STEEP_DEADLINE=str(deadline)) as instance, contextlib.ExitStack() as opened:
        asked = Asked(instance, opened)
        with locked(stack):
            asked.ask(f"source={kept}")
            time.sleep(deadline * 0.7)
            asked.ask(f"source={kept}")
            first = asked.answer(0)
        assert (first.status_code, first.json()["error"]) == (503, "unavailable")
        check_retry_after(first)
        assert counts(asked.answer(1)) > 0


def test_all_whose_run_fails_are_told_and_named_in_postgresqls_log(stack, db, instance, asked, kept):
    function = "public.get_hourly_aggregates(integer, text)"
    try:
        with locked(stack):
            asked.ask(f"source={kept}")
            wait_for_lock(stack)
            for _ in range(4):
                asked.ask(f"source={kept}")
            db.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM steep_query")
        answers = asked.answers()
    finally:
        db.execute(f"GRANT EXECUTE ON FUNCTION {function} TO steep_query")
    assert [answer.status_code for answer in answers] == [200] + [500] * 4
    log = instance.errors.read_text()
    assert all(re.search(rf"request_id={each} status=500 error=internal_error sqlstate=42501", log) for each in asked.ids[1:])
    wait_for(lambda: all(each in stack.log_text("postgresql") for each in asked.ids[1:]), "PostgreSQL to log the requests")


def test_one_that_leaves_while_it_waits_keeps_nobody_from_an_answer(stack, instance, asked, kept):
    with locked(stack):
        asked.ask(f"source={kept}")
        wait_for_lock(stack)
        for _ in range(6):
            asked.ask(f"source={kept}")
        for connection in asked.connections[1::2]:
            connection.close()
    assert all(counts(asked.answer(at)) > 0 for at in range(0, 7, 2))
    wait_for(lambda: scrape(instance, "query")["steep_workers_busy"] == 0, "the worker to be free")


def test_a_stop_answers_those_that_wait(stack, asked, instance, kept):
    with locked(stack):
        for _ in range(20):
            asked.ask(f"source={kept}")
        instance.terminate()
        wait_for(lambda: "event=stopping" in instance.errors.read_text(), "the signal to arrive")
    assert all(counts(answer) > 0 for answer in asked.answers())
    assert instance.wait() == 0


def test_the_questions_of_many_at_once_are_all_answered(stack, instance, kept):
    questions = [f"source={kept}", f"source={kept}&days=30", "days=7"]

    def ask(number):
        changes = {"HTTP_ACCEPT_ENCODING": "gzip"} if number % 2 else {}
        return counts(instance.ask(query_params(TOKEN, questions[number % 3], **changes)))

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert all(pool.map(ask, range(400)))
