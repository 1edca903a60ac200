"""What a client may do is limited by kind, address and credential: one that goes mad refuses nobody but itself."""

import concurrent.futures
import contextlib
import itertools
import json
import re
import resource
import secrets
import select
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import h2.events
import httpx
import pytest

from conformance import Description
from conftest import query_with, registered
from monitor import Monitor, encode
from stack import ROOT, running, wait_for
from test_http2 import Connection, question
from wire import check_error, pipelined, read_answer, request_bytes

HOST = ("Host", "localhost")
# A monitor in the field tries a batch three times in about three seconds.
PAUSES = [0.5, 1.5, 0]


@contextlib.contextmanager
def dashboard(stack, address, tabs, rate):
    """A dashboard with a wrong token that is limited already: a function that ends it and returns its answers by status."""
    command = [sys.executable, str(Path(__file__).parent / "dashboard.py"), str(stack.port), stack.ca, address, str(tabs), str(rate)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        def end():
            process.stdin.close()
            return {int(status): count for status, count in json.loads(process.stdout.read()).items()}

        try:
            assert process.stdout.readline() == "limited\n"
            yield end
        finally:
            process.terminate()


def delivered(monitor, client, batch):
    for pause in PAUSES:
        with contextlib.suppress(httpx.HTTPError):
            if monitor.post(client, batch).status_code == 200:
                return True
        time.sleep(pause)
    return False


def count_stored(db, batches):
    ids = [event["id"] for batch in batches for event in batch]
    return db.execute("SELECT count(*) FROM public.events WHERE id = ANY(%s)", (ids,)).fetchone()[0]


@pytest.mark.parametrize("tabs", [1, 3, 8])
def test_a_dashboard_in_a_loop_costs_a_monitor_at_its_address_no_batch(tabs, stack, db, new_monitor):
    monitor, address = new_monitor(), f"127.0.5.{tabs}"
    batches = [[monitor.event()] for _ in range(200)]
    with stack.client(address) as client, dashboard(stack, address, tabs, 112) as end:
        lost = [batch for batch in batches if not delivered(monitor, client, batch)]
        answers = end()
    assert (len(lost), count_stored(db, batches)) == (0, 200)
    assert set(answers) == {401, 429}


@pytest.fixture
def office(stack, db):
    """1000 registered monitors of one key."""
    prefix = f"office-{secrets.token_hex(4)}"
    seed = secrets.token_bytes(32)
    monitors = [Monitor(f"{prefix}-{number}", seed) for number in range(1000)]
    db.execute("INSERT INTO public.monitor_keys (source, public_key) SELECT source, %s FROM unnest(%s::text[]) AS source",
               (monitors[0].public, [each.source for each in monitors]))
    with stack.client("127.0.5.20") as client:
        wait_for(lambda: monitors[-1].post(client, "[]").status_code == 400, "the keys to be taken up")
    yield monitors
    db.execute("DELETE FROM public.monitor_keys WHERE source LIKE %s", (f"{prefix}-%",))


@pytest.fixture
def many_files():
    """A process may have few open files by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard != resource.RLIM_INFINITY else 4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(stack, address):
    """A connection that was used, so that nginx keeps it for 120 s."""
    connection = stack.socket(address, timeout=60)
    connection.sendall(request_bytes("HEAD", "/healthz/ingest", [HOST]))
    read_answer(connection, "HEAD")
    return connection


@pytest.mark.usefixtures("many_files")
def test_1000_monitors_at_one_address_are_all_served_at_once_while_a_wrong_token_floods(stack, db, office, capsys):
    address = "127.0.5.21"
    batches = [[monitor.event()] for monitor in office]
    requests = []
    for monitor, batch in zip(office, batches):
        body = encode(batch)
        requests.append(request_bytes("POST", "/ingest", [HOST, ("Content-Length", str(len(body))), *monitor.headers(body).items()], body))
    with contextlib.ExitStack() as stacked, dashboard(stack, address, 2, 0) as end:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            connections = list(pool.map(lambda _: stacked.enter_context(opened(stack, address)), office))
        began = time.monotonic()
        for connection, request in zip(connections, requests):
            connection.sendall(request)
        sent = time.monotonic() - began
        statuses = {status: len(list(group)) for status, group in
                    itertools.groupby(sorted(read_answer(each).status_code for each in connections))}
        answers = end()
    with capsys.disabled():
        print(f"\n1000 batches sent in {sent:.2f} s, answered {statuses} in {time.monotonic() - began:.2f} s; the dashboard: {answers}",
              file=sys.stderr)
    assert statuses == {200: 1000}
    assert count_stored(db, batches) == 1000
    assert answers[429] > 0


# In the order of the documents.
ZONES = {"ingest_sources": "ingest_source_requests", "ingest_clients": "ingest_client_requests",
         "query_tokens": "query_token_requests", "query_clients": "query_client_requests",
         "other_clients": "other_client_requests"}


def test_the_documents_state_the_limits_of_the_configuration():
    snippets = ROOT / "nginx" / "snippets"
    rates = dict(re.findall(r"^limit_req_zone .* zone=steep_(\w+):\w+ rate=(\d+)r/s;$", (snippets / "rate-limits.conf").read_text(), re.M))
    limits = (snippets / "limits.conf").read_text()
    bursts = dict(re.findall(r"^limit_req zone=steep_(\w+) burst=(\d+) nodelay;$", limits, re.M))
    concurrent = dict(re.findall(r"^limit_conn steep_(\w+) (\d+);$", limits, re.M))
    expected = [[rates[zone], bursts[zone], concurrent[requests]] for zone, requests in ZONES.items()]
    assert len(rates) == len(bursts) == len(concurrent) == len(ZONES)
    table = re.search(r"^\| of one client .*\n.*\n((?:\|.*\n)+)", (ROOT / "nginx" / "README.md").read_text(), re.M)[1]
    assert [re.findall(r"\d+", row) for row in table.splitlines()] == expected
    described = Description.read().document["components"]["responses"]["RateLimited"]["description"]
    assert re.findall(r"\d+", described) == sum(expected, [])


class SlowLoris(threading.Thread):
    """Connections that each send a part of a request, and then a byte a second."""

    def __init__(self, stack, address, count):
        super().__init__(daemon=True)
        head = [HOST, ("Content-Length", "100000")]
        kinds = [(b"GET /query HTTP/1.1\r\nX: ", b"x"),
                 (request_bytes("POST", "/ingest", [*head, ("X-Source-ID", "one")]), b" "),
                 (request_bytes("GET", "/query", [*head, ("Authorization", "Bearer one")]), b" ")]
        self.connections = []
        self.stopped = threading.Event()
        for number in range(count):
            begun, more = kinds[number % 4] if number % 4 < 3 else (
                request_bytes("POST", "/ingest", [*head, ("X-Source-ID", f"loris-{number}")]), b" ")
            connection = stack.socket(address)
            connection.sendall(begun)
            self.connections.append((connection, more))

    def run(self):
        while not self.stopped.wait(1):
            for connection, more in self.connections:
                with contextlib.suppress(OSError):
                    connection.sendall(more)

    def held(self):
        """The number of connections that nginx has neither answered nor closed."""
        readable = set(select.select([connection for connection, _ in self.connections], [], [], 0)[0])

        def waits(connection):
            # What is readable may belong to TLS, such as a session.
            if connection not in readable:
                return True
            connection.setblocking(False)
            try:
                connection.recv(1)
            except ssl.SSLWantReadError:
                return True
            except OSError:
                pass
            return False

        return sum(waits(connection) for connection, _ in self.connections)

    def end(self):
        self.stopped.set()
        self.join()
        for connection, _ in self.connections:
            connection.close()


@pytest.mark.usefixtures("many_files")
def test_a_slow_loris_of_300_connections_costs_a_monitor_at_its_address_no_batch(stack, db, new_monitor, token):
    monitor, address = new_monitor(), "127.0.5.22"
    batches = [[monitor.event()] for _ in range(100)]
    loris = SlowLoris(stack, address, 300)
    try:
        loris.start()
        with stack.client(address) as client:
            assert [monitor.post(client, batch).status_code for batch in batches] == [200] * 100
            assert query_with(client, token).status_code == 200
        held = loris.held()
    finally:
        loris.end()
    assert count_stored(db, batches) == 100
    assert held >= 200, "the connections were to be there while the monitor sent"


@pytest.fixture(scope="module")
def frozen():
    """An installation whose limits forget one request in a minute only, so that a slow machine can reach them."""
    with running("limits") as stack, stack.changed_snippet("rate-limits.conf", r"rate=\d+r/s", "rate=1r/m", 5):
        yield stack


addresses = (f"127.0.6.{number}" for number in itertools.count(1))


def refusals(stack, address, requests):
    """Send requests as fast as possible; the number of those that were answered 429."""
    requests = list(requests)
    answers = list(pipelined(stack, address, requests))
    assert len(answers) == len(requests)
    refused = [answer for answer in answers if answer.status_code == 429]
    for answer in refused:
        check_error(answer, 429, "rate_limited", endpoint=False)
    return len(refused)


def batch_request(source=None, method="POST", path="/ingest"):
    return request_bytes(method, path, [HOST, ("Content-Length", "0"), *([("X-Source-ID", source)] if source else [])])


def question_request(token=None, path="/query"):
    return request_bytes("GET", path, [HOST, *([("Authorization", f"Bearer {token}")] if token else [])])


OTHERS = [request_bytes("OPTIONS", "/ingest", [HOST]), request_bytes("OPTIONS", "/functions/v1/query", [HOST]),
          request_bytes("GET", "/config.json", [HOST]), request_bytes("DELETE", "/config.json", [HOST]),
          request_bytes("GET", "/healthz/ingest", [HOST]), request_bytes("GET", "/style.css", [HOST]),
          request_bytes("GET", "/nowhere", [HOST])]

LONG = "x" * 300

# What is limited, the requests, and how many of them nginx lets through at once.
BURSTS = {
    "a source": (lambda: itertools.repeat(batch_request("one")), 501),
    "a batch without a source": (lambda: itertools.repeat(batch_request()), 501),
    "a source under each base URL": (lambda: itertools.cycle(batch_request("one", path=f"{base}/ingest") for base in
                                                             ["", "/functions/v1", "/functions/v1/functions/v1", "/"]), 501),
    "sources that differ before their last 64 bytes": (lambda: (batch_request(f"{n}{LONG}") for n in itertools.count()), 501),
    "an address with many sources": (lambda: (batch_request(f"source-{n}") for n in itertools.count()), 2001),
    "a token": (lambda: itertools.repeat(question_request("one")), 501),
    "a question without a token": (lambda: itertools.repeat(question_request()), 501),
    "an address with many tokens": (lambda: (question_request(f"token-{n}") for n in itertools.count()), 1001),
    "everything else": (lambda: itertools.cycle(OTHERS), 501),
    **{f"everything else {n}": (lambda each=each: itertools.repeat(each), 501) for n, each in enumerate(OTHERS)},
}


@pytest.mark.parametrize("kind", BURSTS)
def test_a_burst_is_let_through_and_the_rest_is_429(kind, frozen):
    requests, burst = BURSTS[kind]
    refused = refusals(frozen, next(addresses), itertools.islice(requests(), burst + 20))
    # Each minute lets one more through.
    assert 10 <= refused <= 20


@pytest.fixture(scope="module")
def frozen_monitors(frozen):
    return registered(frozen, "one"), registered(frozen, "another")


@pytest.mark.parametrize("flood, served", [
    (lambda: itertools.repeat(batch_request("one")), {"another source", "token", "page", "health", "preflight"}),
    (lambda: (batch_request(f"source-{n}") for n in itertools.count()), {"token", "page", "health", "preflight"}),
    (lambda: itertools.repeat(question_request("wrong")), {"source", "another source", "token", "page", "health", "preflight"}),
    (lambda: (question_request(f"token-{n}") for n in itertools.count()),
     {"source", "another source", "page", "health", "preflight"}),
    (lambda: itertools.cycle(OTHERS), {"source", "another source", "token"}),
], ids=["source", "sources", "token", "tokens", "others"])
def test_a_flood_refuses_only_its_own_kind_and_credential(flood, served, frozen, frozen_monitors):
    one, another = frozen_monitors
    address = next(addresses)
    assert refusals(frozen, address, itertools.islice(flood(), 2100)) > 0
    with frozen.client(address) as client:
        found = {name: ask().status_code for name, ask in {
            "source": lambda: one.post(client, [one.event()]),
            "another source": lambda: another.post(client, [another.event()]),
            "token": lambda: query_with(client, frozen.token),
            "page": lambda: client.get("/"),
            "health": lambda: client.get("/healthz/ingest"),
            "preflight": lambda: client.options("/query"),
        }.items()}
    assert {name for name, status in found.items() if status in (200, 204)} == served
    assert all(found[name] == 429 for name in set(found) - served), found
    with frozen.client(next(addresses)) as client:
        assert one.post(client, [one.event()]).status_code == query_with(client, frozen.token).status_code == 200


class Streams:
    """Requests over HTTP/2 whose bodies do not arrive, 100 on a connection."""

    def __init__(self, stack, address, requests):
        self.connections, self.statuses = [], []
        requests = list(requests)
        for start in range(0, len(requests), 100):
            connection = Connection(stack, address)
            for number, (method, path, *headers) in enumerate(requests[start:start + 100]):
                connection.state.send_headers(1 + 2 * number, question(method=method, path=path) + headers)
            connection.socket.sendall(connection.state.data_to_send())
            connection.socket.setblocking(False)
            self.connections.append(connection)

    def refused(self):
        """The number of requests answered so far, all of them 429."""
        for connection in self.connections:
            with contextlib.suppress(ssl.SSLWantReadError):
                while data := connection.socket.recv(65536):
                    self.statuses += [int(dict(event.headers)[":status"]) for event in connection.state.receive_data(data)
                                      if isinstance(event, h2.events.ResponseReceived)]
        assert set(self.statuses) <= {429}
        return len(self.statuses)

    def close(self):
        for connection in self.connections:
            connection.socket.close()


IN_PROGRESS = {
    "a source": (lambda n: ("POST", "/ingest", ("x-source-id", "one")), 100),
    "an address with many sources": (lambda n: ("POST", "/ingest", ("x-source-id", f"source-{n}")), 1500),
    "a token": (lambda n: ("GET", "/query", ("authorization", "Bearer one")), 100),
    "an address with many tokens": (lambda n: ("GET", "/query", ("authorization", f"Bearer token-{n}")), 500),
    "everything else": (lambda n: ("GET", f"/healthz/{['ingest', 'query'][n % 2]}"), 100),
}


@pytest.mark.parametrize("kind", IN_PROGRESS)
def test_requests_in_progress_are_limited(kind, frozen):
    request, limit = IN_PROGRESS[kind]
    streams = Streams(frozen, next(addresses), map(request, range(limit + 10)))
    try:
        wait_for(lambda: streams.refused() >= 10, "the requests above the limit to be refused")
        assert streams.refused() == 10
    finally:
        streams.close()


@pytest.fixture(scope="module")
def narrow():
    """An installation whose limits keep few credentials and addresses, so that a test can fill them."""
    with running("zones") as stack, stack.changed_snippet("rate-limits.conf", ":10m rate=", ":32k rate=", 5):
        yield stack


FILLINGS = {
    "short sources": (batch_request, lambda n: f"{n}", "long" + "-" * 60),
    "long sources": (batch_request, lambda n: f"{n:064}", "short"),
    "short tokens": (question_request, lambda n: f"{n}", "long" + "-" * 60),
    "long tokens": (question_request, lambda n: f"{n:064}", "x"),
}


@pytest.mark.parametrize("kind", FILLINGS)
def test_credentials_that_fill_a_zone_refuse_nobody_else(kind, narrow):
    request, credential, other = FILLINGS[kind]
    flood = [request(credential(n)) for n in range(400)]
    assert refusals(narrow, next(addresses), flood) == 0
    assert refusals(narrow, next(addresses), [request(other)]) == 0
