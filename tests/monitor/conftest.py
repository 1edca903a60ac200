"""A scripted server, and a steep-monitor that sends to it."""

import contextlib
import os
import signal

import pytest

import disk
from certificates import Certificates, server_context
from monitor import Monitor
from scripted import ScriptedServer
from sender import Sender
from stack import Stack, running
from wire import MARKER


def pytest_configure():
    # tests/run ends a suite with SIGTERM; fixtures must still end what they started.
    def leave(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not disk.mounting():
        items[:] = [item for item in items if item.get_closest_marker("mounts") is None]


def pytest_terminal_summary(terminalreporter):
    if not disk.mounting():
        terminalreporter.write_line("LEFT OUT, and not among the results: full and read-only disks (this user may mount nothing)")


@pytest.fixture(scope="session")
def stack():
    """The installation that tests/run started, or else one for this session."""
    if "STEEP_URL" in os.environ and "STEEP_STATE" in os.environ:
        names = [n for n in os.environ if n.startswith(("STEEP_", "PG"))]
        yield Stack(os.environ["STEEP_STATE"], {name: os.environ[name] for name in names})
        return
    with running("monitor") as found:
        yield found


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="session")
def identity():
    return Monitor("probe")


@pytest.fixture
def serve(certificates, identity):
    """Start a server, by default with a valid certificate on any free port."""
    with contextlib.ExitStack() as opened:
        def start(certificate=None, **more):
            server = ScriptedServer(server_context(*(certificate or certificates.good)), identity, **more)
            opened.callback(server.close)
            servers.append(server)
            return server

        servers = []
        yield start
    assert not [error for server in servers for error in server.errors]


@pytest.fixture
def server(serve):
    return serve()


@pytest.fixture
def make_sender(tmp_path, identity, certificates):
    """A sender with its own folder and a key; its log is checked at the end."""
    with contextlib.ExitStack() as opened:
        def make(url, name="sender"):
            folder = tmp_path / name
            folder.mkdir()
            sender = Sender(folder, identity, url, certificates.authority)
            senders.append(sender)
            opened.callback(sender.kill)
            return sender

        senders = []
        yield make
    for sender in senders:
        check_log(sender)


def check_log(sender):
    """Whatever happened: every line has our format, and none quotes a payload."""
    sender.process = None
    text = sender.stderr.read_text(errors="replace")
    assert MARKER not in text, "the log has a payload"
    for record in sender.log():
        assert {"time", "level", "event"} <= set(record), record


@pytest.fixture
def sender(server, make_sender):
    return make_sender(server.url)
