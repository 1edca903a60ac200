"""A state folder or an input that can't be used: one clear sentence, and nothing lost that was taken."""

import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from scripted import error, events_of, stored
from stack import wait_for

LOCKLESS = """
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

static int control(int file, int command, void *value)
{
    if (command == F_OFD_SETLK || command == F_SETLK) {
        errno = ENOLCK;
        return -1;
    }
    return (int)syscall(SYS_fcntl, file, command, value);
}

int fcntl(int file, int command, ...)
{
    va_list more;
    va_start(more, command);
    return control(file, command, va_arg(more, void *));
}

int fcntl64(int file, int command, ...)
{
    va_list more;
    va_start(more, command);
    return control(file, command, va_arg(more, void *));
}
"""


def refused(done, words):
    """It ended with one line that has these words."""
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1 and words in lines[0], done
    return lines[0]


def test_a_file_system_without_locks_is_refused(sender, tmp_path):
    (tmp_path / "lockless.c").write_text(LOCKLESS)
    library = tmp_path / "lockless.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library, tmp_path / "lockless.c"], check=True)
    done = sender.run(LD_PRELOAD=str(library), ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=0")
    refused(done, "has no locks")
    assert not sender.database.exists()


@pytest.mark.parametrize("what", ["folder", "database"])
def test_without_permission_it_is_refused(server, sender, tmp_path, what):
    sender.start()
    sender.feed(*sender.lines(1))
    server.wait_for_events(1)
    sender.end()
    key = tmp_path / "key.priv"
    key.write_bytes((sender.state / "key.priv").read_bytes())
    key.chmod(0o600)
    if os.geteuid() == 0:
        # Root may do everything, so it becomes another user.
        os.chown(key, 65534, 65534)
        place = tmp_path
        while place not in (place.parent, Path("/tmp")):
            place.chmod(0o755)
            place = place.parent
        if what == "database":
            os.chown(sender.state, 65534, 65534)
            os.chown(sender.state / "lock", 65534, 65534)
        sender.prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    (sender.state if what == "folder" else sender.database).chmod(0o555)
    refused(sender.run("--key", key, STEEP_CA=None), "Permission denied" if what == "folder" else "spool.db")
    sender.prefix = ()
    sender.state.chmod(0o700)


def test_two_senders_on_one_folder_lose_nothing(server, sender):
    sender.start()
    for _ in range(3):
        refused(sender.run(), "another steep-monitor is using this state folder")
        sender.feed(*sender.lines(1))
    server.wait_for_events(3)


@pytest.mark.parametrize("line", [b"x" * (10 << 20), b"\0" * (10 << 20), b'{"type":' * 100_000], ids=["10 MB", "NULs", "nested"])
@pytest.mark.parametrize("source", ["stdin", "file"])
def test_a_line_without_an_end_takes_no_memory_and_is_rejected_once_it_ends(server, sender, tmp_path, line, source):
    file = tmp_path / "events.ndjson"
    first, second = sender.lines(2)
    if source == "file":
        file.write_bytes(first.encode() + b"\n" + line)
        sender.start(file)
    else:
        sender.start()
        sender.feed(first, line)
    wait_for(lambda: sender.counted("sent") == 1, "the first line to be sent")
    assert not sender.rejected()
    if source == "file":
        # Meanwhile it is killed.
        sender.end(signal.SIGKILL)
        sender.start(file)
        with open(file, "ab") as opened:
            opened.write(b"\n" + second.encode() + b"\n")
    else:
        sender.feed(b"\n", second)
    server.wait_for_events(2)
    wait_for(lambda: len(sender.rejected()) == 1, "the line to be rejected")
    assert sender.rejected()[0]["line"] == 2
    assert sorted(event["payload"]["number"] for request in server.requests for event in events_of(request)) == [1, 2]
    assert sender.peak_mib() < 24


def test_a_failed_commit_stops_the_sender_and_is_reported(server, sender, tmp_path):
    """Another process holds the database's write lock, as a command does for a moment."""
    server.always = error(503, "unavailable", {"Retry-After": "1"})
    sender.start()
    sender.feed(*sender.lines(3))
    sender.wait_for("batch", status=503)
    holder = sqlite3.connect(sender.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    server.always = stored
    sender.send_now()
    sender.wait_for("spool_error", 40)
    count = len(server.requests)
    sender.feed(*sender.lines(1))
    assert sender.wait_for("input_paused", 40)["detail"]
    assert len(server.requests) == count
    holder.execute("ROLLBACK")
    holder.close()
    server.wait_for_events(4, 60)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending", 60)
    sent = [event["payload"]["number"] for request in server.requests[count - 1:] for event in events_of(request)]
    assert sent == [1, 2, 3, 4] and sender.counted("sent") == 4
