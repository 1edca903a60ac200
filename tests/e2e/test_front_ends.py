"""Several front ends behind one nginx, over Unix sockets and TCP, as deploy/SCALING.md configures it."""

import concurrent.futures
import contextlib
import re
import signal
import socket
from pathlib import Path

import pytest

from conftest import query_with, registered, stored_all
from fastcgi import ingest_params
from front_ends import Cable, FrontEnd, behind_nginx, settle
from stack import ROOT, SLOWNESS, addresses, running, wait_for
from test_metrics import parse
from test_outage import locked
from wire import SECRETS, check_error

# So that the test waits less for a front end that hangs; a connection has 2 s.
PATIENCE = r"fastcgi_read_timeout \w+", "fastcgi_read_timeout 3s"


@pytest.fixture(scope="module")
def installation():
    """One of its own: when nginx reads its configuration, it breaks off what other tests have in progress."""
    with running("front-ends") as made:
        SECRETS.update({made.token, made.seed().hex()})
        yield made


@pytest.fixture(scope="module")
def near(installation):
    """A front end on Unix sockets."""
    yield from started(FrontEnd(installation, "near"))


@pytest.fixture(scope="module")
def far(installation):
    """A front end on TCP."""
    yield from started(FrontEnd(installation, "far", "127.0.0.2"))


def started(front_end):
    try:
        front_end.start()
        yield front_end
    finally:
        front_end.stop()


@pytest.fixture(scope="module")
def both(installation, near, far):
    with behind_nginx(installation, [near, far]):
        yield near, far


@pytest.fixture(scope="module")
def sender(installation, both):
    made = registered(installation, "front-ends")
    settle(both, "ingest", ingest_params(b"[]", made), b"[]", 400)
    return made


@pytest.fixture
def post(installation, sender):
    def send(events):
        with installation.client(next(addresses)) as client:
            return sender.post(client, events)
    return send


def received(front_end, name="ingest"):
    """How many requests a program has answered."""
    answer = front_end.programs[name].ask_health(f"/metrics/{name}")
    return sum(value for key, value in parse(answer.text).items() if key.startswith("steep_requests_total"))


def many(count, call):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda _: call(), range(count)))


def test_both_front_ends_take_batches_and_queries(installation, both, post, sender):
    before = [received(each, name) for each in both for name in ("ingest", "query")]
    assert {answer.status_code for answer in many(40, lambda: post([sender.event()]))} == {200}

    def ask():
        with installation.client(next(addresses)) as client:
            return query_with(client, installation.token)

    assert {answer.status_code for answer in many(40, ask)} == {200}
    after = [received(each, name) for each in both for name in ("ingest", "query")]
    assert all(late - early >= 5 for early, late in zip(before, after)), (before, after)


def test_a_program_listens_on_the_one_address_that_it_was_given(far):
    for listener, port in far.ports.items():
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
        for other in ("127.0.0.1", "127.0.0.3"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((other, port), timeout=5)


def test_no_answer_over_tcp_waits_for_the_receipt_of_its_first_part(far):
    """The last record would otherwise wait for 40 ms. A connection has what its listener has, which is the program's and ours."""
    for program in far.programs.values():
        assert [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in program.listeners] == [1, 1]


@pytest.mark.parametrize("which", [0, 1], ids=["unix", "tcp"])
def test_a_front_end_that_is_gone_costs_no_batch_and_no_query(which, installation, both, post, sender):
    gone, left = both[which], both[1 - which]
    for each in gone.programs.values():
        each.kill()
        each.close()
    before = received(left)
    try:
        answers = many(60, lambda: post([sender.event()]))
        assert [answer.status_code for answer in answers] == [200] * 60
        assert received(left) == before + 60
        with installation.client(next(addresses)) as client:
            assert {query_with(client, installation.token).status_code for _ in range(10)} == {200}
            # The site is ready while one front end is.
            assert {client.get(f"/readyz/{name}").status_code for name in ("ingest", "query") for _ in range(4)} == {200}
    finally:
        gone.start()
    before = received(gone)
    # By then it has had another chance.
    wait_for(lambda: many(8, lambda: post([sender.event()])) and received(gone) > before, "the front end to get batches again", 30, every=1)


def test_a_front_end_that_is_cut_off_costs_no_new_request(installation, near, far, post, sender):
    cable = Cable("127.0.0.4", far.address_of("ingest"))
    cable.start()
    try:
        with behind_nginx(installation, [near, far], {("far", "ingest"): f"{cable.address[0]}:{cable.address[1]}"}):
            wait_for(lambda: many(8, lambda: post([sender.event()])) and cable.pairs, "batches to take the cable")
            # Until nginx has closed its idle connections: a batch on one of these has been sent.
            wait_for(lambda: not cable.pairs, "the kept connections to end")
            cable.cut()
            before = received(near)
            answers = many(40, lambda: post([sender.event()]))
            assert [answer.status_code for answer in answers] == [200] * 40, {answer.text for answer in answers}
            assert received(near) == before + 40
            cable.mend()
    finally:
        cable.stop()


@contextlib.contextmanager
def one_in_hand(installation, both, post, events):
    """A batch that one of the front ends has in hand until the table is no longer locked: its answer to come, and the front end."""
    before = {each.name: received(each) for each in both}
    with contextlib.closing(locked(installation)) as lock, concurrent.futures.ThreadPoolExecutor(1) as thread:
        answer = thread.submit(post, events)
        holder = wait_for(lambda: next((each for each in both if busy(each)), None), "the batch to be in hand")
        assert {each.name: received(each) for each in both} == before
        yield answer, holder
        lock.rollback()


def busy(front_end, name="ingest"):
    return parse(front_end.programs[name].ask_health(f"/metrics/{name}").text)["steep_workers_busy"] > 0


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_batch_that_was_sent_is_never_sent_to_another_front_end(fault, installation, both, post, sender):
    events = [sender.event() for _ in range(3)]
    with installation.changed_snippet("endpoint.conf", *PATIENCE):
        with one_in_hand(installation, both, post, events) as (answer, holder):
            other, = (each for each in both if each is not holder)
            before = received(other)
            program = holder.programs["ingest"]
            if fault == "killed":
                program.kill()
            else:
                program.signal(signal.SIGSTOP)
            try:
                check_error(answer.result(40 * SLOWNESS), 503, "unavailable")
                assert received(other) == before
            finally:
                if fault == "killed":
                    program.start()
                else:
                    program.signal(signal.SIGCONT)
        program.wait_until_ready()
    again = post(events)
    assert again.status_code == 200 and again.json()["inserted"] + again.json()["duplicates"] == 3
    with installation.connect() as connection:
        assert len(stored_all(connection, [event["id"] for event in events])) == 3


@pytest.mark.parametrize("fault, status", [("killed", 200), ("frozen", 503)], ids=["killed", "frozen"])
def test_a_query_is_repeated_if_its_front_end_dies_but_not_if_it_hangs(fault, status, installation, both):
    def ask():
        with installation.client(next(addresses)) as client:
            return query_with(client, installation.token)

    configured = (ROOT / "nginx" / "snippets" / "endpoint.conf").read_text()
    repeats, reads = (int(re.search(rf"^fastcgi_{name}_timeout (\d+)s;", configured, re.M)[1]) for name in ("next_upstream", "read"))
    assert repeats < reads
    # Shorter, but in the same order.
    with installation.changed_snippet("endpoint.conf", *PATIENCE), \
            installation.changed_snippet("endpoint.conf", r"next_upstream_timeout \w+", "next_upstream_timeout 2s"), \
            concurrent.futures.ThreadPoolExecutor(1) as thread, installation.connect(autocommit=False) as lock:
        lock.execute("LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
        answer = thread.submit(ask)
        holder = wait_for(lambda: next((each for each in both if busy(each, "query")), None), "the query to be in hand")
        other, = (each for each in both if each is not holder)
        before = received(other, "query")
        program = holder.programs["query"]
        if fault == "killed":
            program.kill()
            wait_for(lambda: busy(other, "query"), "the query to be repeated")
            program.start()
        else:
            program.signal(signal.SIGSTOP)
            wait_for(answer.done, "the query to be given up")
            program.signal(signal.SIGCONT)
        lock.rollback()
        assert answer.result(40 * SLOWNESS).status_code == status
        assert received(other, "query") == before + (fault == "killed")
    program.wait_until_ready()


def test_a_front_end_that_hangs_gets_few_of_the_requests(both, post, sender):
    hung = both[0].programs["ingest"]
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        hung.signal(signal.SIGSTOP)
        try:
            sent = []
            for _ in range(20):
                sent.append(threads.submit(post, [sender.event()]))
                concurrent.futures.wait(sent[-1:], timeout=0.5)
            waiting = sum(not each.done() for each in sent)
        finally:
            hung.signal(signal.SIGCONT)
        # Ten, if each server got half of them.
        assert waiting <= 5
        assert {each.result(40 * SLOWNESS).status_code for each in sent} == {200}


def test_batches_are_answered_soon_after_all_front_ends_have_failed_once(installation, both, post, sender):
    for holder in both:
        # Until nginx tries a server again it takes the first for failed.
        with one_in_hand(installation, both, post, [sender.event()]) as (answer, found):
            found.programs["ingest"].kill()
            assert answer.result(40 * SLOWNESS).status_code == 503
            found.programs["ingest"].start()
        found.programs["ingest"].wait_until_ready()
    assert {answer.status_code for answer in many(16, lambda: post([sender.event()]))} == {200}
    assert "no live upstreams" not in installation.log_text("nginx-error")


@pytest.mark.parametrize("repeated", [False, True], ids=["as configured", "as it must not be"])
def test_a_batch_that_a_front_end_refuses_is_repeated_only_by_its_sender(repeated, installation, near, sender):
    """What must not be shows that this would be noticed."""
    broken = FrontEnd(installation, "broken", PGHOST="/nonexistent", STEEP_DATABASE_WAIT="1",
                      VIBETEA_PUBLIC_KEYS=f"{sender.source}:{sender.public_base64}")
    program = broken.programs["ingest"]
    program.open()
    program.start()
    try:
        with behind_nginx(installation, [near, broken]), contextlib.ExitStack() as changed:
            if repeated:
                changed.enter_context(installation.changed_snippet(
                    "endpoint.conf", "next_upstream error timeout;", "next_upstream error timeout http_503 non_idempotent;"))
            before = received(near) + received(broken)

            def send():
                with installation.client(next(addresses)) as client:
                    event = sender.event()
                    return event["id"], sender.post(client, [event]).status_code

            answers = many(40, send)
            taken = received(near) + received(broken) - before
    finally:
        program.end()
    refused = [event_id for event_id, status in answers if status == 503]
    assert {status for _, status in answers} <= {200, 503}
    with installation.connect() as connection:
        assert stored_all(connection, refused) == []
    if repeated:
        assert taken > 40
    else:
        assert taken == 40 and refused


def established(front_end, name="ingest"):
    """Of each connection to a program's TCP listener, the bytes that it has not read."""
    address, port = front_end.address_of(name)
    local = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(line[4].split(":")[1], 16) for line in lines if line[1] == local and line[3] == "01"]


def test_a_batch_half_sent_on_a_kept_connection_is_not_sent_again_when_this_ends(installation, near, far, both, post, sender):
    """Of a body larger than what the kernel takes for a program that reads nothing."""
    program = far.programs["ingest"]
    with installation.changed_snippet("upstream.conf", "keepalive_timeout 1s", "keepalive_timeout 60s", 2), \
            concurrent.futures.ThreadPoolExecutor(1) as thread:
        wait_for(lambda: many(8, lambda: post([sender.event()])) and established(far), "connections to be kept")
        kept = len(established(far))
        program.signal(signal.SIGSTOP)
        for _ in range(20):
            events = [sender.event(payload={"text": "x" * 60000}) for _ in range(12)]
            before = received(near)
            answer = thread.submit(post, events)
            wait_for(lambda: answer.done() or max(established(far)) > 20000, "the batch to be sent")
            if not answer.done():
                break
        assert not answer.done() and max(established(far)) < 500_000 and len(established(far)) == kept
        program.kill()
        check_error(answer.result(40 * SLOWNESS), 503, "unavailable")
        assert received(near) == before
        program.start()
        program.wait_until_ready()
    with installation.connect() as connection:
        assert stored_all(connection, [event["id"] for event in events]) == []
    assert post(events).json()["inserted"] == 12
