"""The stack under test, a browser, and monitors that put data where the tests look for it."""

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import tarfile
import time

import pytest

from browser import Page, chromium
from monitor import Monitor
from stack import free_port, reachable_folder, started, wait_for

# The one file that comes from a package registry: the tests alone need it, and it is never kept.
AXE = "axe-core@4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


def pytest_configure():
    # tests/run ends a suite with SIGTERM; fixtures must still put away what they started.
    def leave(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)


class Installation:
    """A stack that can be stopped beneath the page, and started again as it was."""

    def __init__(self, folder):
        self.state = folder / "state"
        self.port = free_port()
        self.held = contextlib.ExitStack()
        self.start()

    def start(self):
        self.stack = self.held.enter_context(started(self.state, self.port))

    def stop(self):
        self.held.close()

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def configure(self, base_url="/", web_socket_url=""):
        """Write the one file in which an operator says where the counts and the live events are."""
        file = self.state / "nginx" / "snippets" / "steep" / "page-config.conf"
        file.write_text(f'set $steep_base_url "{base_url}";\nset $steep_web_socket_url "{web_socket_url}";\n')
        master = self.stack.pid("nginx")
        old = workers(master)
        os.kill(master, signal.SIGHUP)
        # Until it is told to end, an old worker answers as well, and as before.
        wait_for(lambda: workers(master) and not workers(master) & old, "nginx to read its configuration")


def workers(master):
    """The processes that a process started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(master)], text=True, capture_output=True)
    return set(listed.stdout.split())


@pytest.fixture(scope="session")
def installation():
    folder = reachable_folder("browser")
    made = None
    try:
        made = Installation(folder)
        yield made
    finally:
        if made:
            made.stop()
        if not os.environ.get("SANITIZE"):
            subprocess.run(["rm", "-rf", str(folder)], check=False)


@pytest.fixture
def configure(installation):
    """Change what the page is told; it is as before after the test."""
    yield installation.configure
    installation.configure()


@pytest.fixture
def stack(installation):
    return installation.stack


@pytest.fixture
def token(stack):
    return stack.token


@pytest.fixture
def db(stack):
    with stack.connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def driver(installation):
    with chromium(installation.stack.ca) as started_driver:
        yield started_driver


@pytest.fixture(autouse=True)
def within_one_hour():
    """A test that begins in one hour and ends in the next would look for its events in the wrong cell."""
    left = 3600 - time.time() % 3600
    if left < 15:
        time.sleep(left)


@pytest.fixture
def page(driver, installation):
    opened = Page(driver, installation.url)
    driver.get_log("browser")
    yield opened
    complaints = opened.complaints()
    opened.reset()
    assert complaints == []


@pytest.fixture(scope="session")
def send(installation):
    """Store events of a source at these instants, by signed batches of a monitor of its own."""
    monitors = {}

    def store(source, instants):
        stack = installation.stack
        with stack.client("127.0.1.40") as client:
            if source not in monitors:
                monitors[source] = Monitor(source)
                stack.steepctl("monitor", "add", source, monitors[source].public_base64)
                wait_for(lambda: monitors[source].post(client, "[]").status_code == 400, "the key to be taken up")
            sender = monitors[source]
            for start in range(0, len(instants), 1000):
                batch = [sender.event(timestamp=instant.isoformat()) for instant in instants[start:start + 1000]]
                assert sender.post(client, batch).status_code == 200

    return store


@pytest.fixture
def fresh_source():
    return f"src-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """axe-core's script, fetched for this run."""
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"{AXE} can't be fetched, so nobody knows what it would find: {done.stderr}"
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        script = package.extractfile("package/axe.min.js").read()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256, f"what came as {AXE} is something else"
    return script.decode()
