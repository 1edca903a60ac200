"""How much memory the bodies in hand take, and who waits for whom while it is short."""

import concurrent.futures
import contextlib
import re
import select
from pathlib import Path

import pytest

from fastcgi import begin, ingest_params, program, read_answer
from monitor import Monitor, encode
from stack import SLOWNESS, wait_for
from test_metrics import scrape
from test_outage import locked
from wire import check_retry_after

WORKERS = 32
MIB = 1024 * 1024

# Of http/budget.h and event/batch.h.
BUDGET_BYTES = 32 * MIB
BODY_BYTES = 5 * MIB


def peak(instance):
    """The most memory that the program had, in MiB."""
    status = Path(f"/proc/{instance.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def batch(monitor, events, size):
    """The body of a batch of so many events and about so many bytes, and no more."""
    note = "n" * (size // events - len(encode([monitor.event(payload={"note": ""})])))
    return encode([monitor.event(payload={"note": note}) for _ in range(events)])


def large(monitor):
    return batch(monitor, 100, BODY_BYTES)


@pytest.fixture(scope="module")
def sender():
    return Monitor("e2e-memory")


@pytest.fixture
def serving(stack, sender):
    """Start an ingest.fcgi with as many workers as by default, which knows the sender."""
    @contextlib.contextmanager
    def serve(**more):
        with program(stack, "ingest", passed=["requests", "health"], STEEP_WORKERS=str(WORKERS),
                     VIBETEA_PUBLIC_KEYS=f"{sender.source}:{sender.public_base64}", **more) as instance:
            wait_for(lambda: instance.ask(ingest_params(b"[]", sender), b"[]").status_code == 400, "the key to be read")
            yield instance
    return serve


def send_at_once(stack, instance, sender, bodies):
    """Send batches while none can be stored, until every worker has one; then their answers."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        with contextlib.closing(locked(stack)):
            sent = [pool.submit(instance.ask, ingest_params(body, sender), body) for body in bodies]
            wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == WORKERS, "all workers to have a batch")
            wait_for(instance.is_at_rest, "them to wait")
        return [each.result() for each in sent]


def check_all_or_none(answers, events):
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["inserted"] == events
        else:
            check_retry_after(answer)


def test_5_mib_in_every_worker_take_at_most_100_mib(stack, serving, sender):
    with serving(STEEP_DEADLINE="60") as instance:
        answers = send_at_once(stack, instance, sender, [large(sender) for _ in range(WORKERS + 8)])
        check_all_or_none(answers, 100)
        assert sum(answer.status_code == 200 for answer in answers) > WORKERS / 2
        if SLOWNESS == 1:
            assert peak(instance) <= 100


def test_after_1000_events_in_every_worker_the_program_had_at_most_24_mib(stack, serving, sender):
    with serving() as instance:
        for _ in range(3):
            bodies = [batch(sender, 1000, 300_000) for _ in range(WORKERS)]
            answers = send_at_once(stack, instance, sender, bodies)
            check_all_or_none(answers, 1000)
        if SLOWNESS == 1:
            assert peak(instance) <= 24


def test_large_bodies_that_do_not_arrive_keep_no_small_one_waiting_and_no_large_one_for_good(serving, sender):
    """They are a stranger's: the source is known, and the signature not yet checked."""
    stranger = Monitor(sender.source)
    body, next_body, last_body = large(stranger), large(sender), large(sender)
    with serving(STEEP_DEADLINE=str(5 * SLOWNESS)) as instance, contextlib.ExitStack() as opened:
        def wait_for_busy(count):
            wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == count, f"{count} workers to be busy")

        slow = [opened.enter_context(begin(instance.path, ingest_params(body, stranger), body[:BODY_BYTES // 2], end_of_body=False))
                for _ in range(BUDGET_BYTES // BODY_BYTES)]
        wait_for_busy(len(slow))
        waiting = opened.enter_context(concurrent.futures.ThreadPoolExecutor(1)).submit(
            instance.ask, ingest_params(next_body, sender), next_body)
        wait_for_busy(len(slow) + 1)
        for _ in range(5):
            small = encode([sender.event()])
            assert instance.ask(ingest_params(small, sender), small).json()["inserted"] == 1
        assert select.select(slow, [], [], 0)[0] == [] and not waiting.done()
        for connection in slow:
            answer = read_answer(connection)
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
            check_retry_after(answer)
        # By then its own deadline was near.
        check_all_or_none([waiting.result()], 100)
        wait_for_busy(0)
        assert instance.ask(ingest_params(last_body, sender), last_body).json()["inserted"] == 100
