"""What the programs say about themselves: healthy, ready, and to the service manager that they live."""

import contextlib
import os
import socket

import pytest

from fastcgi import begin, ingest_params, program, read_answer
from monitor import encode
from stack import SLOWNESS, reachable_folder, wait_for
from test_outage import locked, post_later
from wire import check_error, check_json

NAMES = ["ingest", "query"]
BOTH = ["requests", "health"]


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path, said", [("/healthz/", "ok"), ("/readyz/", "ready")])
def test_anybody_is_told_that_a_program_is_well_and_no_more(path, said, name, client):
    answer = client.get(path + name)
    assert answer.status_code == 200
    assert check_json(answer) == {"status": said}
    head = client.head(path + name)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.contract
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ["/healthz/", "/readyz/"])
def test_other_methods_are_405(path, name, client):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, path + name)
        check_error(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.contract
@pytest.mark.parametrize("path", ["/healthz", "/healthz/", "/healthz/ingest/", "/healthz/other", "/readyz", "/readyz/x",
                                  "/metrics", "/metrics/", "/functions/v1/healthz/ingest"])
def test_other_paths_are_404(path, client):
    check_error(client.get(path), 404, "not_found", endpoint=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_answers_its_own_paths_only(name, stack):
    other = {"ingest": "query", "query": "ingest"}[name]
    with program(stack, name, passed=BOTH) as instance:
        assert instance.ask_health(f"/healthz/{name}").status_code == 200
        for path in (f"/healthz/{other}", "/healthz/", f"/healthz/{name}x", f"/healthz{name}", f"/{name}", ""):
            assert instance.ask_health(path).status_code == 404
        assert instance.ask_health(f"/healthz/{name}", "POST").status_code == 405


@pytest.mark.parametrize("name", NAMES)
def test_without_a_database_a_program_is_well_but_not_ready(name, stack):
    with program(stack, name, passed=BOTH, database=False) as instance:
        assert instance.ask_health(f"/healthz/{name}").json() == {"status": "ok"}
        answer = instance.ask_health(f"/readyz/{name}")
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert answer.headers.get_list("Retry-After")


def test_a_role_that_lost_its_grant_is_not_ready(stack, db):
    with program(stack, "ingest", passed=BOTH) as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "it to be ready")
        db.execute("REVOKE EXECUTE ON FUNCTION public.list_monitor_keys(uuid) FROM steep_ingest")
        try:
            wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 503, "the next look to fail")
        finally:
            db.execute("GRANT EXECUTE ON FUNCTION public.list_monitor_keys(uuid) TO steep_ingest")
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "it to be ready again")


@pytest.mark.outage
def test_ready_turns_503_when_the_database_is_stopped_and_200_when_it_is_back(stack, client):
    keeper = stack.stop_database()
    try:
        for name in NAMES:
            wait_for(lambda: client.get(f"/readyz/{name}").status_code == 503, f"{name} to notice")
            check_error(client.get(f"/readyz/{name}"), 503, "unavailable")
            assert client.get(f"/healthz/{name}").status_code == 200
    finally:
        stack.start_database(keeper)
    for name in NAMES:
        wait_for(lambda: client.get(f"/readyz/{name}").status_code == 200, f"{name} to be ready again")


def waiting(db):
    return db.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"
                      " AND wait_event_type = 'Lock'").fetchone()[0]


def test_health_is_answered_while_every_worker_is_busy(stack, db, client, monitor):
    workers, connections = stack.workers_of("ingest"), stack.connections_of("ingest")
    with contextlib.closing(locked(stack)) as lock, stack.metrics_client() as metrics:
        sent = [post_later(stack, monitor, [monitor.event()]) for _ in range(workers + 2)]
        wait_for(lambda: waiting(db) == connections, "all connections to wait for the lock")
        wait_for(lambda: f'steep_workers_busy{{endpoint="ingest"}} {workers}\n' in metrics.get("/metrics/ingest").text,
                 "the other workers to wait for a connection")
        assert waiting(db) == connections
        assert client.get("/healthz/ingest").status_code == 200
        assert client.get("/readyz/ingest").status_code == 200
        assert not any(each.done() for each in sent)
        lock.rollback()
    for each in sent:
        assert each.result(60 * SLOWNESS)[0].status_code in (200, 503)


def test_health_is_answered_while_every_worker_hangs(stack, monitor):
    with program(stack, "ingest", passed=BOTH, STEEP_WORKERS="2", STEEP_DEADLINE="2") as instance, \
            contextlib.ExitStack() as opened:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        body = encode([monitor.event()])
        for _ in range(2):
            opened.enter_context(begin(instance.path, ingest_params(body, monitor), body[:9], end_of_body=False))
        with begin(instance.path, ingest_params(b"[]", monitor), b"[]", timeout=1) as third:
            with pytest.raises(TimeoutError):
                read_answer(third)
            assert instance.ask_health("/healthz/ingest").status_code == 200


@pytest.mark.parametrize("said", [b"", b"\x01\x01\0\x01\0\x08\0\0"], ids=["nothing", "a header"])
def test_a_peer_that_says_half_of_it_keeps_neither_health_nor_the_end_waiting(said, stack):
    def silent():
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(instance.health_path))
        connection.sendall(said)
        return connection

    with program(stack, "ingest", passed=BOTH) as instance:
        with silent():
            assert instance.ask_health("/healthz/ingest").status_code == 200
        with silent():
            instance.terminate()
            assert instance.wait() == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("passed", [["requests", "health"], ["health", "requests"]], ids=":".join)
def test_two_listeners_are_told_apart_by_their_names(passed, name, stack):
    with program(stack, name, passed=passed) as instance:
        assert instance.ask({}).status_code == 405
        assert instance.ask_health(f"/healthz/{name}").status_code == 200
        instance.terminate()
        assert instance.wait() == 0


@pytest.mark.parametrize("names", ["", "steep-ingest.socket"])
def test_one_listener_needs_no_name(names, stack):
    with program(stack, "ingest", passed=["requests"], names=names) as instance:
        assert instance.ask({}).status_code == 405


@pytest.mark.parametrize("passed, names", [
    (["requests", "health"], ""), (["requests", "health"], "requests"),
    (["requests", "health"], "requests:requests"), (["requests", "health"], "requests:other"),
    (["requests", "health"], "other:requests:health"), (["requests", "health"], "health:requests:health"),
    (["requests", "health"], "requests:health:requests"), (["requests", "health"], "Requests:health"),
    (["health"], "health"), (["requests", "health", "other"], "requests:health:other"),
    (["requests", None], "requests:health"), ([None, "health"], "requests:health"),
], ids=str)
def test_listeners_that_are_not_what_is_expected_are_refused_with_a_sentence(passed, names, stack):
    with program(stack, "ingest", passed=passed, names=names) as instance:
        assert instance.wait() == 1
        lines = instance.errors.read_text().splitlines()
    assert len(lines) == 1 and "event=listener" in lines[0] and 'detail="' in lines[0]


class Manager:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, abstract=False):
        self.folder = reachable_folder("notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if abstract:
            self.address = "@" + self.folder.name
            self.socket.bind("\0" + self.folder.name)
        else:
            self.address = str(self.folder / "notify")
            self.socket.bind(self.address)
            os.chmod(self.address, 0o666)

    def hear(self, seconds):
        """The next message, or None."""
        self.socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            return self.socket.recv(4096).decode()

    def drain(self):
        """What has been said up to now."""
        said = []
        while (message := self.hear(0.01)) is not None:
            said.append(message)
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "notify").unlink()
        self.folder.rmdir()


PATIENCE = 40 * SLOWNESS


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
@pytest.mark.parametrize("name", NAMES)
def test_the_manager_hears_that_it_serves_and_that_it_stops(name, abstract, stack):
    with Manager(abstract) as manager, program(stack, name, passed=BOTH, NOTIFY_SOCKET=manager.address) as instance:
        assert manager.hear(PATIENCE) == "READY=1"
        assert instance.ask({}).status_code == 405
        assert manager.hear(1) is None, "nobody asked for a watchdog"
        instance.terminate()
        assert manager.hear(PATIENCE) == "STOPPING=1"
        assert instance.wait() == 0
        assert manager.drain() == []


def test_a_manager_that_is_gone_does_no_harm(stack):
    with program(stack, "ingest", passed=BOTH, NOTIFY_SOCKET="/nonexistent/notify") as instance:
        assert instance.ask({}).status_code == 405
        wait_for(lambda: "event=notify" in instance.errors.read_text(), "its complaint")


def test_a_manager_that_does_not_listen_keeps_nobody_from_stopping(stack):
    with Manager() as manager, program(stack, "query", passed=BOTH, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000") as instance:
        wait_for(lambda: "event=notify" in instance.errors.read_text(), "its queue to be full")
        instance.terminate()
        assert instance.wait() == 0


def test_the_watchdog_is_fed_while_workers_are_idle_or_progress(stack, monitor):
    with Manager() as manager, program(stack, "ingest", passed=BOTH, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000") as instance:
        assert manager.hear(PATIENCE) == "READY=1"
        assert [manager.hear(PATIENCE) for _ in range(3)] == ["WATCHDOG=1"] * 3
        wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
        manager.drain()
        assert [manager.hear(PATIENCE) for _ in range(3)] == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize("usec, pid", [("400000", "1"), ("0", None), ("x", None), ("", None), ("-400000", None), ("400000x", None)])
def test_a_watchdog_that_is_none_of_ours_is_not_fed(usec, pid, stack):
    given = {"WATCHDOG_USEC": usec} | ({"WATCHDOG_PID": pid} if pid else {})
    with Manager() as manager, program(stack, "query", passed=BOTH, NOTIFY_SOCKET=manager.address, **given):
        assert manager.hear(PATIENCE) == "READY=1"
        assert manager.hear(1) is None


def test_the_watchdog_starves_while_one_worker_hangs(stack, monitor):
    with Manager() as manager, program(stack, "ingest", passed=BOTH, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000",
                                       STEEP_WORKERS="4", STEEP_DEADLINE="2") as instance:
        assert manager.hear(PATIENCE) == "READY=1"
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        body = encode([monitor.event()])
        with begin(instance.path, ingest_params(body, monitor), body[:9], end_of_body=False):
            wait_for(lambda: manager.drain() is not None and "event=stuck" in instance.errors.read_text(), "it to notice", 30)
            manager.drain()
            assert manager.hear(2) is None
            # The others go on, and health is answered: it is for the manager to end this.
            assert instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400
            assert instance.ask_health("/healthz/ingest").status_code == 200
        assert manager.hear(PATIENCE) == "WATCHDOG=1"
        assert instance.errors.read_text().count("event=stuck") == 1


def test_while_it_finishes_what_it_has_it_is_well_but_not_ready_and_feeds_the_watchdog(stack, db, monitor):
    event = monitor.event()
    body = encode([event])
    with Manager() as manager, program(stack, "ingest", passed=BOTH, NOTIFY_SOCKET=manager.address,
                                       WATCHDOG_USEC="400000") as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        with contextlib.closing(locked(stack)) as lock, begin(instance.path, ingest_params(body, monitor), body) as sent:
            wait_for(lambda: waiting(db) == 1, "the insert to wait")
            instance.terminate()
            wait_for(lambda: "STOPPING=1" in manager.drain(), "it to stop")
            assert instance.ask_health("/readyz/ingest").status_code == 503
            assert instance.ask_health("/healthz/ingest").status_code == 200
            assert manager.hear(PATIENCE) == "WATCHDOG=1"
            lock.rollback()
            assert read_answer(sent).status_code == 200
        assert instance.wait() == 0
