"""Overload: what is answered, what is refused, and how soon it is over."""

import concurrent.futures
import contextlib
import itertools
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from conftest import registered, stored
from fastcgi import begin, ingest_params, program, query_params, read_answer
from stack import SLOWNESS, addresses, alive, running, wait_for
from wire import check_error, check_retry_after, request_bytes

WORKERS = 4
DEADLINE = 4
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def busy():
    """An installation without rate limits, with few workers and a short deadline."""
    with (running("overload", STEEP_WORKERS=str(WORKERS), STEEP_DEADLINE=str(DEADLINE)) as stack,
          stack.changed_snippet("limits.conf", r"(?s)\A.*\Z", "")):
        yield stack


@pytest.fixture(scope="module")
def sender(busy):
    return registered(busy, "busy-monitor")


def at(seconds):
    """A time from now in the form of nginx's $msec."""
    return f"{time.time() + seconds:.3f}"


@pytest.fixture(scope="module")
def short_deadline(stack, monitor):
    with program(stack, "ingest", STEEP_DEADLINE="2", VIBETEA_PUBLIC_KEYS=f"{monitor.source}:{monitor.public_base64}") as instance:
        yield instance


def test_a_batch_that_waited_past_the_deadline_is_503_before_its_body_is_read(short_deadline, monitor):
    params = ingest_params(b"[]", monitor, CONTENT_LENGTH="1000", REQUEST_MSEC=at(-3))
    with begin(short_deadline.path, params, end_of_body=False) as connection:
        answer = read_answer(connection)
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    assert answer.headers.get_list("Retry-After")


def test_a_query_that_waited_past_the_deadline_is_503(stack):
    with program(stack, "query", STEEP_DEADLINE="2", VIBETEA_SUBSCRIBER_TOKEN="late") as instance:
        assert instance.ask(query_params("late", REQUEST_MSEC=at(-3))).status_code == 503
        assert instance.ask(query_params("late", REQUEST_MSEC=at(-0.5))).status_code == 200


@pytest.mark.parametrize("msec", ["", "x", "1.5", "-1.000", "1e9", "99999999999999999999.000", "-99999999999999999999.000",
                                  -0.5, +60, -7200])
def test_an_implausible_time_makes_no_request_late(msec, short_deadline, monitor):
    if not isinstance(msec, str):
        msec = at(msec)
    assert short_deadline.ask(ingest_params(b"[]", monitor, REQUEST_MSEC=msec), b"[]").status_code == 400


def test_nginx_passes_on_when_it_forwarded_a_batch(busy, sender):
    event = sender.event()
    program_pid = busy.pid("ingest")
    with busy.client() as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        os.kill(program_pid, signal.SIGSTOP)
        try:
            sent = pool.submit(sender.post, client, [event])
            time.sleep(DEADLINE + 1)
        finally:
            os.kill(program_pid, signal.SIGCONT)
        check_error(sent.result(40 * SLOWNESS), 503, "unavailable")
        with busy.connect() as db:
            assert stored(db, event["id"]) is None
        assert sender.post(client, [event]).json()["inserted"] == 1


def resident(pid):
    for line in open(f"/proc/{pid}/status", encoding="ascii"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def family(pid):
    """A process and its children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return [pid, *map(int, children.read().split())]


def memory(stack):
    """The memory of ingest.fcgi and of all nginx processes, in bytes."""
    return resident(stack.pid("ingest")), sum(resident(pid) for pid in family(stack.pid("nginx")) if alive(pid))


class Load:
    """Senders that post batches one after the other, each from its own address, until they are stopped."""

    def __init__(self, stack, monitor, senders):
        self.stack = stack
        self.answers = []
        self.stopped = threading.Event()
        self.bodies = [[monitor.event() for _ in range(200)] for _ in range(senders)]
        self.monitor = monitor
        self.threads = [threading.Thread(target=self.send, args=(number,)) for number in range(senders)]

    def send(self, number):
        with self.stack.client(f"127.0.4.{number + 1}") as client:
            while not self.stopped.is_set():
                self.answers.append(self.monitor.post(client, self.bodies[number]))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def test_an_overload_is_answered_200_429_or_503_and_ends_with_the_load(busy, sender):
    with contextlib.ExitStack() as opened, busy.client() as client:
        idle = [opened.enter_context(busy.socket(f"127.0.5.{n % 50 + 1}")) for n in range(500)]
        # Half of them send nothing, the others the start of a request.
        for connection in idle[::2]:
            connection.sendall(b"POST /ingest HTTP/1.1\r\nHost: loc")
        before = memory(busy)
        with Load(busy, sender, 4 * WORKERS) as load:
            wait_for(lambda: len(load.answers) >= 300, "the load to be served", 60, every=0.2)
            during = memory(busy)
        ended = time.monotonic()
        wait_for(lambda: sender.post(client, [sender.event()]).status_code == 200, "a batch to be taken", 2)
        assert time.monotonic() - ended < 2 * SLOWNESS
    assert {answer.status_code for answer in load.answers} <= {200, 429, 503}
    for answer in load.answers:
        if answer.status_code != 200:
            check_retry_after(answer)
    assert sum(answer.status_code == 200 for answer in load.answers) > 100
    if SLOWNESS == 1:
        assert during[0] < before[0] + 30 * MIB and during[1] < before[1] + 60 * MIB


def in_hand(stack, name="ingest"):
    """How many connections of nginx the program holds."""
    # Each socket's path is relative to the state folder, so those of other installations are alike.
    with open("/proc/net/unix", encoding="ascii") as sockets:
        # Flags 00010000 are the listener's.
        ours = {f"socket:[{fields[6]}]" for fields in map(str.split, sockets)
                if fields[-1] == f"run/{name}.sock" and fields[3] != "00010000"}
    held = 0
    for descriptor in Path(f"/proc/{stack.pid(name)}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held += os.readlink(descriptor) in ours
    return held


def test_hundreds_of_slow_clients_occupy_no_worker(busy, sender):
    body = sender.event()["payload"]["note"].encode().ljust(1000)
    whole = request_bytes("POST", "/ingest", [("Host", "localhost"), *sender.headers(body).items(),
                                              ("Content-Length", str(len(body)))], body)
    in_body = whole.index(b"\r\n\r\n") + 10
    stopped = threading.Event()
    with contextlib.ExitStack() as opened, busy.client(next(addresses)) as client:
        slow = [opened.enter_context(busy.socket(f"127.0.6.{n % 50 + 1}")) for n in range(300)]
        for connection, begun in zip(slow, itertools.cycle([10, in_body])):
            connection.sendall(whole[:begun])

        def trickle():
            sent = {10: 10, in_body: in_body}
            while not stopped.wait(1):
                for connection, begun in zip(slow, itertools.cycle([10, in_body])):
                    with contextlib.suppress(OSError):
                        connection.send(whole[sent[begun]:sent[begun] + 1])
                sent = {begun: at + 1 for begun, at in sent.items()}

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            assert [sender.post(client, [sender.event()]).status_code for _ in range(50)] == [200] * 50
            time.sleep(3)
            assert in_hand(busy) == 0
            assert [sender.post(client, [sender.event()]).status_code for _ in range(50)] == [200] * 50
        finally:
            stopped.set()
            trickling.join()
