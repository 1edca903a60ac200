"""Pending events on disk: through kills, a full disk, a full spool and damage."""

import contextlib
import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from disk import empty_disk
from scripted import error, events_of, stored
from sender import PROGRAM
from stack import free_port, wait_for
from test_clock import library, unset_clock


@pytest.fixture
def nowhere(make_sender):
    """A sender whose server is not running, and the port to start it on."""
    port = free_port()
    return make_sender(f"https://127.0.0.1:{port}"), port


@pytest.fixture
def clock(tmp_path, library, nowhere):
    return unset_clock(tmp_path, library, nowhere[0])


def numbers(server):
    return [event["payload"]["number"] for request in list(server.requests) for event in events_of(request)]


class Feeder(threading.Thread):
    """Writes to standard input until that is closed."""

    def __init__(self, sender, lines):
        super().__init__(daemon=True)
        self.process, self.lines, self.fed = sender.process, lines, 0

    def run(self):
        with contextlib.suppress(BrokenPipeError, ValueError):
            for line in self.lines:
                self.process.stdin.write(f"{line}\n".encode())
                self.process.stdin.flush()
                self.fed += 1


def test_accepted_events_survive_a_kill(serve, nowhere):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(2500))
    wait_for(lambda: sender.pending() == 2500, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    assert sender.pending() == 2500
    server = serve(port=port)
    sender.start()
    wait_for(lambda: len(numbers(server)) >= 2500, "all of them")
    assert sorted(numbers(server)) == list(range(1, 2501))


def leave(sender, count):
    """A database as a kill leaves it, with its journal."""
    sender.start()
    sender.feed(*sender.lines(count))
    wait_for(lambda: sender.pending() == count, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    return sender.state / "spool.db-wal"


@pytest.mark.parametrize("cut", [1, 2, 5, 40, 1000, 4000, 20_000])
def test_a_journal_cut_short_loses_its_last_commit_alone(serve, nowhere, cut):
    """A disk that lies about a sync leaves this."""
    sender, port = nowhere
    sender.start()
    for count in range(1, 4):
        sender.feed(*sender.lines(40))
        wait_for(lambda: sender.pending() == 40 * count, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    journal = sender.state / "spool.db-wal"
    os.truncate(journal, journal.stat().st_size - cut)
    server = serve(port=port)
    sender.start()
    sender.feed(*sender.lines(1))
    wait_for(lambda: 121 in numbers(server), "the new event")
    came = numbers(server)
    assert came == sorted(set(came)) and set(range(1, 41)) <= set(came)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.35, 0.5, 0.77, 0.999])
def test_a_damaged_page_is_logged_and_the_rest_is_sent(serve, nowhere, place):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(500))
    wait_for(lambda: sender.pending() == 500, "the events to be in the spool")
    sender.end()
    data = bytearray(sender.database.read_bytes())
    page = int(place * (len(data) // 4096 - 1)) * 4096
    data[page:page + 4096] = os.urandom(4096)
    sender.database.write_bytes(data)
    server = serve(port=port)
    sender.start()
    record = sender.wait_for("spool_damaged")
    assert "damaged" in record["detail"] and (sender.state / record["renamed"]).exists()
    sender.feed(*sender.lines(1))
    wait_for(lambda: 501 in numbers(server), "the new event")
    came = numbers(server)
    assert came == sorted(set(came))
    # A page of the schema or of the inner tree costs all, a page of events some.
    if page > 0 and len(came) > 1:
        recovered = sender.log("spool_recovered")[-1]
        assert len(came) == int(recovered["events"]) + 1 >= 450
    assert place < 0.1 or len(came) > 1


def test_a_spool_of_random_bytes_is_logged_and_new_events_are_sent(serve, nowhere):
    sender, port = nowhere
    leave(sender, 20).unlink()
    sender.database.write_bytes(os.urandom(100_000))
    server = serve(port=port)
    sender.start()
    sender.wait_for("spool_damaged")
    sender.feed(*sender.lines(1))
    wait_for(lambda: numbers(server) == [21], "the new event")


@pytest.mark.parametrize("damage", ["empty", "noise", "missing"])
def test_a_lost_index_of_the_journal_loses_nothing(serve, nowhere, damage):
    sender, port = nowhere
    index = leave(sender, 20).with_name("spool.db-shm")
    if damage == "missing":
        index.unlink()
    else:
        index.write_bytes(b"" if damage == "empty" else os.urandom(32768))
    server = serve(port=port)
    sender.start()
    wait_for(lambda: numbers(server) == list(range(1, 21)), "every event")


def test_a_list_that_nobody_reads_does_not_stop_recovery(serve, nowhere):
    sender, port = nowhere
    sender.start()
    sender.feed(*["x" * 1000] * 400, *sender.lines(50))
    wait_for(lambda: sender.pending() == 50, "the lines to be taken")
    sender.end()
    command = subprocess.Popen([str(PROGRAM), "rejected", "list"], env=sender.environment, stdout=subprocess.PIPE)
    try:
        assert command.stdout.read(1) == b"{"
        with open(sender.state / "spool.db", "r+b") as file:
            file.write(bytes(4096))
        serve(port=port)
        sender.start()
        assert sender.log("spool_damaged")
        wait_for(lambda: sender.counted("sent") == 50, "the events to be sent")
    finally:
        command.kill()
        command.wait()


def test_a_database_of_a_newer_version_is_refused_with_a_message(nowhere):
    sender, _ = nowhere
    sender.start()
    sender.end()
    with contextlib.closing(sqlite3.connect(sender.database)) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute(f"PRAGMA application_id = {0x73740000 + 99}")
    before = sender.database.read_bytes()
    done = sender.run()
    assert done.returncode == 1 and "newer version" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sender.database.read_bytes() == before


def test_a_full_spool_drops_the_oldest_events_and_logs_how_many(serve, nowhere):
    sender, port = nowhere
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(12_000))
    wait_for(lambda: sender.log("spool_dropped"), "a loss to be logged")

    def settled():
        dropped = sum(int(record["events"]) for record in sender.log("spool_dropped"))
        return dropped + sender.pending() >= 12_000 and dropped

    dropped = wait_for(settled, "every event to be accounted for")
    assert dropped + sender.pending() <= 13_000
    assert sender.held() <= 1.3 * (1 << 20)
    # It doesn't drop half of its events at once.
    assert sender.pending() >= 1500
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: sender.pending() == 0, "the rest to be sent", 60)
    came = numbers(server)
    # Dropped events that were already being sent may arrive all the same.
    assert came[-1] == 12_000 and came == sorted(set(came)) and 12_000 - dropped <= len(came) <= 13_000 - dropped


def test_dropped_events_are_logged_even_if_it_ends_meanwhile(nowhere):
    """A batch that is being sent is only in memory once it was dropped."""
    sender, _ = nowhere
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(12_000))
    wait_for(lambda: sender.log("spool_dropped"), "a loss to be logged")
    wait_for(lambda: sum(int(record["events"]) for record in sender.log("spool_dropped")) + sender.pending() >= 11_000, "the rest")
    assert sender.end() == 0
    dropped = sum(int(record["events"]) for record in sender.log("spool_dropped"))
    assert dropped + sender.pending() >= 12_000


def test_a_full_spool_with_block_pauses_the_input(serve, nowhere):
    sender, port = nowhere
    sender.start("--spool-size", "1", "--block")
    feeder = Feeder(sender, sender.lines(12_000))
    feeder.start()

    def is_paused():
        before = feeder.fed
        time.sleep(0.5)
        return 0 < feeder.fed == before

    wait_for(is_paused, "the input to pause")
    assert feeder.is_alive() and feeder.fed < 12_000
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: len(numbers(server)) >= 12_000, "all of them", 60)
    assert numbers(server) == list(range(1, 12_001))
    assert not sender.log("spool_dropped") and not sender.rejected()


def test_a_paused_process_ends_in_time_and_loses_nothing_of_a_file(serve, nowhere, tmp_path):
    sender, port = nowhere
    file = tmp_path / "events.ndjson"
    file.write_text("".join(f"{line}\n" for line in sender.lines(12_000)))
    sender.start("--spool-size", "1", "--block", file)
    wait_for(lambda: sender.pending() > 1500, "a full spool")
    assert sender.end(seconds=7) == 0
    server = serve(port=port)
    sender.start("--spool-size", "1", "--block", file)
    wait_for(lambda: len(numbers(server)) >= 12_000, "all of them", 60)
    assert numbers(server) == list(range(1, 12_001))


def test_a_smaller_spool_size_takes_effect_after_a_restart(nowhere):
    sender, _ = nowhere
    sender.start("--spool-size", "8")
    sender.feed(*sender.lines(12_000))
    wait_for(lambda: sender.pending() == 12_000, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(100))
    wait_for(lambda: sender.held() <= 1.3 * (1 << 20), "the spool to be small")
    wait_for(lambda: sum(int(record["events"]) for record in sender.log("spool_dropped")) + sender.pending() >= 12_100,
             "the loss to be logged")


def test_sent_events_take_no_space(server, sender):
    sender.start("--spool-size", "1", "--block")
    for _ in range(5):
        sender.feed(*sender.lines(3000))
        sender.wait_until_settled(sender.numbers, 60)
    assert sender.held() < 1 << 19


def test_memory_stays_small_however_many_events_are_pending(nowhere):
    sender, _ = nowhere
    sender.start()
    line = json.dumps(sender.event(payload={"text": "x" * 3000})).encode() + b"\n"
    bare = re.sub(rb'"id": "[^"]*", ', b"", line)
    for _ in range(10):
        sender.feed(bare * 1000)
    wait_for(lambda: sender.pending() == 10_000, "the events to be in the spool", 60)
    assert sender.peak_mib() < 24


# With a disk of its own.

@pytest.fixture
def disk(nowhere):
    """The sender's state folder on a small disk of its own."""
    sender, _ = nowhere
    key = (sender.state / "key.priv").read_bytes()
    with empty_disk(sender.state, 1 << 20) as made:
        (made.seen / "key.priv").write_bytes(key)
        (made.seen / "key.priv").chmod(0o600)
        sender.state_outside, sender.state = sender.state, made.seen
        sender.prefix = made.prefix
        yield made
        sender.kill()


@pytest.mark.mounts
@pytest.mark.parametrize("source", ["stdin", "file"])
def test_a_full_disk_loses_no_accepted_event_and_is_logged(serve, nowhere, disk, tmp_path, source):
    sender, port = nowhere
    lines = sender.lines(8000)
    began = time.monotonic()
    file = tmp_path / "events.ndjson"
    if source == "file":
        file.write_text("".join(f"{line}\n" for line in lines))
        sender.start(file, prefix=disk.prefix)
    else:
        sender.start(prefix=disk.prefix)
        Feeder(sender, lines).start()
    full = wait_for(lambda: [r for r in sender.log() if "No space" in str(r)], "the full disk to be logged")
    assert full[-1]["level"] in ("warning", "error")
    time.sleep(2)
    # Once a second at most, or the log fills another disk.
    assert len([r for r in sender.log() if "No space" in str(r)]) <= 4 + time.monotonic() - began
    accepted = sender.pending()
    assert accepted > 0
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: len(set(numbers(server))) >= accepted, "accepted events to be sent", 40)
    disk.make_room(64 << 20)
    wait_for(lambda: len(set(numbers(server))) >= 8000, "everything else", 60)
    assert sorted(set(numbers(server))) == list(range(1, 8001))
    assert not sender.log("spool_dropped") and not sender.rejected()
    assert sender.process.poll() is None


@pytest.mark.mounts
@pytest.mark.parametrize("mib", [1, 2, 4])
@pytest.mark.parametrize("source", ["stdin", "file"])
def test_a_backlog_that_the_disk_has_no_room_for_is_sent_bit_by_bit(serve, nowhere, disk, tmp_path, source, mib):
    """It is committed in parts; each has the position behind it, so a kill loses and doubles nothing."""
    sender, port = nowhere
    disk.make_room(mib << 20)
    lines = [json.dumps({"type": "tool", "payload": {"number": number, "text": "x" * 200}}) for number in range(1, 12_001)]
    file = tmp_path / "events.ndjson"
    file.write_text("".join(f"{line}\n" for line in lines))
    committed = 0
    for _ in range(3 if source == "file" else 0):
        sender.start(file, prefix=disk.prefix)
        wait_for(lambda: sender.log("input_paused"), "a disk without room for the rest")
        assert sender.pending() >= max(committed, 100)
        committed = sender.pending()
        sender.end(signal.SIGKILL)
    server = serve(port=port)
    if source == "file":
        sender.start(file, prefix=disk.prefix)
    else:
        sender.start(prefix=disk.prefix)
        Feeder(sender, lines).start()
    wait_for(lambda: len(numbers(server)) >= 12_000 and sender.pending() == 0, "every line", 60)
    assert sorted(numbers(server)) == list(range(1, 12_001))
    assert sender.log("input_paused") and not sender.log("spool_error") and not sender.log("spool_dropped")


@pytest.mark.mounts
def test_the_end_of_the_input_is_not_held_up_by_a_full_disk(serve, nowhere, disk):
    """The answer can't be committed, so the events are sent again after the next start."""
    sender, port = nowhere

    def answer(exchange):
        disk.fill()
        return stored(exchange)

    server = serve(port=port, always=answer)
    sender.start(prefix=disk.prefix, STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(200))
    wait_for(lambda: sender.pending() == 200, "the events to be in the spool")
    sender.process.stdin.close()
    assert sender.end(None) == 0
    assert len(server.requests) == 1 and sender.pending() == 200 and sender.log("spool_error")
    disk.make_room()
    server.always = stored
    sender.start(prefix=disk.prefix)
    wait_for(lambda: sender.counted("sent") == 200, "the events to be sent again")
    assert numbers(server) == [*range(1, 201)] * 2


@pytest.mark.mounts
@pytest.mark.parametrize("mib", [8, 20, 30])
def test_a_small_disk_never_stays_full(serve, nowhere, disk, tmp_path, mib):
    """The journal alone may grow to 16 MiB, and what is free within the database counts."""
    sender, port = nowhere
    disk.make_room(mib << 20)
    file = tmp_path / "events.ndjson"
    with open(file, "w", encoding="ascii") as opened:
        for number in range(1, 60_001):
            opened.write('{"type":"tool","payload":{"number":%d,"text":"%s"}}\n' % (number, "x" * 200))
    server = serve(port=port, always=error(503, "unavailable", {"Retry-After": "1"}))
    sender.start(file, prefix=disk.prefix)

    def is_waiting():
        return sender.log("input_paused") or sender.pending() == 60_000

    wait_for(is_waiting, "a full disk, or all lines in the spool", 40)
    wait_for(lambda: sender.pending() > 10_000, "many lines in the spool")
    server.always = stored
    server.requests.clear()
    sender.send_now()
    # By its log: while someone reads the database, even for the status, the disk may fill up.
    wait_for(lambda: sum(int(record["events"]) for record in sender.log("batch", status=200)) >= 60_000, "all of them to be sent", 40)
    wait_for(lambda: sender.counted("sent") == 60_000 and sender.pending() == 0, "the last of them to be removed")
    assert set(numbers(server)) == set(range(1, 60_001))
    assert not sender.log("spool_error") and not sender.log("spool_dropped") and not sender.rejected()


READER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("BEGIN")
print(*database.execute("SELECT sent FROM totals").fetchone(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def reading(sender, disk):
    """Someone who reads the database until the end of the block."""
    with subprocess.Popen([*disk.prefix, sys.executable, "-c", READER, str(sender.state_outside / "spool.db")],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"0\n"
        yield
        reader.stdin.close()
        assert reader.wait() == 0


@pytest.mark.mounts
def test_a_disk_that_filled_up_while_someone_read_the_database_empties_behind_the_reader(serve, nowhere, disk, tmp_path):
    """Meanwhile all commits stay in the journal; copying it into the database takes no more room."""
    sender, port = nowhere
    disk.make_room(8 << 20)
    file = tmp_path / "events.ndjson"
    file.touch()
    sender.start(file, prefix=disk.prefix)
    with reading(sender, disk):
        file.write_text("".join(json.dumps({"type": "tool", "payload": {"number": number, "text": "x" * 200}}) + "\n"
                                for number in range(1, 20_001)))
        wait_for(lambda: sender.log("input_paused"), "a disk without room for the rest")
        server = serve(port=port)
        sender.send_now()
        wait_for(lambda: sender.log("spool_error"), "a disk without room to remove what was sent")
    wait_for(lambda: len(numbers(server)) >= 20_000 and sender.pending() == 0, "every line", 60)
    assert sorted(numbers(server)) == list(range(1, 20_001))
    assert not sender.log("spool_dropped") and not sender.rejected()


@pytest.mark.mounts
def test_the_end_of_a_stream_leaves_room_to_send_what_was_committed(serve, nowhere, disk):
    """The lines that a small disk has no room for are lost, which is logged."""
    sender, port = nowhere
    disk.make_room(7 << 18)
    sender.start(prefix=disk.prefix)
    sender.send_signal(signal.SIGSTOP)
    fcntl.fcntl(sender.process.stdin, fcntl.F_SETPIPE_SZ, 1 << 20)
    sender.feed(*[json.dumps({"type": "tool", "payload": {"number": number, "text": "x" * 200}}) for number in range(1, 3001)])
    sender.send_signal(signal.SIGTERM)
    assert sender.end(signal.SIGCONT) == 0
    committed = sender.pending()
    assert 0 < committed < 3000 and sender.log("input_lost")
    server = serve(port=port)
    sender.start(prefix=disk.prefix)
    wait_for(lambda: sender.pending() == 0, "what was committed to be sent")
    assert numbers(server) == list(range(1, committed + 1))


@pytest.mark.mounts
def test_a_disk_that_was_full_for_long_holds_up_no_event_once_it_has_room(serve, nowhere, disk, clock):
    """When the boot began is written before the first of its events is sent; the sender's tries don't become rarer."""
    sender, port = nowhere
    server = serve(port=port)
    sender.start(prefix=disk.prefix)
    sender.feed('{"type":"tool","payload":{"number":1}}')
    wait_for(lambda: sender.pending() == 1, "the event to be in the spool")
    disk.fill()
    clock.set()

    def is_full():
        disk.fill()  # what the journal took
        return len(sender.log("spool_error")) >= 8

    wait_for(is_full, "some tries", 30)
    assert not server.requests
    disk.make_room()
    server.wait_for_events(1)


@pytest.mark.mounts
def test_a_full_disk_at_the_start_is_logged(serve, nowhere, disk):
    sender, port = nowhere
    (disk.seen / "ballast").write_bytes(bytes(600_000))
    disk.fill()
    done = sender.run_with(disk.prefix)
    if done is None:  # it runs, and waits for room
        wait_for(lambda: [r for r in sender.log() if "No space" in str(r)], "the full disk to be logged")
        sender.feed(*sender.lines(1))
        disk.make_room()
        serve(port=port).wait_for_events(1)
    else:
        assert done == 1 and "No space" in sender.stderr.read_text()


@pytest.mark.mounts
def test_kills_on_a_full_disk_lose_nothing_of_a_file(serve, nowhere, disk, tmp_path):
    sender, port = nowhere
    file = tmp_path / "events.ndjson"
    file.write_text("".join(f"{line}\n" for line in sender.lines(6000)))
    for _ in range(4):
        sender.start(file, prefix=disk.prefix)
        wait_for(lambda: [r for r in sender.log() if "No space" in str(r)], "the full disk to be logged")
        sender.end(signal.SIGKILL)
    server = serve(port=port)
    disk.make_room(64 << 20)
    sender.start(file, prefix=disk.prefix)
    wait_for(lambda: len(set(numbers(server))) >= 6000, "all of them", 60)
    assert sorted(numbers(server)) == list(range(1, 6001))


@pytest.mark.mounts
def test_a_read_only_folder_is_refused_with_a_message(nowhere, disk):
    sender, _ = nowhere
    disk.mount("-o", "remount,ro")
    assert sender.run_with(disk.prefix) == 1
    log = sender.stderr.read_text()
    assert "Read-only" in log and len(log) < 2000


def test_the_spool_stays_within_its_size_while_the_server_is_unavailable(server, sender):
    server.always = error(503, "unavailable", {"Retry-After": "3600"})
    sender.start("--spool-size", "1")
    for _ in range(10):
        sender.feed(*sender.lines(2000))
    wait_for(lambda: sender.log("spool_dropped"), "a loss to be logged")
    assert sender.held() <= 1.3 * (1 << 20)
    assert len(server.requests) <= 3
