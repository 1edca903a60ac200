"""kill -9 in the middle of a commit or a checkpoint of the database, and a disk that is full now and then."""

import contextlib
import signal
import subprocess
import time
from pathlib import Path

import pytest

from disk import empty_disk
from scripted import error, events_of, stored
from stack import SLOWNESS, wait_for
from test_follow import append, stored_numbers


@pytest.fixture(scope="session")
def killer(tmp_path_factory):
    made = tmp_path_factory.mktemp("killer") / "killer.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", made, Path(__file__).with_name("killer.c")], check=True)
    return made


# The database is written in checkpoints alone, its journal in commits; the first writes make them.
@pytest.mark.parametrize("name, places", [("spool.db", [3, 5, 20, 60, 150]), ("spool.db-wal", [2, 9, 40, 120, 500])])
def test_a_kill_in_the_middle_of_a_write_loses_and_doubles_nothing(server, sender, tmp_path, killer, name, places):
    """A small spool is copied from its journal every 64 KiB."""
    file = tmp_path / "events.ndjson"
    file.touch()
    server.always = error(503, "unavailable", {"Retry-After": "1"})
    killed = 0
    for place in places:
        append(file, *sender.lines(400))
        with contextlib.suppress(AssertionError):  # it may be killed before it has started
            sender.start("--spool-size", "1", "--block", file, LD_PRELOAD=str(killer), KILL_FILE=f"/{name}", KILL_AT=str(place),
                         ASAN_OPTIONS="verify_asan_link_order=0")
        deadline = time.monotonic() + 10 * SLOWNESS
        while sender.process.poll() is None and time.monotonic() < deadline:
            append(file, *sender.lines(40))
            time.sleep(0.1)
        killed += sender.process.poll() == -signal.SIGKILL
        sender.end(signal.SIGKILL)
    assert killed >= 3
    server.always = stored
    sender.start("--spool-size", "1", "--block", file)
    wait_for(lambda: len(stored_numbers(server)) >= sender.numbers, "every line", 60)
    assert sorted(stored_numbers(server)) == list(range(1, sender.numbers + 1))
    assert not sender.rejected() and not sender.log("spool_damaged") and not sender.log("spool_dropped")


@pytest.mark.mounts
def test_a_disk_that_is_full_now_and_then_loses_and_doubles_nothing(server, sender, tmp_path):
    file = tmp_path / "events.ndjson"
    file.touch()
    key = (sender.state / "key.priv").read_bytes()
    with empty_disk(sender.state, 4 << 20) as disk:
        (disk.seen / "key.priv").write_bytes(key)
        (disk.seen / "key.priv").chmod(0o600)
        sender.state, sender.prefix = disk.seen, disk.prefix
        sender.start(file, prefix=disk.prefix)
        for number in range(6):
            append(file, *sender.lines(1500))
            time.sleep(0.7)
            disk.fill()
            append(file, *sender.lines(500))
            time.sleep(1.5)
            if number % 2 == 0:
                sender.end(signal.SIGKILL)
                disk.make_room(4 << 20)
                sender.start(file, prefix=disk.prefix)
            else:
                disk.make_room(4 << 20)
        wait_for(lambda: len(stored_numbers(server)) >= sender.numbers, "every line", 15)
        assert sorted(stored_numbers(server)) == list(range(1, sender.numbers + 1))
        assert not sender.rejected() and not sender.log("spool_damaged") and not sender.log("spool_dropped")
        # While it runs, the same events are not sent again either.
        assert len([e for r in server.requests for e in events_of(r)]) <= sender.numbers + 3 * 1000
        sender.kill()
