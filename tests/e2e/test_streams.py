"""Answers that are too large to be built whole: they are sent in parts, complete or visibly broken, and cost little memory."""

import concurrent.futures
import contextlib
import gzip
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psycopg
import pytest

from conftest import query_with
from fastcgi import STDIN, STDOUT, connect, head, program, query_params, read_answer, read_records, record
from stack import ROOT, SLOWNESS, addresses, alive, free_port, reachable_folder, running, wait_for
from test_health import BOTH, Manager
from test_metrics import scrape
from test_shared_answers import has_read, locked
from wire import SECRETS, check_error, check_retry_after, header

TOKEN = "stream-token"
SEED = int(os.environ.get("SEED", random.randrange(10**6)))
# With names of 250 characters, a row has 308 bytes.
SOURCES, HOURS = 460, 719
MIB = 1024 * 1024
SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'query.fcgi'"


@pytest.fixture(scope="module")
def home():
    """An installation without rate limits, whose answer for 30 days has 100 MB."""
    with running("streams") as stack:
        (stack.state / "nginx" / "snippets" / "steep" / "limits.conf").write_text("")
        stack.reload_nginx()
        with stack.connect() as db:
            # The demonstration's, which leave the last 7 days one by one.
            db.execute("DELETE FROM public.events")
            db.execute("INSERT INTO public.hourly_counts (source, hour, event_count)"
                       " SELECT left(encode(sha512(s::text::bytea), 'hex') || encode(sha512((s || 'x')::bytea), 'hex'), 250),"
                       f" date_trunc('hour', now()) - make_interval(hours => h), s FROM generate_series(1, {SOURCES}) s,"
                       f" generate_series(0, {HOURS} - 1) h")
            db.execute("VACUUM ANALYZE public.hourly_counts")
            db.execute("CHECKPOINT")
        yield stack


def rows_of(home, days):
    """The rows of an answer, in its order."""
    with home.connect() as db:
        return db.execute("SELECT source, date::text, hour, event_count FROM public.get_hourly_aggregates(%s, NULL)", [days]).fetchall()


@pytest.fixture
def month(home):
    return rows_of(home, 30)


@pytest.fixture
def week(home):
    """Of 24 MB, which are sent in parts as well."""
    return rows_of(home, 7)


def text_of(rows, days):
    """An answer as existing dashboards have always got it, up to fetchedAt."""
    listed = [{"source": source, "date": date, "hour": hour, "eventCount": count} for source, date, hour, count in rows]
    text = json.dumps({"aggregates": listed, "meta": {"totalCount": len(rows), "daysRequested": days}}, separators=(",", ":"))
    return (text[:-2] + ',"fetchedAt":"').encode()


def check_whole(body, rows, days=30):
    wanted = text_of(rows, days)
    assert body[:len(wanted)] == wanted
    assert re.fullmatch(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"}}', body[len(wanted):])


CLIENTS = [[protocol, *compressed] for protocol in ("--http1.1", "--http2") for compressed in ([], ["--compressed"])]


def curl(home, path, *options, query="days=30", token=None):
    return ["curl", "-sS", *options, "--cacert", home.ca, "-H", f"Authorization: Bearer {token or home.token}",
            "-o", str(path), f"https://localhost:{home.port}/query?{query}"]


def broken_is_seen(status, path):
    """Whether curl noticed that the answer is not whole, and what there is of it can't be mistaken for one."""
    with pytest.raises(ValueError):
        json.loads(path.read_bytes())
    return status in (18, 56, 61, 92)


@pytest.mark.parametrize("client", CLIENTS, ids=" ".join)
def test_100_mb_arrive_whole(client, home, month, tmp_path):
    subprocess.run(curl(home, tmp_path / "body", *client), check=True, timeout=120 * SLOWNESS)
    body = (tmp_path / "body").read_bytes()
    assert len(body) > 100_000_000
    check_whole(body, month)


def test_a_scope_that_is_changed_in_mid_stream_is_the_next_answers(home, month, tmp_path):
    path = tmp_path / "body"
    token = home.steepctl("token", "add", "changed", "--source", "0*", "--source", "1*", "--source", "2*", "--source", "3*").stdout.split()[-1]
    SECRETS.add(token)
    rows = [row for row in month if row[0][0] in "0123"]

    def visible():
        with home.client() as client:
            answer = query_with(client, token, "?days=30&group_by=source")
            return answer.status_code == 200 and {row["source"][0] for row in answer.json()["aggregates"]}

    def is_streaming():
        with home.connect() as db:
            return db.execute(f"SELECT count(*) {SESSIONS} AND state = 'idle in transaction'").fetchone() == (1,)

    wait_for(lambda: visible() == set("0123"), "the token to be taken up")
    with subprocess.Popen(curl(home, path, "--limit-rate", "12M", token=token)) as process:
        wait_for(lambda: path.exists() and path.stat().st_size > 1_000_000, "a part of the answer", every=0.005)
        process.send_signal(signal.SIGSTOP)
        try:
            wait_for(is_streaming, "the answer to wait for its reader")
            home.steepctl("token", "scope", "changed", "--source", "a*")
            wait_for(lambda: visible() == {"a"}, "the scope to be taken up")
            assert is_streaming()
        finally:
            process.send_signal(signal.SIGCONT)
        assert process.wait(120 * SLOWNESS) == 0
    body = path.read_bytes()
    assert len(body) > 8 * MIB
    check_whole(body, rows)


@pytest.mark.parametrize("killed", ["program", "session", "postgres"])
@pytest.mark.parametrize("client", CLIENTS, ids=" ".join)
def test_a_failure_in_mid_stream_is_seen_by_the_client(client, killed, home, tmp_path):
    moment = random.Random(f"{SEED}{client}{killed}").uniform(0.05, 0.6)
    path = tmp_path / "body"
    pid = home.pid("query")
    # A compressed answer is a third, and is limited as it arrives.
    rate = "12M" if "--compressed" in client else "36M"
    with subprocess.Popen(curl(home, path, *client, "--limit-rate", rate), stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: path.exists() and path.stat().st_size > moment * 60_000_000, "a part of the answer", every=0.005)
        if killed == "program":
            os.kill(pid, signal.SIGKILL)
        else:
            with home.connect() as db:
                session = db.execute(f"SELECT pid {SESSIONS} AND state <> 'idle'").fetchone()
                assert session, "no stream is under way"
                if killed == "session":
                    db.execute("SELECT pg_terminate_backend(%s)", session)
                else:
                    os.kill(session[0], signal.SIGKILL)
        errors = process.communicate(timeout=60 * SLOWNESS)[1]
    assert broken_is_seen(process.returncode, path), f"seed {SEED}: status {process.returncode}: {errors}"
    if killed == "program":
        wait_for(lambda: home.pid("query") not in (None, pid) and alive(home.pid("query")), "query to be started again")
    else:
        wait_for(lambda: "status=503 error=unavailable" in home.log_text("query") and "reply=broken" in home.log_text("query"),
                 "the program's line")
    wait_for(home.database_answers, "PostgreSQL to be back")

    def answers():
        with home.client(next(addresses)) as asking:
            return query_with(asking, home.token, "?days=7&source=x").status_code == 200

    wait_for(answers, "the next question to be answered")


@contextlib.contextmanager
def behind_proxy(home):
    """The URL of an nginx in front, as deploy/README configures it but for the address. It takes no more than its client does."""
    location, = re.findall(r"(?ms)^### Behind a proxy$.*?^```nginx\n(.*?)^```$", (ROOT / "deploy" / "README.md").read_text())
    folder, port = reachable_folder("proxy"), free_port()
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; events {{}} http {{ access_log off; {paths}"
        f" proxy_max_temp_file_size 0; server {{ listen 127.0.0.1:{port}; "
        + location.replace("http://127.0.0.1:8080/", f"https://127.0.0.1:{home.port}/") + "} }")
    with subprocess.Popen([f"/proc/{home.pid('nginx')}/exe", "-e", f"{folder}/log", "-c", f"{folder}/nginx.conf"]) as process:
        try:
            wait_for(lambda: (folder / "pid").exists(), "the proxy to listen")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_failure_in_mid_stream_is_seen_behind_a_proxy(home, tmp_path):
    path = tmp_path / "body"
    with behind_proxy(home) as url:
        command = [*curl(home, path, "--limit-rate", "36M")[:-1], f"{url}/query?days=30"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, home.connect() as db:
            wait_for(lambda: path.exists() and path.stat().st_size > 0, "a part of the answer", every=0.005)
            assert db.execute(f"SELECT pg_terminate_backend(pid) {SESSIONS} AND state <> 'idle'").fetchall() == [(True,)]
            errors = process.communicate(timeout=60 * SLOWNESS)[1]
    assert broken_is_seen(process.returncode, path), f"status {process.returncode}: {errors}"


def sessions(home):
    with home.connect() as db:
        return {state for state, in db.execute(f"SELECT state {SESSIONS}")}


@contextlib.contextmanager
def stalled(home, *headers):
    """A client that asks for all, reads a little, and then no more."""
    with home.socket(next(addresses)) as connection:
        connection.sendall(b"\r\n".join([b"GET /query?days=30 HTTP/1.1", b"Host: localhost",
                                          f"Authorization: Bearer {home.token}".encode(), *headers, b"", b""]))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        wait_for(lambda: "idle in transaction" in sessions(home) or "active" in sessions(home), "the stream to begin")
        yield connection


def small_question(home):
    with home.client(next(addresses)) as client:
        started = time.monotonic()
        assert query_with(client, home.token, "?days=7&source=x").status_code == 200
        return time.monotonic() - started


def temporary_bytes(home):
    """The size of nginx's temporary files, which have no name any more."""
    nginx = home.pid("nginx")
    total = 0
    for worker in Path(f"/proc/{nginx}/task/{nginx}/children").read_text().split():
        for each in Path(f"/proc/{worker}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(each).endswith(" (deleted)"):
                    total += each.stat().st_size
    return total


def test_a_client_that_stops_reading_costs_one_connection_and_16_mib_until_nginx_gives_it_up(home):
    with home.changed_snippet("timeouts.conf", r"send_timeout \d+s;", f"send_timeout {4 * SLOWNESS}s;"):
        with stalled(home):
            wait_for(lambda: temporary_bytes(home) > 15 * MIB, "nginx to buffer what it may")
            for _ in range(10):
                small_question(home)
            assert temporary_bytes(home) <= 17 * MIB
            wait_for(lambda: sessions(home) <= {"idle"}, "the connection to be given back")
        wait_for(lambda: temporary_bytes(home) == 0, "nginx to remove its file")
    assert "reply=lost" in home.log_text("query")


def test_a_client_that_disconnects_gives_its_connection_back_at_once(home):
    for _ in range(3):
        with stalled(home):
            pass
        wait_for(lambda: sessions(home) <= {"idle"}, "the connection to be given back", 10)
    small_question(home)


def test_500_questions_over_one_http_2_connection_are_answered_or_refused(stack, token):
    import asyncio

    async def ask_all():
        async with httpx.AsyncClient(verify=stack.client(http2=True)._transport._pool._ssl_context, http2=True,
                                     base_url=stack.url, timeout=60 * SLOWNESS, trust_env=False) as client:
            async def ask(number):
                return await client.get(f"/query?days={7 if number % 2 else 30}", headers={"Authorization": f"Bearer {token}"})
            return await asyncio.gather(*map(ask, range(500)))

    answers = asyncio.run(ask_all())
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert sum(answer.status_code == 200 for answer in answers) >= 100
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["meta"]["totalCount"] == len(answer.json()["aggregates"])
        else:
            check_error(answer, 429, "rate_limited")


def test_four_at_once_are_whole_or_refused_in_64_mib(home, month):
    def ask(compressed):
        with httpx.Client(verify=home.tls, trust_env=False, timeout=120 * SLOWNESS,
                          headers={"Authorization": f"Bearer {home.token}", "Accept-Encoding": compressed}) as client:
            return client.get(f"{home.url}/query?days=30")

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        sent = [pool.submit(ask, compressed) for compressed in ("gzip", "identity", "gzip", "identity")]
        while not all(each.done() for each in sent):
            small_question(home)
            time.sleep(0.1)
    answers = [each.result() for each in sent]
    assert 200 in {answer.status_code for answer in answers}
    for answer in answers:
        if answer.status_code == 200:
            check_whole(answer.content, month)
        else:
            check_error(answer, 503, "unavailable")
    if SLOWNESS == 1:
        status = Path(f"/proc/{home.pid('query')}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) <= 64 * 1024
        wait_for(lambda: int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{home.pid('query')}/status").read_text())[1]) <= 24 * 1024,
                 "the memory to go back")


# Without nginx.

@pytest.fixture
def serving(home):
    @contextlib.contextmanager
    def serve(**more):
        settings = {"STEEP_WORKERS": "8", "STEEP_CONNECTIONS": "2", "VIBETEA_SUBSCRIBER_TOKEN": TOKEN} | more
        with program(home, "query", passed=BOTH, **settings) as instance:
            wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "the tokens to be read")
            yield instance
    return serve


def ask_for_all(instance, days=30, **changes):
    connection = connect(instance.path)
    connection.sendall(head(query_params(TOKEN, f"days={days}", **changes), keep=True) + record(STDIN))
    return connection


def read_rest(connection, pause=0.0):
    """The output of an answer, and whether it has an end."""
    output = bytearray()
    with contextlib.suppress(ConnectionError):
        for kind, content in read_records(connection):
            if kind == STDOUT:
                output += content
            time.sleep(pause)
        return bytes(output), True
    return bytes(output), False


def begun(instance):
    """The answer of all, once it has begun. A slow machine may refuse the question at the deadline: it is asked again."""
    def ask():
        connection = ask_for_all(instance)
        if b"Status: 503" not in connection.recv(1000, socket.MSG_PEEK):
            return connection
        connection.close()
        return None

    return wait_for(ask, "an answer to begin", 60, every=0)


def test_a_peer_that_takes_nothing_is_given_up_after_the_deadline(home, serving):
    with Manager() as manager, serving(STEEP_DEADLINE="2", NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000") as instance, \
            begun(instance) as connection:
        wait_for(lambda: "reply=lost" in instance.errors.read_text(), "the program to give it up")
        assert read_rest(connection)[1] is False
        wait_for(lambda: scrape(instance, "query")["steep_workers_busy"] == 0, "the worker to be free")
        assert instance.ask(query_params(TOKEN, "source=x")).status_code == 200
        assert "event=stuck" not in instance.errors.read_text()


def test_a_peer_that_goes_on_reading_may_take_longer_than_the_deadline(serving, week):
    with Manager() as manager, serving(STEEP_DEADLINE=str(2 * SLOWNESS), NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000") as instance, \
            ask_for_all(instance, 7) as connection:
        begun = time.monotonic()
        # In records of 8 KB, so that the whole takes more than twice the deadline.
        output, is_whole = read_rest(connection, pause=5 * SLOWNESS / 2900)
        assert is_whole and time.monotonic() - begun > 4 * SLOWNESS
        check_whole(output.partition(b"\r\n\r\n")[2], week, 7)
        assert "event=stuck" not in instance.errors.read_text()
        assert scrape(instance, "query")["steep_answers_streamed_total"] == 1


def test_a_peer_that_reads_the_first_8_mib_slowly_is_not_taken_for_stuck(serving):
    with serving() as instance, ask_for_all(instance) as connection:
        def longest():
            return scrape(instance, "query")["steep_longest_request_seconds"]

        assert connection.recv(1) == b"\1"
        wait_for(lambda: longest() > 1, "the program to wait for its peer")
        taken = 0

        def goes_on():
            nonlocal taken
            taken += len(connection.recv(65536, socket.MSG_WAITALL))
            assert taken < 4 * MIB, "the program noted no progress"
            return longest() < 1

        wait_for(goes_on, "the program to note progress", every=0)


def test_one_streams_at_a_time_and_others_wait_without_a_connection(home, serving):
    with serving(STEEP_DEADLINE=str(3 * SLOWNESS)) as instance, ask_for_all(instance) as first:
        assert first.recv(1) == b"\1"
        with ask_for_all(instance) as second, ask_for_all(instance) as third:
            for _ in range(5):
                assert instance.ask(query_params(TOKEN, "source=x")).status_code == 200
            for waiting in (second, third):
                answer = read_answer(waiting)
                assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
                check_retry_after(answer)


def test_those_that_wait_for_their_turn_get_it(serving, week):
    with serving(STEEP_DEADLINE=str(60 * SLOWNESS)) as instance, ask_for_all(instance, 7) as first, ask_for_all(instance, 7) as second, \
            ask_for_all(instance, 7, HTTP_ACCEPT_ENCODING="gzip") as third, concurrent.futures.ThreadPoolExecutor(3) as pool:
        # At the same time: any of them may be the first to get its turn.
        outputs = list(pool.map(read_rest, (first, second, third)))
    assert all(is_whole for _, is_whole in outputs)
    bodies = [output.partition(b"\r\n\r\n")[2] for output, _ in outputs]
    check_whole(bodies[1], week, 7)
    check_whole(gzip.decompress(bodies[2]), week, 7)


def test_head_of_a_large_answer_has_its_headers_alone(serving):
    with serving() as instance, ask_for_all(instance, REQUEST_METHOD="HEAD", HTTP_ACCEPT_ENCODING="gzip") as connection:
        answer = read_answer(connection)
    assert (answer.status_code, answer.content) == (200, b"")
    assert [header(answer, name) for name in ("Content-Encoding", "Vary", "Content-Length")] == ["gzip", "Accept-Encoding", None]


def test_after_a_session_that_answered_too_late_the_next_question_is_answered(home, serving):
    with serving(STEEP_DEADLINE=str(2 * SLOWNESS), STEEP_CONNECTIONS="1") as instance, home.connect() as db:
        with home.connect(autocommit=False) as lock:
            lock.execute("LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                late = pool.submit(instance.ask, query_params(TOKEN, "source=x"))
                session, = wait_for(lambda: db.execute(f"SELECT pid {SESSIONS} AND wait_event_type = 'Lock'").fetchone(), "the question to wait")
                os.kill(session, signal.SIGSTOP)
                try:
                    assert late.result().status_code == 503
                finally:
                    os.kill(session, signal.SIGCONT)
        assert instance.ask(query_params(TOKEN, "source=x")).status_code == 200


def test_a_question_with_many_rows_is_run_once_though_it_is_the_first(home, serving):
    def seen(statement):
        with home.connect() as db:
            return db.execute(statement).fetchone()[0]

    def rows_read():
        return seen("SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'hourly_counts')"
                    " + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'hourly_counts')")

    others, before = seen(f"SELECT count(*) {SESSIONS}"), rows_read()
    with serving() as instance, ask_for_all(instance) as connection:
        assert read_rest(connection)[1]
    # A session counts what it read before it ends.
    wait_for(lambda: seen(f"SELECT count(*) {SESSIONS}") == others, "the sessions to end")
    assert SOURCES * HOURS <= rows_read() - before < 2 * SOURCES * HOURS


@pytest.fixture
def calls(home):
    """Counts how often a question with a scope is run by a program, once that has ended. The probes run another function."""
    with home.connect() as db:
        def seen(statement):
            return db.execute(statement).fetchone()[0]

        def count():
            wait_for(lambda: seen(f"SELECT count(*) {SESSIONS}") == others, "the sessions to end")
            return seen("SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'get_scoped_aggregates'") - before

        others, before = seen(f"SELECT count(*) {SESSIONS}"), 0
        before = count()
        db.execute("ALTER ROLE steep_query SET track_functions = 'all'")
        yield count
        db.execute("ALTER ROLE steep_query RESET track_functions")


def test_what_proved_large_is_not_run_in_vain_for_those_that_came_meanwhile(home, serving, calls):
    scopes = (argument for digit in "0123456789abcdef" for argument in ("--source", f"{digit}*"))
    asking = {"HTTP_AUTHORIZATION": f"Bearer {home.steepctl('token', 'add', 'vain', *scopes).stdout.split()[-1]}"}
    with serving(STEEP_DEADLINE=str(20 * SLOWNESS), PGOPTIONS="-c lock_timeout=60s") as instance, home.connect() as db, \
            home.connect(autocommit=False) as lock, contextlib.ExitStack() as opened, concurrent.futures.ThreadPoolExecutor(1) as pool:
        # It has the only turn, and keeps the lock waiting, behind which the next question waits.
        stalled = opened.enter_context(ask_for_all(instance, 7))
        assert stalled.recv(1) == b"\1"
        waits = pool.submit(lock.execute, "LOCK TABLE public.hourly_counts IN ACCESS EXCLUSIVE MODE")
        try:
            wait_for(lambda: db.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount, "the lock to be waited for")
            waiting = [opened.enter_context(ask_for_all(instance, 7, **asking))]
            wait_for(lambda: db.execute(f"SELECT pid {SESSIONS} AND wait_event_type = 'Lock'").fetchone(), "the question to wait")
            for _ in range(2):
                waiting.append(opened.enter_context(ask_for_all(instance, 7, **asking)))
                wait_for(lambda: has_read(waiting[-1]), "the question to be read", every=0.002)
        finally:
            db.execute("SELECT pg_cancel_backend(%s)", [lock.info.backend_pid])
            assert isinstance(waits.exception(), psycopg.errors.QueryCanceled)
        wait_for(lambda: db.execute(f"SELECT count(*) {SESSIONS} AND state <> 'idle'").fetchone() == (1,), "the question to be run")
        stalled.close()
        with concurrent.futures.ThreadPoolExecutor(len(waiting)) as readers:
            assert all(is_whole for _, is_whole in readers.map(read_rest, waiting))
    # Once for all, and once for each when the turn is free.
    assert calls() == 1 + len(waiting)


# The last ones, as they delete rows.

def test_a_whole_answer_that_is_sent_slowly_keeps_no_turn_from_others(home, serving):
    with serving() as instance:
        for encoding in ({}, {"HTTP_ACCEPT_ENCODING": "gzip"}):
            with ask_for_all(instance, 7, **encoding) as connection:
                assert read_rest(connection)[1]
        with home.connect() as db:
            # So few remain that the answer is whole, and more than a socket takes.
            db.execute("DELETE FROM public.hourly_counts WHERE hour > now() - interval '8 days' AND source NOT IN"
                       " (SELECT DISTINCT source FROM public.hourly_counts ORDER BY source LIMIT 10)")
        rows = rows_of(home, 7)
        with ask_for_all(instance, 7) as slow:
            assert slow.recv(1, socket.MSG_PEEK) == b"\1"
            with ask_for_all(instance, 7, HTTP_ACCEPT_ENCODING="gzip") as other:
                check_whole(gzip.decompress(read_answer(other).content), rows, 7)
            output, is_whole = read_rest(slow)
        assert is_whole
        check_whole(output.partition(b"\r\n\r\n")[2], rows, 7)
        assert scrape(instance, "query")["steep_answers_streamed_total"] == 2


def test_all_who_ask_what_is_no_longer_large_get_their_answers(home, serving):
    """Half of a small machine's two connections may stream, so that only one of them has a turn at first."""
    with serving(STEEP_DEADLINE=str(20 * SLOWNESS), PGOPTIONS="-c lock_timeout=60s") as instance, contextlib.ExitStack() as opened:
        for encoding in ({}, {"HTTP_ACCEPT_ENCODING": "gzip"}):
            with ask_for_all(instance, **encoding) as connection:
                assert read_rest(connection)[1]
        assert scrape(instance, "query")["steep_answers_streamed_total"] == 2
        with home.connect() as db:
            # So few remain that each socket takes a whole answer before anybody reads it.
            db.execute("DELETE FROM public.hourly_counts WHERE source <> (SELECT min(source) FROM public.hourly_counts)"
                       " OR hour < now() - interval '3 days'")
        rows = rows_of(home, 30)
        waiting = []
        with locked(home):
            for number in range(200):
                waiting.append(opened.enter_context(ask_for_all(instance, **({"HTTP_ACCEPT_ENCODING": "gzip"} if number % 2 else {}))))
                wait_for(lambda: has_read(waiting[-1]), "the question to be read", every=0.002)
        answers = []
        for connection in waiting:
            with connection:  # libfcgi waits for its end
                answers.append(read_answer(connection))
        assert [answer.status_code for answer in answers] == [200] * 200
        for number, answer in enumerate(answers):
            check_whole(gzip.decompress(answer.content) if number % 2 else answer.content, rows)
        assert scrape(instance, "query")["steep_answers_streamed_total"] == 2
