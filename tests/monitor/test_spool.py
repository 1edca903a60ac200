"""Pending events on disk: through kills, a full disk, a full spool and damage."""

import contextlib
import json
import os
import re
import signal
import threading
import time

import pytest

from disk import empty_disk
from scripted import error, events_of
from stack import free_port, wait_for


@pytest.fixture
def nowhere(make_sender):
    """A sender whose server is not running, and the port to start it on."""
    port = free_port()
    return make_sender(f"https://127.0.0.1:{port}"), port


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


def segments(sender):
    """The files of the spool that hold events, oldest first."""
    return sorted(path for path in (sender.state / "spool").iterdir() if path.stat().st_size > 100 and "cursor" not in path.name)


@pytest.mark.parametrize("cut", [1, 2, 5, 40, 100, 200, 250])
def test_an_incomplete_last_record_is_removed_and_logged(serve, nowhere, cut):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(10))
    wait_for(lambda: sender.pending() == 10, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    newest = segments(sender)[-1]
    os.truncate(newest, newest.stat().st_size - cut)
    server = serve(port=port)
    sender.start()
    record = sender.wait_for("spool_recovered")
    assert record["segment"] and (record.get("bytes") or record.get("records"))
    sender.feed(*sender.lines(1))
    wait_for(lambda: 11 in numbers(server), "the new event")
    came = numbers(server)
    assert came == sorted(set(came)) and set(range(1, 9)) <= set(came) and len(came) <= 10


@pytest.mark.parametrize("place", [0.0, 0.1, 0.35, 0.5, 0.77, 0.999])
def test_a_flipped_byte_loses_one_record_and_is_logged(serve, nowhere, place):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(20))
    wait_for(lambda: sender.pending() == 20, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    newest = segments(sender)[-1]
    data = bytearray(newest.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    newest.write_bytes(data)
    server = serve(port=port)
    sender.start()
    sender.wait_for("spool_recovered")
    sender.feed(*sender.lines(1))
    wait_for(lambda: 21 in numbers(server), "the new event")
    came = numbers(server)
    assert came == sorted(set(came)) and len(came) >= 20, came


def test_a_spool_of_random_bytes_is_logged_and_new_events_are_sent(serve, nowhere):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(20))
    wait_for(lambda: sender.pending() == 20, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    newest = segments(sender)[-1]
    newest.write_bytes(os.urandom(newest.stat().st_size))
    server = serve(port=port)
    sender.start()
    sender.wait_for("spool_recovered")
    sender.feed(*sender.lines(1))
    wait_for(lambda: numbers(server) == [21], "the new event")


@pytest.mark.parametrize("damage", ["empty", "noise", "missing"])
def test_a_lost_cursor_only_causes_duplicates(serve, nowhere, damage):
    """Sending events again is harmless, as they keep their ids."""
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(20))
    wait_for(lambda: sender.pending() == 20, "the events to be in the spool")
    sender.end(signal.SIGKILL)
    for path in (sender.state / "spool").glob("*cursor*"):
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"" if damage == "empty" else os.urandom(64))
    server = serve(port=port)
    sender.start()
    wait_for(lambda: set(numbers(server)) == set(range(1, 21)), "every event")


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
    held = sum(path.stat().st_size for path in (sender.state / "spool").iterdir())
    assert held <= 1.3 * (1 << 20)
    # It doesn't drop half of its events at once.
    assert sender.pending() >= 1500
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: sender.pending() == 0, "the rest to be sent", 60)
    came = numbers(server)
    # Dropped events that were already being sent may arrive all the same.
    assert came[-1] == 12_000 and came == sorted(set(came)) and 12_000 - dropped <= len(came) <= 13_000 - dropped


def test_dropped_events_are_logged_even_if_it_ends_meanwhile(nowhere):
    """A batch that is being sent is only in memory once its segment was dropped."""
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
    wait_for(lambda: sum(path.stat().st_size for path in (sender.state / "spool").iterdir()) <= 1.3 * (1 << 20),
             "the spool to be small")
    wait_for(lambda: sum(int(record["events"]) for record in sender.log("spool_dropped")) + sender.pending() >= 12_100,
             "the loss to be logged")


def test_sent_events_take_no_space(server, sender):
    sender.start("--spool-size", "1", "--block")
    for _ in range(5):
        sender.feed(*sender.lines(3000))
        sender.wait_until_settled(sender.numbers, 60)
    # Only whole files are removed, of 256 KiB each.
    assert sum(path.stat().st_size for path in (sender.state / "spool").iterdir()) < 1 << 19


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
        yield made
        sender.kill()


@pytest.mark.mounts
@pytest.mark.parametrize("source", ["stdin", "file"])
def test_a_full_disk_loses_no_accepted_event_and_is_logged(serve, nowhere, disk, tmp_path, source):
    sender, port = nowhere
    lines = sender.lines(8000)
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
    assert len([r for r in sender.log() if "No space" in str(r)]) <= 6
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: len(set(numbers(server))) >= 1000, "accepted events to be sent", 40)
    disk.make_room(64 << 20)
    wait_for(lambda: len(set(numbers(server))) >= 8000, "everything else", 60)
    assert sorted(set(numbers(server))) == list(range(1, 8001))
    assert not sender.log("spool_dropped") and not sender.rejected()
    assert sender.process.poll() is None


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
    assert sum(path.stat().st_size for path in (sender.state / "spool").iterdir()) <= 1.3 * (1 << 20)
    assert len(server.requests) <= 3
