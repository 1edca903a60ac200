"""The packages, and a machine that they are installed on. The tests run in the order in which an operator
would meet things: the package, its installation, what runs, what goes wrong, the upgrade, the removal."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from machine import WITH_OLD_POSTGRESQL, Machine, Refused, build_packages, make_root, release, wait_for
from monitor import Monitor
from service import post, query

TOP = Path(__file__).resolve().parents[2]
ORDER = ["test_package", "test_setup", "test_setup_nginx_org", "test_setup_proxy", "test_setup_certbot", "test_sandbox",
         "test_services", "test_administration", "test_bad_input", "test_monitor", "test_postgresql_upgrade", "test_upgrade", "test_removal"]
collect_ignore = [] if release() in WITH_OLD_POSTGRESQL else ["test_postgresql_upgrade.py"]
NEXT_VERSION = "0.9.0"
NEXT_MIGRATION = "29990101_add_nothing.sql"


def pytest_configure():
    # tests/run ends a suite with SIGTERM; fixtures must still stop what they started.
    def leave(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem))


@pytest.fixture(scope="session")
def folder():
    """A folder that users other than root may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="steep-package."))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def packages(folder):
    """The folder of the packages under test."""
    return build_packages(TOP, folder / "packages")


@pytest.fixture(scope="session")
def package(packages):
    return next(packages.glob("steep_*.deb"))


@pytest.fixture(scope="session")
def monitor_package(packages):
    return next(packages.glob("steep-monitor_*.deb"))


class Background(threading.Thread):
    """A call in the background, whose result is fetched later."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self.call, self.value, self.error = (function, arguments), None, None
        self.start()

    def run(self):
        function, arguments = self.call
        try:
            self.value = function(*arguments)
        except BaseException as error:  # pylint: disable=broad-except
            self.error = error

    def result(self):
        self.join()
        if self.error:
            raise self.error
        return self.value


@pytest.fixture(scope="session")
def next_packages(folder, packages):
    """The same packages with a higher version and one more migration, built while other tests run."""
    def change(tree):
        (tree / "sql" / "migrations" / NEXT_MIGRATION).write_text(
            "COMMENT ON SCHEMA public IS 'migrated by the next version';\n")

    building = Background(build_packages, TOP, folder / "next", NEXT_VERSION, change)
    yield lambda: next(building.result().glob("steep_*.deb"))
    building.join()


@pytest.fixture(scope="session")
def machine(folder, package, monitor_package, next_packages):
    booted = Machine(make_root(folder / "machine", package, monitor_package))
    try:
        booted.boot()
    except Refused as why:
        pytest.skip(str(why))
    yield booted
    booted.stop()


@pytest.fixture(scope="session")
def monitor(machine):
    """A registered monitor. Only where setup has run."""
    made = Monitor("tester")
    machine.run("steepctl", "monitor", "add", made.source, made.public_base64)
    wait_for(lambda: post(machine, made, [])[0] == 400, "its key to be known")
    return made


@pytest.fixture(scope="session")
def token(machine):
    made = machine.run("steepctl", "token", "add", "tester").stdout.split()[-1]
    wait_for(lambda: "aggregates" in query(machine, made), "it to be known")
    return made


@pytest.fixture
def load(machine, monitor, token):
    """Senders and readers beside the test. Called, it stops them and says what became of their requests; before
    is what the database had before they began."""
    def stop():
        output, _ = process.communicate(timeout=120)
        return json.loads(output)

    stop.before = int(machine.sql("SELECT count(*) FROM events WHERE source = 'tester'"))
    process = subprocess.Popen(
        machine.network("env", f"PYTHONPATH={TOP}/tests/e2e", sys.executable, str(Path(__file__).parent / "load.py"),
                        str(machine.file("/etc/steep/tls/server.crt"))),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdin.write(f"{monitor.source}\n{bytes(monitor.key).hex()}\n{token}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "sending\n"
        yield stop
    finally:
        process.kill()
        process.wait()
