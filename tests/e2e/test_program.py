"""The programs themselves: their options, their environment, and requests that nginx would never send them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import stored
from fastcgi import STDIN, begin, ingest_params, program, query_params, read_answer, record
from monitor import Monitor, base64_text, encode
from stack import SLOWNESS, reachable_folder, wait_for
from wire import SECRETS, check_nothing_echoed

NAMES = ["ingest", "query"]


def error(answer, status, code):
    """Check a program's part of an error: nginx adds the common headers."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:300]}"
    body = answer.json()
    assert body["error"] == code and body["message"]
    assert answer.headers.get_list("Content-Type") == ["application/json"]
    assert answer.headers.get_list("Content-Length") == [str(len(answer.content))]
    retry = answer.headers.get_list("Retry-After")
    assert bool(retry) == (status == 503) and all(re.fullmatch("[1-5]", value) for value in retry)
    check_nothing_echoed(answer)
    return body


def run(stack, name, *arguments, **environment):
    return subprocess.run([str(stack.program(name)), *arguments], text=True, capture_output=True, timeout=30 * SLOWNESS,
                          env={"PATH": "/usr/bin:/bin", "PGHOST": "/nonexistent"} | environment, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", NAMES)
def test_V_prints_the_version(name, stack):
    done = run(stack, name, "-V")
    assert done.returncode == 0
    assert re.fullmatch(rf"{name}\.fcgi \(steep\) \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_t_accepts_a_good_configuration_without_a_database(name, stack):
    assert run(stack, name, "-t").returncode == 0
    assert run(stack, name, "-t", STEEP_WORKERS="1", STEEP_DEADLINE="600", STEEP_DATABASE_WAIT="0").returncode == 0
    assert run(stack, name, "-t", STEEP_WORKERS="256", STEEP_DEADLINE="2", STEEP_DATABASE_WAIT="60").returncode == 0


BAD_SETTINGS = [
    ("ingest", "STEEP_WORKERS", "99999999999999999999"), ("query", "STEEP_WORKERS", "4x"), ("ingest", "STEEP_DEADLINE", "601"),
    ("query", "STEEP_DEADLINE", "20s"), ("ingest", "STEEP_DATABASE_WAIT", "61"), ("query", "STEEP_DATABASE_WAIT", "8s"),
    ("ingest", "VIBETEA_PUBLIC_KEYS", "x"), ("ingest", "VIBETEA_PUBLIC_KEYS", Monitor("x").public_base64),
    ("ingest", "VIBETEA_PUBLIC_KEYS", ",".join(f"a:{Monitor('x').public_base64}" for _ in range(9))),
]


@pytest.mark.parametrize("name, variable, value", BAD_SETTINGS, ids=lambda value: ascii(value)[:24])
def test_an_invalid_setting_is_refused_with_a_sentence(name, variable, value, stack):
    checked = run(stack, name, "-t", **{variable: value})
    assert checked.returncode == os.EX_CONFIG
    assert variable in checked.stderr and " " in checked.stderr.strip()
    # A short value may be a part of any sentence.
    assert len(value) < 30 or value not in checked.stderr


@pytest.mark.parametrize("name, variable, value", [
    ("ingest", "STEEP_WORKERS", "0"), ("query", "STEEP_DEADLINE", "x"), ("ingest", "VIBETEA_PUBLIC_KEYS", "x"),
])
def test_a_program_with_an_invalid_setting_does_not_start(name, variable, value, stack):
    with program(stack, name, database=False, **{variable: value}) as instance:
        assert instance.wait() == os.EX_CONFIG
        assert variable in instance.errors.read_text()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift, begins", [(0, "<3>time="), (1, "time=")], ids=["journal", "another file"])
def test_log_lines_have_a_priority_where_standard_error_is_the_journal(shift, begins, name, stack, tmp_path):
    with open(tmp_path / "stderr", "w+", encoding="utf-8") as errors:
        is_at = os.fstat(errors.fileno())
        environment = {"JOURNAL_STREAM": f"{is_at.st_dev}:{is_at.st_ino + shift}", "STEEP_WORKERS": "0"}
        subprocess.run([str(stack.program(name)), "-t"], env=environment, stderr=errors, stdin=subprocess.DEVNULL,
                       timeout=30 * SLOWNESS, check=False)
        errors.seek(0)
        line, = errors.read().splitlines()
    assert line.startswith(begins) and "STEEP_WORKERS" in line


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name, stack):
    done = run(stack, name, "--nonsense")
    assert done.returncode not in (0, -signal.SIGSEGV) and done.stderr.strip()


@pytest.mark.parametrize("form", ["public_base64", "spki_base64"])
def test_check_key_prints_the_raw_form_of_a_good_key(form, stack):
    sender = Monitor("x")
    done = run(stack, "ingest", "--check-key", getattr(sender, form))
    assert (done.returncode, done.stdout) == (0, sender.public_base64 + "\n")


@pytest.mark.parametrize("key", ["", "x", base64_text(bytes(32))])
def test_check_key_refuses_a_bad_key(key, stack):
    done = run(stack, "ingest", "--check-key", key)
    assert done.returncode == 1 and not done.stdout and " " in done.stderr.strip()


@pytest.fixture(scope="module")
def ingest(stack):
    """An instance on the stack's database with a key from its environment, in both forms."""
    first, second = Monitor("env-monitor"), Monitor("env second")
    keys = f"env-monitor:{first.public_base64},env second:{second.spki_base64},env-monitor:{second.public_base64}"
    with program(stack, "ingest", VIBETEA_PUBLIC_KEYS=keys) as instance:
        instance.first, instance.second = first, second
        wait_for(lambda: instance.ask(ingest_params(b"", HTTP_X_SOURCE_ID="nobody", HTTP_X_SIGNATURE="x")).status_code == 401,
                 "the keys to be read")
        yield instance


@pytest.fixture(scope="module")
def query(stack):
    with program(stack, "query", VIBETEA_SUBSCRIBER_TOKEN="env-token-0123456789") as instance:
        wait_for(lambda: instance.ask(query_params("x")).status_code == 401, "the tokens to be read")
        yield instance


def test_a_key_from_the_environment_is_accepted(ingest, db):
    for sender in (ingest.first, ingest.second):
        event = sender.event()
        body = encode([event])
        answer = ingest.ask(ingest_params(body, sender), body)
        assert answer.status_code == 200 and answer.json()["inserted"] == 1
        assert stored(db, event["id"]).source == sender.source


def test_a_monitor_may_have_several_keys_in_the_environment(ingest):
    again = Monitor("env-monitor", bytes(ingest.second.key))
    error(ingest.ask(ingest_params(b"[]", again), b"[]"), 400, "empty_batch")


def test_keys_of_the_environment_add_to_those_of_the_database(ingest, monitor):
    error(ingest.ask(ingest_params(b"[]", monitor), b"[]"), 400, "empty_batch")


def test_a_key_from_the_environment_signs_for_its_own_name_only(ingest):
    params = ingest_params(b"[]", ingest.first, HTTP_X_SOURCE_ID="env second")
    error(ingest.ask(params, b"[]"), 401, "invalid_signature")


def test_tokens_of_the_environment_add_to_those_of_the_database(query, token):
    for good in ("env-token-0123456789", token):
        answer = query.ask(query_params(good))
        assert answer.status_code == 200 and "aggregates" in answer.json()
    error(query.ask(query_params("env-token-012345678")), 401, "invalid_token")


@pytest.mark.parametrize("environment", [{}, {"VIBETEA_SUBSCRIBER_TOKEN": ""}], ids=["unset", "empty"])
def test_an_empty_token_never_matches(environment, stack):
    with program(stack, "query", **environment) as instance:
        wait_for(lambda: instance.ask(query_params("x")).status_code == 401, "the tokens to be read")
        for given in ("Bearer", "Bearer ", "Bearer  ", ""):
            assert instance.ask(query_params(HTTP_AUTHORIZATION=given)).status_code == 401


def test_an_empty_list_of_keys_is_accepted(stack):
    with program(stack, "ingest", VIBETEA_PUBLIC_KEYS="") as instance:
        wait_for(lambda: instance.ask(ingest_params(b"", HTTP_X_SOURCE_ID="nobody", HTTP_X_SIGNATURE="x")).status_code == 401,
                 "the keys to be read")


@pytest.mark.parametrize("claimed, status, code", [
    (5 * 1024 * 1024 + 1, 413, "payload_too_large"), (10**12, 413, "payload_too_large"), (10**30, 413, "payload_too_large"),
])
def test_a_body_over_5_MiB_is_refused_before_the_credentials(claimed, status, code, ingest):
    error(ingest.ask(ingest_params(b"x", CONTENT_LENGTH=str(claimed)), b"x"), status, code)
    error(ingest.ask(ingest_params(b"x", REQUEST_METHOD="PUT", CONTENT_LENGTH=str(claimed)), b"x"), 405, "method_not_allowed")


@pytest.mark.parametrize("claimed", [1, 100, 5 * 1024 * 1024])
def test_a_body_that_arrives_incomplete_is_invalid_request_or_unsigned(claimed, ingest, db):
    # The signature is checked first, and it is valid for the bytes that arrived.
    event = ingest.first.event()
    body = encode([event])
    answer = ingest.ask(ingest_params(body, ingest.first, CONTENT_LENGTH=str(len(body) + claimed)), body)
    assert (answer.status_code, answer.json()["error"]) in [(400, "invalid_request"), (401, "invalid_signature"),
                                                            (413, "payload_too_large")]
    assert stored(db, event["id"]) is None


@pytest.mark.parametrize("length", ["", "x", "-1", "+2", " 2", "2x", "0x2", "99999999999999999999999"])
def test_an_invalid_content_length_does_no_harm(length, ingest):
    answer = ingest.ask(ingest_params(b"[]", ingest.first, CONTENT_LENGTH=length), b"[]")
    assert 400 <= answer.status_code < 500


def test_bytes_beyond_the_content_length_are_not_read(ingest, db):
    event = ingest.first.event()
    body = encode([event])
    assert ingest.ask(ingest_params(body, ingest.first), body + b"trailing").status_code == 200
    assert stored(db, event["id"])


def test_a_web_server_that_disconnects_during_a_body_does_no_harm(ingest):
    for _ in range(20):
        body = encode([ingest.first.event()])
        begin(ingest.path, ingest_params(body, ingest.first), body[:20], end_of_body=False).close()
    error(ingest.ask(ingest_params(b"[]", ingest.first), b"[]"), 400, "empty_batch")


def test_garbage_instead_of_fastcgi_does_no_harm(ingest):
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 70000, b"\x01", b"\x01\x01\0\x01\xff\xff\xff\0"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(ingest.path))
            try:
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
    error(ingest.ask(ingest_params(b"[]", ingest.first), b"[]"), 400, "empty_batch")


def test_missing_parameters_are_refused_in_the_documented_order(ingest, query):
    error(ingest.ask({}), 405, "method_not_allowed")
    error(ingest.ask({"REQUEST_METHOD": "POST"}), 401, "missing_auth")
    error(query.ask({}), 405, "method_not_allowed")
    error(query.ask({"REQUEST_METHOD": "GET"}), 401, "missing_auth")


def test_the_405_names_what_is_allowed(ingest, query):
    assert ingest.ask({"REQUEST_METHOD": "GET"}).headers.get_list("Allow") == ["POST, OPTIONS"]
    assert query.ask({"REQUEST_METHOD": "POST"}).headers.get_list("Allow") == ["GET, HEAD, OPTIONS"]


@pytest.mark.parametrize("name", NAMES)
def test_the_listener_may_come_from_systemd(name, stack):
    with program(stack, name, passed=["requests"]) as instance:
        error(instance.ask({"REQUEST_METHOD": "DELETE"}), 405, "method_not_allowed")
        instance.terminate()
        assert instance.wait() == 0


@pytest.mark.parametrize("name", NAMES)
def test_an_idle_program_ends_at_sigterm_with_status_0(name, stack):
    with program(stack, name) as instance:
        instance.ask({})
        instance.terminate()
        assert instance.wait() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_program_without_a_database_ends_at_sigterm_too(name, stack):
    with program(stack, name, database=False) as instance:
        instance.ask({})
        instance.terminate()
        assert instance.wait() == 0


def test_a_request_in_flight_at_sigterm_is_finished(stack, db, monitor):
    event = monitor.event()
    body = encode([event])
    with program(stack, "ingest") as instance:
        wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
        with stack.connect(autocommit=False) as lock:
            lock.execute("LOCK TABLE public.events IN SHARE ROW EXCLUSIVE MODE")
            with begin(instance.path, ingest_params(body, monitor), body) as connection:
                wait_for(lambda: db.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] > 0,
                         "the insert to wait")
                instance.terminate()
                time.sleep(0.5)
                assert instance.process.poll() is None
                lock.rollback()
                answer = read_answer(connection)
        assert answer.status_code == 200 and answer.json()["inserted"] == 1
        assert instance.wait() == 0
    assert stored(db, event["id"])


def test_a_body_still_arriving_at_sigterm_is_finished_too(stack, monitor, db):
    event = monitor.event()
    body = encode([event])
    with program(stack, "ingest") as instance:
        wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
        with begin(instance.path, ingest_params(body, monitor), body[:30], end_of_body=False) as connection:
            time.sleep(0.3)
            instance.terminate()
            time.sleep(0.3)
            connection.sendall(record(STDIN, body[30:]) + record(STDIN))
            assert read_answer(connection).status_code == 200
        assert instance.wait() == 0
    assert stored(db, event["id"])


class TestWithoutADatabaseFromTheStart:
    """Until the keys have been read once, a credential that the environment does not have is 503, not 401."""

    @pytest.fixture(scope="class")
    def lonely_ingest(self, stack):
        sender = Monitor("env-monitor")
        with program(stack, "ingest", database=False, STEEP_DATABASE_WAIT="1",
                     VIBETEA_PUBLIC_KEYS=f"env-monitor:{sender.public_base64}") as instance:
            instance.sender = sender
            yield instance

    @pytest.fixture(scope="class")
    def lonely_query(self, stack):
        with program(stack, "query", database=False, STEEP_DATABASE_WAIT="1",
                     VIBETEA_SUBSCRIBER_TOKEN="env-token-0123456789") as instance:
            yield instance

    def test_no_credentials_are_missing_auth(self, lonely_ingest, lonely_query):
        error(lonely_ingest.ask(ingest_params(b"[]"), b"[]"), 401, "missing_auth")
        error(lonely_query.ask(query_params()), 401, "missing_auth")

    def test_another_method_is_405(self, lonely_ingest, lonely_query):
        error(lonely_ingest.ask({"REQUEST_METHOD": "GET"}), 405, "method_not_allowed")
        error(lonely_query.ask({"REQUEST_METHOD": "POST"}), 405, "method_not_allowed")

    @pytest.mark.parametrize("source", ["nobody", "env-monitor"])
    def test_a_source_that_the_database_may_know_is_503(self, source, lonely_ingest):
        stranger = Monitor(source)
        error(lonely_ingest.ask(ingest_params(b"[]", stranger), b"[]"), 503, "unavailable")

    @pytest.mark.parametrize("body, status, code", [
        (b"[]", 400, "empty_batch"), (b"x", 400, "invalid_request"), (b"[1]", 422, "invalid_event"),
    ], ids=ascii)
    def test_the_body_is_checked_after_a_signature_by_a_key_of_the_environment(self, body, status, code, lonely_ingest):
        error(lonely_ingest.ask(ingest_params(body, lonely_ingest.sender), body), status, code)

    def test_a_good_batch_waits_and_is_503(self, lonely_ingest):
        body = encode([lonely_ingest.sender.event()])
        started = time.monotonic()
        error(lonely_ingest.ask(ingest_params(body, lonely_ingest.sender), body), 503, "unavailable")
        assert time.monotonic() - started >= 0.9

    def test_a_token_that_the_database_may_know_is_503(self, lonely_query):
        error(lonely_query.ask(query_params("unknown")), 503, "unavailable")

    def test_the_parameters_are_checked_after_the_token_of_the_environment(self, lonely_query):
        error(lonely_query.ask(query_params("env-token-0123456789", "days=8")), 400, "invalid_days")
        error(lonely_query.ask(query_params("env-token-0123456789")), 503, "unavailable")

    def test_the_programs_keep_running(self, lonely_ingest, lonely_query):
        assert lonely_ingest.process.poll() is None and lonely_query.process.poll() is None

    def test_the_log_names_the_problem_and_no_secret(self, lonely_ingest, lonely_query):
        for instance in (lonely_ingest, lonely_query):
            log = instance.errors.read_text()
            assert log.strip() and "env-token-0123456789" not in log
            assert not any(secret in log for secret in SECRETS if len(secret) > 8)


def test_a_program_started_without_a_database_serves_once_it_appears(stack, monitor, db):
    """PGHOST names a folder that appears later."""
    folder = reachable_folder("later")
    link = folder / "pg"
    try:
        with program(stack, "ingest", PGHOST=str(link)) as instance:
            error(instance.ask(ingest_params(b"[]", monitor), b"[]"), 503, "unavailable")
            link.symlink_to(stack.pg["PGHOST"])
            event = monitor.event()
            body = encode([event])
            wait_for(lambda: instance.ask(ingest_params(body, monitor), body).status_code == 200, "the database", 15)
            assert stored(db, event["id"])
    finally:
        link.unlink(missing_ok=True)
        os.rmdir(folder)


@contextlib.contextmanager
def unreachable_port():
    """A port of 127.0.0.1 whose connection attempts get no answer: its queue is full."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_query_reaches_the_second_host_while_the_first_does_not_answer(stack, token):
    with unreachable_port() as port:
        with program(stack, "query", PGHOST=f"127.0.0.1,{stack.pg['PGHOST']}", PGPORT=f"{port},{stack.pg['PGPORT']}") as instance:
            params = query_params(token, "days=7")
            wait_for(lambda: b"credentials=" in instance.errors.read_bytes(), "the tokens to be read", 15)
            assert instance.ask(params).status_code == 200
            assert instance.errors.read_text().count("event=database_away") <= 1


def test_one_worker_serves_one_request_after_the_other(stack, monitor):
    results = []
    with program(stack, "ingest", STEEP_WORKERS="1") as instance:
        wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")

        def send():
            body = encode([monitor.event()])
            results.append(json.loads(instance.ask(ingest_params(body, monitor), body).content)["inserted"])

        senders = [threading.Thread(target=send) for _ in range(20)]
        for each in senders:
            each.start()
        for each in senders:
            each.join()
    assert results == [1] * 20
