"""Fixtures: an installation, a browser, and monitors that store events."""

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import time

import pytest

from browser import ChromiumPage, chromium
from firefox import FirefoxPage, firefox
from monitor import Monitor
from stack import free_port, reachable_folder, started, wait_for

# From a package registry, for the tests only: downloaded for each run, with the checksum of the archive.
AXE = "axe-core@4.14.1", "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
# The last version for the Node.js of Debian 12 and 13.
PUPPETEER = "puppeteer-core@24.43.1", "b6853eba26fa6b686727cdad5d09a5765d231a6ca0f5b74ccb236713c696f400"


def pytest_configure():
    # tests/run stops a suite with SIGTERM; the fixtures must still clean up.
    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class Installation:
    """A stack that can be stopped while the page is open, and started again with the same state."""

    def __init__(self, folder):
        self.state = folder / "state"
        self.port = free_port()
        self.exit_stack = contextlib.ExitStack()
        self.start()
        # So that none leaves the last 7 or 30 days while a test looks at them.
        with self.stack.connect() as db:
            db.execute("DELETE FROM public.events WHERE timestamp < now() - interval '29 days'"
                       " OR timestamp BETWEEN now() - interval '7 days' AND now() - interval '6 days 20 hours'")

    def start(self):
        self.stack = self.exit_stack.enter_context(started(self.state, self.port))

    def stop(self):
        self.exit_stack.close()

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def configure(self, base_url="/", web_socket_url=""):
        """Replace page-config.conf, and reload nginx."""
        file = self.state / "nginx" / "snippets" / "steep" / "page-config.conf"
        file.write_text(f'set $steep_base_url "{base_url}";\nset $steep_web_socket_url "{web_socket_url}";\n')
        self.stack.reload_nginx()


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
    """Change the page's configuration until the end of the test."""
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
def chromium_driver(installation):
    with chromium(installation.stack.ca) as started_driver:
        yield started_driver


@pytest.fixture(scope="session")
def firefox_driver(installation, tmp_path_factory):
    with firefox(installation.stack.ca, download(*PUPPETEER, tmp_path_factory.mktemp("puppeteer"))) as started_driver:
        yield started_driver


def pytest_generate_tests(metafunc):
    if metafunc.definition.get_closest_marker("firefox"):
        metafunc.parametrize("browser", [ChromiumPage, FirefoxPage], ids=["chromium", "firefox"])


@pytest.fixture
def browser():
    """The kind of page of a test: in Chromium, and for a test marked with firefox in both browsers."""
    return ChromiumPage


@pytest.fixture(autouse=True)
def within_one_hour():
    """Wait if the hour is about to end: the test would look for its events in the wrong cell."""
    left = 3600 - time.time() % 3600
    if left < 15:
        time.sleep(left)


@pytest.fixture
def page(request, browser, installation):
    opened = browser(request.getfixturevalue(browser.driver_fixture), installation.url)
    yield opened
    errors = opened.console_errors()
    opened.reset()
    assert errors == []


@pytest.fixture
def blank_page(page):
    """Open a document of the page's origin that runs no script, unless an earlier test did."""
    if not page.run("return location.href.endsWith('/config.json')"):
        page.get(f"{page.url}/config.json")


@pytest.fixture(scope="session")
def send(installation):
    """Store events with these timestamps, in signed batches of a new monitor for each source."""
    monitors = {}

    def store(source, instants):
        stack = installation.stack
        with stack.client("127.0.1.40") as client:
            if source not in monitors:
                monitors[source] = Monitor(source)
                stack.steepctl("monitor", "add", source, monitors[source].public_base64)
                wait_for(lambda: monitors[source].post(client, "[]").status_code == 400, "the key to take effect")
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
    """The script of axe-core."""
    return (download(*AXE, tmp_path_factory.mktemp("axe")) / "axe.min.js").read_text()


def download(name, checksum, folder):
    """Unpack a package of npm's registry, and return its folder."""
    done = subprocess.run(["npm", "pack", "--loglevel=error", name], cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"cannot download {name}: {done.stderr}"
    archive = next(folder.glob("*.tgz"))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == checksum, f"the checksum of {name} is wrong"
    subprocess.run(["tar", "-xzf", archive], cwd=folder, check=True)
    return folder / "package"
