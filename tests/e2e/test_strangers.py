"""Unauthenticated requests reach no database, have no body read, and delay nobody."""

import collections
import concurrent.futures
import itertools
import re
import secrets
import select
import time

import pytest

from fastcgi import STDIN, begin, ingest_params, program, query_params, read_answer, record
from monitor import Monitor, base64_text, encode
from stack import SLOWNESS, wait_for
from test_health import BOTH
from wire import read_answers, request_bytes

# Each address stays below the rate limit, so that all requests reach the programs.
ADDRESSES = 12
REQUESTS = 120
addresses = (f"127.0.3.{n}" for n in itertools.count(1))


def batches(sender, sign):
    """Requests with a batch each that are unsigned or wrongly signed."""
    def request():
        body = encode([sender.event()])
        headers = [("Host", "localhost"), ("Content-Length", str(len(body))), *sign(body).items()]
        return request_bytes("POST", "/ingest", headers, body)
    return request


@pytest.fixture(scope="module")
def strangers(monitor, token):
    """What strangers send, by the refusal it is to get."""
    forger, nobody = Monitor(monitor.source), Monitor(f"nobody-{secrets.token_hex(6)}")

    def question():
        wrong = secrets.choice([f"steep_{base64_text(secrets.token_bytes(32))[:43]}", token[:-1], f"{token}x", "x" * 4000])
        return request_bytes("GET", "/query", [("Host", "localhost"), ("Authorization", f"Bearer {wrong}")])

    return {
        "missing_auth": batches(monitor, lambda body: {}),
        "unknown_source": batches(nobody, nobody.headers),
        "invalid_signature": batches(monitor, forger.headers),
        "invalid_token": question,
    }


@pytest.fixture(scope="module")
def flood(stack, strangers):
    """Send all of it at once from several addresses; the number of answers of each kind."""
    def pipeline(address, make):
        with stack.socket(address) as connection:
            connection.sendall(b"".join(make() for _ in range(REQUESTS)))
            return [(answer.status_code, answer.json()["error"])
                    for answer in itertools.islice(read_answers(connection), REQUESTS)]

    def send():
        with concurrent.futures.ThreadPoolExecutor(ADDRESSES * len(strangers)) as pool:
            sent = [pool.submit(pipeline, address, make) for address in itertools.islice(addresses, ADDRESSES)
                    for make in strangers.values()]
            return collections.Counter(itertools.chain.from_iterable(each.result() for each in sent))

    return send


@pytest.fixture
def refusals(strangers):
    """The expected answers to a flood: a refusal for every request, and no 429 or 503."""
    return {(401, code): REQUESTS * ADDRESSES for code in strangers}


def workers_connections(db):
    """The programs that have a connection for requests, besides the one that reads the keys."""
    rows = db.execute("SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name LIKE '%.fcgi'").fetchall()
    return {name for (name,) in rows}


def test_a_flood_of_strangers_opens_no_connection_to_the_database(db, flood, refusals, client, monitor, query):
    # A worker connects for its first statement: no connection means no statement.
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%.fcgi'")
    wait_for(lambda: not workers_connections(db), "the workers' connections to end")
    assert flood() == refusals
    assert workers_connections(db) == set()
    assert monitor.post(client, [monitor.event()]).status_code == query().status_code == 200
    assert workers_connections(db) == {"ingest.fcgi", "query.fcgi"}


@pytest.fixture
def statements(stack, db):
    """Count the programs' statements since the last call by text, without those that read the keys or probe."""
    def restart_sessions():
        db.execute("SELECT pg_reload_conf()")
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('steep_ingest', 'steep_query')")

    def count():
        nonlocal seen
        before, seen = seen, stack.log("postgresql").stat().st_size
        with open(stack.log("postgresql"), errors="replace") as log:
            log.seek(before)
            found = re.findall(r"<steep_(?:ingest|query) (?!\w+ keyring>).*?> LOG:  (?:execute \S+|statement): (.*)\n", log.read(seen - before))
        # The limit goes before each statement, in its round trip.
        others = r"set_config\('statement_timeout'|\('\[\]'\)|\(0, ''\)"
        return collections.Counter(sql for sql in found if not re.search(others, sql))

    seen = stack.log("postgresql").stat().st_size
    db.execute("ALTER SYSTEM SET log_line_prefix = '%m [%p] <%u %a> '")
    for role in ("steep_ingest", "steep_query"):
        db.execute(f"ALTER ROLE {role} SET log_statement = 'all'")
    restart_sessions()
    yield count
    db.execute("ALTER SYSTEM RESET log_line_prefix")
    for role in ("steep_ingest", "steep_query"):
        db.execute(f"ALTER ROLE {role} SET log_statement = 'none'")
    restart_sessions()


INSERT = "SELECT inserted_count FROM public.bulk_insert_events($1::text::jsonb)"
COUNT = "SELECT source, date, hour, event_count FROM public.get_hourly_aggregates($1, $2) LIMIT $5"


def test_a_flood_of_strangers_causes_no_statement_and_delays_nobody(statements, flood, refusals, client, monitor, query):
    assert monitor.post(client, [monitor.event()]).status_code == query().status_code == 200
    assert statements() == {INSERT: 1, COUNT: 1}
    sent, longest = 0, 0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood)
        while sent == 0 or not flooding.done():
            started = time.monotonic()
            assert monitor.post(client, [monitor.event()]).json()["inserted"] == 1
            assert query().status_code == 200
            longest = max(longest, time.monotonic() - started)
            sent += 1
        assert flooding.result() == refusals
    assert statements() == {INSERT: sent, COUNT: sent}
    # A dashboard waits a few seconds for its answer, a monitor 30.
    assert longest < 5 * SLOWNESS


class TestTheBody:
    """A body that is announced and never sent: an answer shows that it was not read."""

    @pytest.fixture(scope="class")
    def ingest(self, stack, monitor):
        with program(stack, "ingest") as instance:
            wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
            yield instance

    @pytest.fixture
    def without_a_body(self, ingest):
        def ask(monitor=None, **changes):
            with begin(ingest.path, ingest_params(b"[]", monitor, **changes), end_of_body=False, timeout=5) as connection:
                answer = read_answer(connection)
            return answer.status_code, answer.json()["error"]
        return ask

    def test_is_not_read_for_another_method(self, without_a_body, monitor):
        assert without_a_body(monitor, REQUEST_METHOD="PUT") == (405, "method_not_allowed")

    def test_is_not_read_when_it_is_too_long(self, without_a_body, monitor):
        assert without_a_body(monitor, CONTENT_LENGTH=str(5 * 1024 * 1024 + 1)) == (413, "payload_too_large")

    @pytest.mark.parametrize("missing", ["HTTP_X_SOURCE_ID", "HTTP_X_SIGNATURE"])
    def test_is_not_read_for_an_unsigned_request(self, missing, without_a_body, monitor):
        assert without_a_body(monitor, **{missing: ""}) == (401, "missing_auth")

    def test_is_not_read_for_an_unknown_source(self, without_a_body):
        assert without_a_body(Monitor("nobody-knows")) == (401, "unknown_source")

    @pytest.mark.parametrize("signature", ["x", "A" * 88])
    def test_is_not_read_with_a_malformed_signature(self, signature, without_a_body, monitor):
        assert without_a_body(monitor, HTTP_X_SIGNATURE=signature) == (401, "invalid_signature")

    def test_is_read_when_the_source_is_known_and_the_signature_well_formed(self, ingest, monitor):
        for signer, status in [(monitor, 400), (Monitor(monitor.source), 401)]:
            with begin(ingest.path, ingest_params(b"[]", signer), end_of_body=False) as connection:
                assert select.select([connection], [], [], 0.5)[0] == []
                connection.sendall(record(STDIN, b"[]") + record(STDIN))
                assert read_answer(connection).status_code == status

    def test_is_never_read_for_a_query(self, stack, token):
        with program(stack, "query") as instance:
            wait_for(lambda: instance.ask(query_params(token)).status_code == 200, "the tokens to be read")
            for given, status in [(token, 200), ("x", 401), (None, 401)]:
                with begin(instance.path, query_params(given, CONTENT_LENGTH="1000"), end_of_body=False, timeout=5) as connection:
                    assert read_answer(connection).status_code == status


class TestTheLog:
    """What strangers cause has one line a second for each kind, which tells how many it stands for."""

    REQUESTS = 300

    @pytest.fixture(scope="class")
    def programs(self, stack, monitor, token):
        with program(stack, "ingest", passed=BOTH) as ingest, program(stack, "query", passed=BOTH) as asked:
            wait_for(lambda: ingest.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
            wait_for(lambda: asked.ask(query_params(token)).status_code == 200, "the tokens to be read")
            yield {"ingest": ingest, "query": asked}

    @pytest.fixture(scope="class")
    def without_keys(self, stack):
        with program(stack, "ingest", passed=BOTH, database=False) as instance:
            wait_for(lambda: instance.ask({}).status_code == 405, "it to serve")
            yield {"ingest": instance}

    @staticmethod
    def lines(instance, code):
        """The lines of a kind, as pairs of a request's id, or None, and the number left out."""
        found = re.findall(rf" event=(?:ingest|query)(?: request_id=(\w+))? status=\d+ error={code}(?: left_out=(\d+))?(?= |$)",
                           instance.errors.read_text(), re.MULTILINE)
        return [(request_id or None, int(left_out or 0)) for request_id, left_out in found]

    def told(self, instance, code):
        """How many requests the lines stand for."""
        return sum((request_id is not None) + left_out for request_id, left_out in self.lines(instance, code))

    @staticmethod
    def counted(instance, name, status, code):
        text = instance.ask_health(f"/metrics/{name}").text
        return int(re.search(rf'^steep_requests_total{{endpoint="{name}",status="{status}",code="{code}"}} (\d+)$', text, re.MULTILINE)[1])

    KINDS = {
        "method": ("ingest", 405, "method_not_allowed", lambda own: (ingest_params(b"", own, REQUEST_METHOD="PUT"), b"")),
        "length": ("ingest", 413, "payload_too_large", lambda own: (ingest_params(b"", own, CONTENT_LENGTH=str(10**9)), b"")),
        "no signature": ("ingest", 401, "missing_auth", lambda own: (ingest_params(b"[]"), b"[]")),
        "source": ("ingest", 401, "unknown_source", lambda own: (ingest_params(b"[]", Monitor("nobody-knows")), b"[]")),
        "signature": ("ingest", 401, "invalid_signature", lambda own: (ingest_params(b"[]", Monitor(own.source)), b"[]")),
        "no token": ("query", 401, "missing_auth", lambda own: (query_params(), b"")),
        "token": ("query", 401, "invalid_token", lambda own: (query_params("nobodys"), b"")),
        "no keys yet": ("ingest", 503, "unavailable", lambda own: (ingest_params(b"[]", own), b"[]")),
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_flood_has_a_line_a_second_and_none_is_forgotten(self, kind, programs, without_keys, monitor):
        name, status, code, make = self.KINDS[kind]
        instance = (without_keys if kind == "no keys yet" else programs)[name]
        before = self.counted(instance, name, status, code)
        wait_for(lambda: self.told(instance, code) == before, "earlier ones to be told")
        lines, size, begun = len(self.lines(instance, code)), instance.errors.stat().st_size, time.monotonic()
        for _ in range(self.REQUESTS):
            assert instance.ask(*make(monitor)).status_code == status
        wait_for(lambda: self.told(instance, code) == before + self.REQUESTS, "all to be told")
        grown, seconds = len(self.lines(instance, code)) - lines, time.monotonic() - begun
        print(f"{kind}: {self.REQUESTS} requests, {grown} lines, {instance.errors.stat().st_size - size} bytes")
        assert 1 <= grown <= seconds + 1
        assert self.counted(instance, name, status, code) == before + self.REQUESTS

    def test_a_flood_of_one_kind_hides_no_other(self, programs):
        asked = programs["query"]
        before = self.told(asked, "invalid_token")
        for _ in range(20):
            asked.ask(query_params())
        wait_for(lambda: asked.ask(query_params("nobodys")) and self.told(asked, "invalid_token") > before, "the other kind")

    def test_a_lone_refusal_is_found_by_its_id(self, programs):
        asked = programs["query"]
        sent = []

        def found():
            params = query_params("nobodys")
            sent.append(params["REQUEST_ID"])
            asked.ask(params)
            return [each for each, _ in self.lines(asked, "invalid_token") if each in sent]

        wait_for(found, "a line with an id that was sent", every=1.5)

    def test_what_an_authenticated_client_causes_is_logged_in_full(self, programs, monitor, token):
        batches = [encode([monitor.event()]), b"[]", b"x", encode([monitor.event(id="x")])] * 25
        sent = [(programs["ingest"], ingest_params(body, monitor), body) for body in batches]
        sent += [(programs["query"], query_params(token, query), b"") for query in ("", "days=8", "source=", "%") for _ in range(25)]
        statuses = collections.Counter(instance.ask(params, body).status_code for instance, params, body in sent)
        assert statuses == {200: 50, 400: 125, 422: 25}
        for instance, params, _ in sent:
            wait_for(lambda: instance.errors.read_text().count(f" request_id={params['REQUEST_ID']} ") == 1, "its line")

    def test_what_was_left_out_is_told_when_the_program_ends(self, stack):
        with program(stack, "query") as instance:
            wait_for(lambda: instance.ask(query_params("nobodys")).status_code == 401, "the tokens to be read")
            before = self.told(instance, "invalid_token")
            for _ in range(50):
                instance.ask(query_params("nobodys"))
            instance.terminate()
            assert instance.wait() == 0
            assert self.told(instance, "invalid_token") >= before + 50
