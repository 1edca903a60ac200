"""nginx keeps its connections to the programs: what runs on them, and how they end."""

import concurrent.futures
import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import query_with, registered, stored_all
from fastcgi import STDIN, ask_again, connect, head, ingest_params, program, query_params, read_answer, record, stream
from monitor import encode
from stack import SLOWNESS, addresses, alive, running, wait_for
from test_health import BOTH, Manager
from test_metrics import scrape

MOST_IDLE = 256
TOKEN = "kept-token"


@pytest.fixture
def ingest(stack, monitor):
    with program(stack, "ingest", passed=BOTH, STEEP_WORKERS="2", STEEP_DEADLINE="2") as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        yield instance


@pytest.fixture
def query(stack):
    with program(stack, "query", passed=BOTH, STEEP_WORKERS="2", VIBETEA_SUBSCRIBER_TOKEN=TOKEN) as instance:
        wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "the tokens to be read")
        yield instance


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def is_closed(connection):
    """Whether the program ends the connection, after at most one empty record."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(8) == b"" or connection.recv(8) == b""
    return True


def test_requests_follow_each_other_on_one_connection(ingest, db, monitor):
    events = [monitor.event() for _ in range(8)]
    with connect(ingest.path) as connection:
        for event in events:
            body = encode([event])
            assert ask_again(connection, ingest_params(body, monitor), body).json()["inserted"] == 1
    assert None not in stored_all(db, [event["id"] for event in events])
    assert scrape(ingest, "ingest")["steep_connections_total"] == 1


def test_a_refused_request_leaves_nothing_of_its_body_to_the_next_one(ingest, monitor):
    body = encode([monitor.event()])
    with connect(ingest.path) as connection:
        for size in (0, 1, 7, 8, 4096, 8184, 8192, 65000, 300_000, 5_000_000):
            rest = os.urandom(size)
            assert ask_again(connection, ingest_params(rest), rest).status_code == 401
            assert ask_again(connection, ingest_params(b"", REQUEST_METHOD="GET"), rest).status_code == 405
            assert ask_again(connection, ingest_params(b"[]", monitor), b"[]").json()["error"] == "empty_batch"
        assert ask_again(connection, ingest_params(body, monitor), body).status_code == 200
    assert scrape(ingest, "ingest")["steep_connections_total"] == 1


@pytest.mark.parametrize("sent", [0, 100_000, 300_000])
def test_the_answer_to_a_refused_request_does_not_wait_for_the_rest_of_its_body(sent, ingest):
    """nginx sends no more of a body once it has the head of the answer."""
    body = os.urandom(300_000)
    with contextlib.ExitStack() as opened:
        halves = [opened.enter_context(connect(ingest.path, timeout=10)) for _ in range(4)]
        for connection in halves:
            connection.sendall(head(ingest_params(body), keep=True) + stream(STDIN, body[:sent]))
        for connection in halves:
            assert read_answer(connection).status_code == 401
            assert is_closed(connection)
        wait_for(lambda: scrape(ingest, "ingest")["steep_workers_busy"] == 0, "the workers to be free")


def test_idle_connections_hold_no_worker(query):
    with contextlib.ExitStack() as opened:
        kept = [opened.enter_context(connect(query.path)) for _ in range(20)]
        silent = [opened.enter_context(connect(query.path)) for _ in range(20)]
        for connection in kept * 2:
            assert ask_again(connection, query_params(TOKEN)).status_code == 200
        assert query.ask(query_params(TOKEN)).status_code == 200
        wait_for(lambda: [scrape(query, "query")[name] for name in ("steep_workers_busy", "steep_longest_request_seconds")] == [0, 0],
                 "no worker to be busy")
        for connection in silent:
            assert ask_again(connection, query_params(TOKEN)).status_code == 200


def used_workers(instance):
    """How many threads have run more often than a start takes."""
    switches = [int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (each / "status").read_text(), re.M)[1])
                for each in Path(f"/proc/{instance.process.pid}/task").iterdir()]
    return sum(count > 20 for count in switches)


def test_requests_in_turn_are_answered_by_few_of_many_workers(stack):
    with program(stack, "query", STEEP_WORKERS="32", VIBETEA_SUBSCRIBER_TOKEN=TOKEN) as instance, \
            connect(instance.path) as connection:
        for _ in range(400):
            assert ask_again(connection, query_params(TOKEN)).status_code == 200
        assert used_workers(instance) <= 8


@pytest.mark.parametrize("missing", [-5, 20], ids=["all but the first bytes", "the end of the body"])
def test_half_a_request_holds_one_worker_and_is_seen(missing, stack, monitor):
    body = encode([monitor.event()])
    whole = head(ingest_params(body, monitor), keep=True) + stream(STDIN, body) + record(STDIN)
    with Manager() as manager, program(stack, "ingest", passed=BOTH, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000",
                                       STEEP_WORKERS="2", STEEP_DEADLINE="2") as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        with connect(instance.path) as connection:
            assert ask_again(connection, ingest_params(b"[]", monitor), b"[]").status_code == 400
            connection.sendall(whole[:-missing])
            wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == 1, "a worker to read it")
            assert instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400
            wait_for(lambda: "event=stuck" in instance.errors.read_text(), "the watchdog to notice", 30)
            assert scrape(instance, "ingest")["steep_longest_request_seconds"] > 2
            connection.sendall(whole[-missing:])
            assert read_answer(connection).status_code in (200, 503)
            wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == 0, "the worker to go on")


def test_a_connection_that_nginx_closes_is_closed(query):
    before = descriptors(query.process)
    with contextlib.ExitStack() as opened:
        for _ in range(50):
            assert ask_again(opened.enter_context(connect(query.path)), query_params(TOKEN)).status_code == 200
        # The program's own come and go: the workers may have connected to the database.
        assert descriptors(query.process) > before + 40
    wait_for(lambda: descriptors(query.process) <= before + 4, "the connections to be closed")


def test_so_many_connections_are_kept_and_no_more(query):
    with contextlib.ExitStack() as opened:
        kept = []
        for _ in range(MOST_IDLE):
            kept.append(opened.enter_context(connect(query.path)))
            assert ask_again(kept[-1], query_params(TOKEN)).status_code == 200
        for _ in range(5):
            with connect(query.path) as surplus:
                assert ask_again(surplus, query_params(TOKEN)).status_code == 200
                assert is_closed(surplus)
        for connection in kept:
            assert ask_again(connection, query_params(TOKEN)).status_code == 200
        kept.pop().close()

        def another_is_kept():
            with connect(query.path) as another, contextlib.suppress(ConnectionError):
                return [ask_again(another, query_params(TOKEN)).status_code for _ in range(2)] == [200, 200]

        wait_for(another_is_kept, "the place of the one that was closed")


def test_a_connection_that_is_not_to_be_used_again_says_so_with_the_end_of_its_answer(query):
    """nginx closes a connection on which anything follows an answer, before it takes another request."""
    with connect(query.path) as connection:
        assert ask_again(connection, query_params(TOKEN)).status_code == 200
        query.terminate()

        def follows():
            """What follows an answer; nothing while its connection is kept, as the signal has not arrived."""
            assert ask_again(connection, query_params(TOKEN)).status_code == 200
            connection.setblocking(False)
            try:
                return connection.recv(100)
            except BlockingIOError:
                return None
            finally:
                connection.setblocking(True)

        assert wait_for(follows, "the signal to arrive", every=0) == b"\1\x0a" + bytes(6)
        assert connection.recv(100) == b""
    assert query.wait() == 0


def test_after_the_signal_it_answers_what_arrives_on_kept_connections(stack, ingest, db, monitor):
    events = [monitor.event() for _ in range(6)]
    with contextlib.ExitStack() as opened:
        kept = [opened.enter_context(connect(ingest.path)) for _ in events]
        for connection in kept:
            assert ask_again(connection, ingest_params(b"[]", monitor), b"[]").status_code == 400
        ingest.terminate()
        wait_for(lambda: "event=stopping" in ingest.errors.read_text(), "the signal to arrive")
        for connection, event in zip(kept, events):
            body = encode([event])
            connection.sendall(head(ingest_params(body, monitor), keep=True) + stream(STDIN, body) + record(STDIN))
        assert [read_answer(connection).json()["inserted"] for connection in kept] == [1] * 6
    assert ingest.wait() == 0
    assert None not in stored_all(db, [event["id"] for event in events])


def test_a_peer_that_never_closes_does_not_delay_the_end_for_long(query):
    with connect(query.path) as kept, connect(query.path):
        assert ask_again(kept, query_params(TOKEN)).status_code == 200
        query.terminate()
        assert query.wait() == 0


# Through nginx.

@pytest.fixture(scope="module")
def free():
    """An installation without rate limits."""
    with running("kept") as stack:
        (stack.state / "nginx" / "snippets" / "steep" / "limits.conf").write_text("")
        stack.reload_nginx()
        yield stack


@pytest.fixture(scope="module")
def sender(free):
    return registered(free, "kept-monitor")


def connections(stack, name):
    with stack.metrics_client() as client:
        text = client.get(f"/metrics/{name}").text
    return int(next(line for line in text.splitlines() if line.startswith("steep_connections_total")).split()[-1])


@pytest.mark.parametrize("name", ["ingest", "query"])
def test_nginx_sends_many_requests_on_one_connection(name, free, sender):
    before = connections(free, name)
    with free.client() as client:
        for _ in range(200):
            answer = sender.post(client, [sender.event()]) if name == "ingest" else query_with(client, free.token)
            assert answer.status_code == 200
    # Each of nginx's workers has its own, and closes one after a second without a request.
    assert 1 <= connections(free, name) - before <= 40


def test_nginx_closes_an_idle_connection(free, sender):
    with free.client() as client:
        assert sender.post(client, [sender.event()]).status_code == 200
        before = connections(free, "ingest")
        time.sleep(2)
        assert sender.post(client, [sender.event()]).status_code == 200
        assert connections(free, "ingest") == before + 1


def test_restarts_under_load_cost_no_batch_and_no_query(free, sender):
    """nginx repeats no POST that it has begun to send."""
    done = threading.Event()
    events = []

    def post():
        with free.client(next(addresses)) as client:
            answers = []
            while not done.is_set():
                batch = [sender.event()]
                answers.append(sender.post(client, batch))
                events.extend(event["id"] for event in batch)
            return answers

    def ask():
        with free.client(next(addresses)) as client:
            answers = []
            while not done.is_set():
                answers.append(query_with(client, free.token))
            return answers

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        running_now = [pool.submit(post) for _ in range(10)] + [pool.submit(ask) for _ in range(2)]
        try:
            for name in ["ingest", "query", "ingest"] * 4:
                before, sent = free.pid(name), len(events)
                os.kill(before, signal.SIGTERM)
                wait_for(lambda: free.pid(name) not in (None, before) and alive(free.pid(name)), f"{name} to be started again")
                wait_for(lambda: len(events) >= sent + 50, "batches")
        finally:
            done.set()
        answers = [answer for each in running_now for answer in each.result(60 * SLOWNESS)]
    assert {answer.status_code for answer in answers} == {200}
    with free.connect() as db:
        assert db.execute("SELECT count(*) FROM public.events WHERE id = ANY(%s)", [events]).fetchone()[0] == len(events)


@pytest.fixture(scope="module")
def long_answer(free):
    """So many counts, of sources with such names, that an answer does not fit into a socket, compressed or not."""
    with free.connect() as db:
        db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                   " SELECT 'evt_' || lpad(s || 'x' || h, 20, '0'), 'long-' || sha512(s::text::bytea), now() - make_interval(hours => h), 'tool', '{}'"
                   " FROM generate_series(1, 400) s, generate_series(1, 20) h")


@pytest.mark.parametrize("protocol, status", [("--http1.1", 18), ("--http2", 92)])
@pytest.mark.parametrize("compressed", [[], ["--compressed"]], ids=["plain", "gzip"])
def test_an_answer_cut_short_by_a_killed_program_is_no_whole_answer(protocol, status, compressed, free, long_answer, tmp_path):
    workers = Path(f"/proc/{free.pid('nginx')}/task/{free.pid('nginx')}/children").read_text().split()
    before = free.pid("query")
    command = ["curl", "-sS", protocol, *compressed, "--cacert", free.ca, "-H", f"Authorization: Bearer {free.token}",
               "-o", str(tmp_path / "body"), f"https://localhost:{free.port}/query?days=30"]
    with free.connect(autocommit=False) as lock:
        lock.execute("LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as curl:
            with free.connect() as db:
                wait_for(lambda: db.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'query.fcgi'"
                                            " AND wait_event_type = 'Lock'").fetchone(), "the query to wait")
            for pid in workers:
                os.kill(int(pid), signal.SIGSTOP)
            try:
                lock.rollback()
                wait_for(lambda: is_sending(before), "the program to wait until nginx reads")
                os.kill(before, signal.SIGKILL)
                wait_for(lambda: not alive(before), "the program to end")
            finally:
                for pid in workers:
                    os.kill(int(pid), signal.SIGCONT)
            assert curl.wait(60 * SLOWNESS) == status, curl.stderr.read()
    wait_for(lambda: free.pid("query") not in (None, before), "query to be started again")


def is_sending(pid):
    """Whether a thread of the process waits until there is room in a socket."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return any((each / "wchan").read_text() == "sock_alloc_send_pskb" for each in threads)
