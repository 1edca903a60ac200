"""nginx's connections: what happens when there are no more, and how steepctl status warns before."""

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
from pathlib import Path

from conftest import registered
from monitor import encode
from stack import ROOT, addresses, alive, wait_for
from wire import check_error, exchange, request_bytes

HOST = ("Host", "localhost")
MAIN = "../../nginx.conf"


@contextlib.contextmanager
def narrow(stack, connections):
    """One worker with so many connections, and clients that may take their time."""
    with stack.changed_snippet("timeouts.conf", r"client_header_timeout \w+", "client_header_timeout 600s"), \
            stack.changed_snippet(MAIN, r"(?s)worker_processes \w+;(.*)worker_connections \d+",
                                  rf"worker_processes 1;\1worker_connections {connections}"):
        yield


def unfinished(stack):
    """A connection that has begun a request, which nginx does not close to make room for another; None if refused."""
    try:
        connection = stack.socket(next(addresses))
        connection.sendall(b"G")
    except (OSError, ssl.SSLError):
        return None
    return connection


def fill(stack, held):
    """Take all of nginx's connections."""
    taken = list(iter(lambda: unfinished(stack), None))
    for connection in taken:
        held.enter_context(connection)
    return taken


def status_of(stack):
    done = stack.steepctl("status", check=False, STEEP_STATE=str(stack.state), STEEP_URL=stack.values["STEEP_URL"], STEEP_CA=stack.ca)
    assert done.stderr == ""
    return done.returncode, [line for line in done.stdout.splitlines() if "onnections of nginx" in line or "worker of nginx" in line]


def test_status_warns_before_the_connections_of_a_worker_run_out(second_stack):
    with narrow(second_stack, 64), contextlib.ExitStack() as held:
        code, lines = status_of(second_stack)
        assert len(lines) == 1 and re.fullmatch(r"Connections of nginx: \d+ in use by a worker, which may have 64\.", lines[0])
        for _ in range(52):
            held.enter_context(unfinished(second_stack))
        code, lines = status_of(second_stack)
        found = re.fullmatch(r"WARNING: A worker of nginx has (\d+) of its 64 connections in use; raise worker_connections in"
                             r" nginx\.conf, and worker_rlimit_nofile to twice that\.", lines[1])
        assert code == 1 and 52 <= int(found[1]) <= 64, lines
        assert lines[1].removeprefix("WARNING: ") in lines[0]


def test_status_warns_where_a_worker_may_open_too_few_files(second_stack):
    with second_stack.changed_snippet(MAIN, r"worker_rlimit_nofile \d+", "worker_rlimit_nofile 1024"):
        code, lines = status_of(second_stack)
    assert code == 1
    assert lines[-1] == ("WARNING: A worker of nginx may have 4096 connections, but only 1024 open files;"
                         " set worker_rlimit_nofile in nginx.conf to twice worker_connections.")


def test_status_says_what_is_wrong_while_nginx_is_down(second_stack):
    nginx = second_stack.pid("nginx")
    keeper = int(Path(f"/proc/{nginx}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(nginx, signal.SIGTERM)
        wait_for(lambda: not alive(nginx), "nginx to end")
        done = second_stack.steepctl("status", check=False, STEEP_STATE=str(second_stack.state),
                                     STEEP_URL=second_stack.values["STEEP_URL"], STEEP_CA=second_stack.ca)
    finally:
        os.kill(keeper, signal.SIGCONT)
    assert done.returncode == 2 and "CRITICAL: Nothing answers at" in done.stdout and "Events: " in done.stdout
    assert not re.search("onnections of nginx|worker of nginx", done.stdout)
    wait_for(lambda: second_stack.pid("nginx") not in (None, nginx) and alive(second_stack.pid("nginx")), "nginx to be started again")


def test_a_batch_for_which_nginx_has_no_connection_is_503_and_stored_later(second_stack):
    stack = second_stack
    monitor = registered(stack, "connections")
    event = monitor.event()
    body = encode([event])
    request = request_bytes("POST", "/ingest", [HOST, ("Content-Length", str(len(body))), *monitor.headers(body).items()], body)

    with narrow(stack, 40), contextlib.ExitStack() as held:
        # The request takes the one that this frees.
        fill(stack, held)[0].close()

        def answer():
            with contextlib.suppress(OSError, ssl.SSLError), stack.socket(next(addresses)) as last:
                return exchange(last, request, "POST")

        refusal = wait_for(answer, "nginx to notice the closed connection")
    check_error(refusal, 503, "unavailable")
    with stack.client() as client:
        accepted = monitor.post(client, [event])
    assert accepted.json()["inserted"] == 1
    wait_for(lambda: accepted.headers["X-Request-ID"] in stack.log_text("access"), "the access log")
    # A stranger could cause it.
    assert refusal.headers["X-Request-ID"] not in stack.log_text("access")


def test_refused_connections_leave_no_line_each(second_stack):
    with narrow(second_stack, 40), contextlib.ExitStack() as held:
        fill(second_stack, held)
        before = second_stack.log_text("nginx-error")
        refused = sum(unfinished(second_stack) is None for _ in range(50))
        assert refused > 40
        assert second_stack.log_text("nginx-error").removeprefix(before) == ""


def test_a_small_fleet_loses_nothing_when_nginx_is_killed():
    done = subprocess.run([ROOT / "tests" / "bench" / "fleet", "--interval", "2", "--seconds", "1", "--json", "40"], text=True,
                          capture_output=True, env={name: value for name, value in os.environ.items()
                                                    if name == "STEEP_BUILD" or not name.startswith(("STEEP_", "PG"))})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["start"]["full_handshakes"] > 0 and found["storm"]["batches"] >= 40
    assert found["acknowledged"] >= 10 * (found["start"]["batches"] + found["steady"]["batches"] + found["storm"]["batches"])
    assert [found[phase][answers] for phase in ("start", "steady", "storm") for answers in ("answers_429", "other_answers")] == [0] * 6
    assert found["wrong"] == ""
