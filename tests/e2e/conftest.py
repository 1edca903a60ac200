"""The stack under test and its users: a monitor, a dashboard with a token, an administrator."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
from urllib.parse import urlencode

import pytest
from psycopg.rows import namedtuple_row

import arrangements
import conformance
import turns
import wire
from database import Cluster, made_database
from fastcgi import ingest_params, query_params
from monitor import Monitor, encode
from shards import Shards
from stack import ANSWER_HOOKS, Site, Stack, addresses, running, wait_for


def pytest_configure(config):
    # tests/run ends a suite with SIGTERM; fixtures must still stop what they started.
    def leave(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    conformance.answers = {}
    ANSWER_HOOKS.append(conformance.record_response)
    turns.begin(config)


def is_another_installation():
    """Whether the environment names one of which nothing but HTTP and steepctl is within reach, or an arrangement."""
    return "STEEP_ARRANGEMENT" in os.environ or ("STEEP_URL" in os.environ and "STEEP_STATE" not in os.environ)


def pytest_collection_modifyitems(config, items):
    if is_another_installation():
        others = [item for item in items if item.get_closest_marker("contract") is None]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)

    def turn(item):
        last = item.get_closest_marker("last")
        outage = item.get_closest_marker("outage") is not None
        # An outage may end the session's connection: first come the tests that use it.
        return (last.args[0] if last else 0, outage, outage and "db" not in item.fixturenames, turns.place(item.path.name))

    items.sort(key=turn)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    # True says that the test has been run: another process does it.
    return None if item.get_closest_marker("everywhere") or turns.take(item.path.name) else True


@pytest.hookimpl(hookwrapper=True)
def pytest_sessionfinish():
    turns.end_others()
    yield
    turns.end(caused())


def caused():
    """What the tests of this process caused."""
    return {"answers": list(conformance.occurred()), "secrets": len(wire.SECRETS)}


@pytest.fixture(scope="session")
def stack():
    """The installation that tests/run started, or the one that the environment names, or one of the session's own."""
    if "STEEP_ARRANGEMENT" in os.environ:
        with arrangements.standing(os.environ["STEEP_ARRANGEMENT"]) as found:
            wire.SECRETS.add(found.token)
            yield found
        return
    if is_another_installation():
        found = Site(dict(os.environ))
        wire.SECRETS.add(found.token)
        yield found
        return
    if turns.is_first() and "STEEP_URL" in os.environ and "STEEP_STATE" in os.environ:
        names = [n for n in os.environ if n.startswith(("STEEP_", "PG"))]
        found = Stack(os.environ["STEEP_STATE"], {name: os.environ[name] for name in names})
        wire.SECRETS.update({found.token, found.seed().hex()})
        with engine(found):
            yield found
        return
    with running("e2e") as found:
        wire.SECRETS.update({found.token, found.seed().hex()})
        yield found


@contextlib.contextmanager
def engine(stack):
    """What STEEP_ENGINE puts between the installation's programs and its data: nothing, or shards."""
    if os.environ.get("STEEP_ENGINE") != "shards":
        yield
        return
    made = Shards(stack, router=False)
    try:
        made.divide(stack)
        made.show(stack)
        yield
    finally:
        made.remove()


@pytest.fixture(scope="session")
def second_stack():
    """A second installation, for tests that would disturb the others."""
    with running("second") as found:
        wire.SECRETS.update({found.token, found.seed().hex()})
        yield found


@pytest.fixture(scope="session")
def nginx_version(stack):
    """The version of the nginx that runs, as a tuple."""
    said = subprocess.run([f"/proc/{stack.pid('nginx')}/exe", "-v"], text=True, capture_output=True, check=True).stderr
    return tuple(int(part) for part in re.search(r"/(\d+)\.(\d+)\.(\d+)", said).groups())


@pytest.fixture(scope="session")
def clients(stack):
    with contextlib.ExitStack() as opened:
        yield {address: opened.enter_context(stack.client(address))
               for address in {next(addresses) for _ in range(32)}}


@pytest.fixture
def client(clients):
    """A client whose address changes with each test, so that the rate limit counts no other test's requests."""
    return clients[next(addresses)]


@pytest.fixture
def raw(stack):
    """Send bytes unchanged over TLS and read the answer."""
    def send(data, method="POST"):
        with stack.socket(next(addresses)) as connection:
            return wire.exchange(connection, data, method)
    return send


@pytest.fixture(scope="session")
def db(stack):
    with stack.connect() as connection:
        yield connection


@pytest.fixture
def cluster(stack):
    return {"host": stack.pg["PGHOST"], "port": stack.pg["PGPORT"], "user": stack.pg["PGUSER"]}


@pytest.fixture
def database(cluster):
    with made_database(cluster) as made:
        made.migrate()
        yield made


@pytest.fixture
def new_cluster(stack):
    """Make clusters that exist until the end of the test."""
    made = []

    def make(name="cluster"):
        made.append(Cluster(stack, name))
        made[-1].initialize()
        return made[-1]

    yield make
    for cluster in made:
        cluster.remove()


@pytest.fixture(scope="session")
def monitor(stack):
    """A registered monitor with a key of its own."""
    return registered(stack, "e2e-monitor")


@pytest.fixture(scope="session")
def other_monitor(stack):
    return registered(stack, "e2e-other")


def registered(stack, name):
    made = Monitor(name)
    # In a stack that was tested before, the name has another key.
    stack.steepctl("monitor", "remove", name, check=False)
    stack.steepctl("monitor", "add", name, made.public_base64)
    with stack.client(next(addresses)) as client:
        wait_for(lambda: made.post(client, "[]").status_code == 400, f"the key of {name} to be taken up")
    stack.settle("ingest", ingest_params(b"[]", made), b"[]", 400)
    return made


@pytest.fixture
def new_monitor(stack):
    """Make and register a monitor with the given name, or with one that no other test uses."""

    def make(name=None):
        return registered(stack, name or f"e2e-{secrets.token_hex(6)}")

    return make


@pytest.fixture(scope="session")
def token(stack):
    """A dashboard's token."""
    made = stack.steepctl("token", "add", f"e2e-{secrets.token_hex(6)}").stdout.split()[-1]
    wire.SECRETS.add(made)
    with stack.client(next(addresses)) as client:
        wait_for(lambda: query_with(client, made).status_code == 200, "the token to be taken up")
    stack.settle("query", query_params(made), b"", 200)
    return made


def query_with(client, token, query="", path="/query", **more):
    return client.get(f"{path}{query}", headers={"Authorization": f"Bearer {token}"}, **more)


@pytest.fixture
def query(stack, token):
    """Ask for the aggregates with a valid token; the query string is sent unchanged, unlike by client libraries."""

    def ask(query_string="", **params):
        if params:
            query_string = f"?{urlencode(params)}"
        headers = [("Host", "localhost"), ("Authorization", f"Bearer {token}")]
        with stack.socket(next(addresses)) as connection:
            return wire.exchange(connection, wire.request_bytes("GET", f"/query{query_string}", headers), "GET")

    return ask


@pytest.fixture
def fresh_source():
    return f"src-{secrets.token_hex(6)}"


def fingerprint(db):
    return db.execute("SELECT count(*), max(created_at) FROM public.events").fetchone()


@pytest.fixture
def contents(request, stack):
    """Something that changes with the stored events: their number, or where only HTTP is within reach the counts."""
    if isinstance(stack, Stack):
        connection = request.getfixturevalue("db")
        return lambda: fingerprint(connection)
    ask = request.getfixturevalue("query")
    return lambda: wire.check_json(ask(days=30, group_by="source"))["aggregates"]


@pytest.fixture
def refused(contents, monitor, client):
    """Post what must be refused: the answer, once it is a 4xx in the contract's form and nothing was stored."""

    def post(events, sender=None, **more):
        before = contents()
        answer = (sender or monitor).post(client, events, **more)
        assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text[:400]}"
        wire.check_json(answer)
        wire.check_nothing_echoed(answer)
        assert contents() == before
        return answer

    return post


@pytest.fixture
def accepted_all(db, monitor, client):
    """Post a batch that must be stored, of objects or JSON texts: the rows, in the batch's order."""

    def post(events):
        texts = [event if isinstance(event, str) else encode(event).decode() for event in events]
        answer = monitor.post(client, f"[{','.join(texts)}]")
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text[:400]}"
        assert (answer.json()["inserted"], answer.json()["duplicates"]) == (len(texts), 0)
        return stored_all(db, [json.loads(text)["id"] for text in texts])

    return post


@pytest.fixture
def accepted(accepted_all):
    """The same for one event: its row."""
    return lambda event: accepted_all([event])[0]


def stored_all(db, ids):
    """Events' rows in the order of their ids, with the time as text in UTC and the payload as PostgreSQL prints it."""
    with db.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(
            "SELECT source, to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS instant, event_type,"
            " payload::text AS payload FROM public.events WHERE id = ANY(%(ids)s)"
            " ORDER BY array_position(%(ids)s, id::text)", {"ids": ids}).fetchall()


def stored(db, event_id):
    """One event's row; None when it is not there."""
    return next(iter(stored_all(db, [event_id])), None)


class SlowClient(threading.Thread):
    """Sends a part of a request and then nothing; records what it receives and when it is disconnected."""

    def __init__(self, stack, data, address):
        super().__init__(daemon=True)
        self.opened = time.monotonic()
        self.connection = stack.socket(address, timeout=100)
        self.connection.sendall(data)
        self.received = b""
        self.closed = None

    def run(self):
        with contextlib.suppress(OSError, socket.timeout):
            while True:
                data = self.connection.recv(4096)
                if not data:
                    break
                self.received += data
        self.closed = time.monotonic()


@pytest.fixture(scope="session", autouse=True)
def slow_clients(stack):
    """Started with the session, as nginx's time-outs are long, and checked by one of the last tests."""
    head = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\n"
    slow = {"header": SlowClient(stack, head, "127.0.2.1"),
            "body": SlowClient(stack, head + b"Content-Length: 1000\r\n\r\n[", "127.0.2.2")}
    for each in slow.values():
        each.start()
    return slow
