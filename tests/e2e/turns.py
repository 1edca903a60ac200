"""Several processes share the files of a run: pytest -n 2 --dist each.

pytest-xdist gives every test to each of them. Each has an installation of its own, goes through the files in the same order,
and runs those that no other has begun. Tests with the mark `everywhere` look at what others left behind, and run in each.
"""

import contextlib
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from stack import alive, wait_for

# What takes more than half a minute begins first, so that no process is left with a long file at the end.
LONG = ["test_standby.py", "test_shards.py", "test_streams.py", "test_steepctl_status.py", "test_sources.py", "test_front_ends.py",
        "test_pgbouncer.py", "test_readiness.py", "test_retention.py", "test_steepctl.py"]

# pytest-xdist's name of this process; None in the one that starts the others, or is the only one.
WORKER = os.environ.get("PYTEST_XDIST_WORKER")

taken = {}


def is_first():
    return WORKER in (None, "gw0")


def folder():
    """What the processes share: which file has been begun, the pid of each, and what it leaves at its end."""
    return Path(os.environ["E2E_TURNS"])


def begin(config):
    if WORKER:
        (folder() / f"{WORKER}.pid").write_text(str(os.getpid()))
    elif config.getoption("dist", "no") not in ("no", "each"):
        # Each test would be given to one process, which runs it only if its file is that one's.
        raise pytest.UsageError("several processes need --dist each")
    else:
        os.environ["E2E_TURNS"] = tempfile.mkdtemp(prefix="steep-turns.")


def place(file):
    """Where a file comes in the order."""
    return LONG.index(file) if file in LONG else len(LONG)


def take(file):
    """Whether this process runs a file's tests."""
    if WORKER and file not in taken:
        taken[file] = False
        with contextlib.suppress(FileExistsError):
            (folder() / f"{file}.taken").touch(exist_ok=False)
            taken[file] = True
    return taken.get(file, True)


def running():
    """The pids of the other processes that have not ended."""
    pids = [int(path.read_text()) for path in folder().glob("*.pid")
            if path.stem != WORKER and not path.with_suffix(".json").exists()]
    return [pid for pid in pids if alive(pid)]


def end_others():
    """After a signal, pytest-xdist would kill the others before they have stopped what they started."""
    if not WORKER:
        for pid in running():
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not running(), "the processes to end", 60)


def end(left):
    """Leave something to the others, after this process has stopped what it started."""
    if WORKER:
        written = folder() / f"{WORKER}.new"
        written.write_text(json.dumps(left))
        written.rename(folder() / f"{WORKER}.json")
    else:
        shutil.rmtree(folder())


def left_elsewhere():
    """What each other process left, once all have ended. Two processes that call it would wait for each other."""
    wait_for(lambda: not running(), "the other processes to end", 1800, 0.5)
    return [json.loads(path.read_text()) for path in folder().glob("*.json")]
