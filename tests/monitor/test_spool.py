"""What waits on disk: through kills, a full disk, a full spool and damage."""

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
    """A sender whose server is not there yet; and how to put it there."""
    port = free_port()
    return make_sender(f"https://127.0.0.1:{port}"), port


def numbers(server):
    return [event["payload"]["number"] for request in list(server.requests) for event in events_of(request)]


class Feeder(threading.Thread):
    """Writes to standard input as far as that takes it."""

    def __init__(self, sender, lines):
        super().__init__(daemon=True)
        self.process, self.lines, self.fed = sender.process, lines, 0

    def run(self):
        with contextlib.suppress(BrokenPipeError, ValueError):
            for line in self.lines:
                self.process.stdin.write(f"{line}\n".encode())
                self.process.stdin.flush()
                self.fed += 1


def test_what_was_accepted_is_still_there_after_a_kill(serve, nowhere):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(2500))
    wait_for(lambda: sender.waiting() == 2500, "the spool to have them")
    sender.end(signal.SIGKILL)
    assert sender.waiting() == 2500
    server = serve(port=port)
    sender.start()
    wait_for(lambda: len(numbers(server)) >= 2500, "all of them")
    assert sorted(numbers(server)) == list(range(1, 2501))


def segments(sender):
    """The files of the spool that hold events, the oldest first."""
    return sorted(path for path in (sender.state / "spool").iterdir() if path.stat().st_size > 100 and "cursor" not in path.name)


@pytest.mark.parametrize("cut", [1, 2, 5, 40, 100, 200, 250])
def test_a_torn_last_record_is_cut_off_and_said(serve, nowhere, cut):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(10))
    wait_for(lambda: sender.waiting() == 10, "the spool to have them")
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
def test_a_flipped_byte_costs_one_record_and_says_so(serve, nowhere, place):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(20))
    wait_for(lambda: sender.waiting() == 20, "the spool to have them")
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


def test_a_spool_of_noise_is_said_and_stops_nobody(serve, nowhere):
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(20))
    wait_for(lambda: sender.waiting() == 20, "the spool to have them")
    sender.end(signal.SIGKILL)
    newest = segments(sender)[-1]
    newest.write_bytes(os.urandom(newest.stat().st_size))
    server = serve(port=port)
    sender.start()
    sender.wait_for("spool_recovered")
    sender.feed(*sender.lines(1))
    wait_for(lambda: numbers(server) == [21], "the new event")


@pytest.mark.parametrize("damage", ["empty", "noise", "missing"])
def test_a_cursor_that_is_lost_costs_nothing_but_duplicates(serve, nowhere, damage):
    """The ids make sending again harmless; losing events is not."""
    sender, port = nowhere
    sender.start()
    sender.feed(*sender.lines(20))
    wait_for(lambda: sender.waiting() == 20, "the spool to have them")
    sender.end(signal.SIGKILL)
    for path in (sender.state / "spool").glob("*cursor*"):
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"" if damage == "empty" else os.urandom(64))
    server = serve(port=port)
    sender.start()
    wait_for(lambda: set(numbers(server)) == set(range(1, 21)), "every event")


def test_a_full_spool_drops_the_oldest_and_says_how_many(serve, nowhere):
    sender, port = nowhere
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(12_000))
    wait_for(lambda: sender.log("spool_dropped"), "a loss to be reported")

    def settled():
        dropped = sum(int(record["events"]) for record in sender.log("spool_dropped"))
        return dropped + sender.waiting() >= 12_000 and dropped

    dropped = wait_for(settled, "the sum to be right")
    assert dropped + sender.waiting() <= 13_000
    held = sum(path.stat().st_size for path in (sender.state / "spool").iterdir())
    assert held <= 1.3 * (1 << 20)
    # A spool that throws half of itself away at once is not what was asked for.
    assert sender.waiting() >= 1500
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: sender.waiting() == 0, "the rest to be sent", 60)
    came = numbers(server)
    # What was on its way when its place was given up may arrive all the same.
    assert came[-1] == 12_000 and came == sorted(set(came)) and 12_000 - dropped <= len(came) <= 13_000 - dropped


def test_what_a_full_spool_lost_is_reported_also_when_it_ends_meanwhile(nowhere):
    """A batch under way is in memory alone once its segment was dropped."""
    sender, _ = nowhere
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(12_000))
    wait_for(lambda: sender.log("spool_dropped"), "a loss to be reported")
    wait_for(lambda: sum(int(record["events"]) for record in sender.log("spool_dropped")) + sender.waiting() >= 11_000, "the rest")
    assert sender.end() == 0
    dropped = sum(int(record["events"]) for record in sender.log("spool_dropped"))
    assert dropped + sender.waiting() >= 12_000


def test_a_full_spool_with_block_makes_input_wait(serve, nowhere):
    sender, port = nowhere
    sender.start("--spool-size", "1", "--block")
    feeder = Feeder(sender, sender.lines(12_000))
    feeder.start()

    def stands():
        before = feeder.fed
        time.sleep(0.5)
        return 0 < feeder.fed == before

    wait_for(stands, "the input to stand still")
    assert feeder.is_alive() and feeder.fed < 12_000
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: len(numbers(server)) >= 12_000, "all of them", 60)
    assert numbers(server) == list(range(1, 12_001))
    assert not sender.log("spool_dropped") and not sender.set_aside()


def test_a_blocked_process_ends_in_time_and_loses_nothing_of_a_file(serve, nowhere, tmp_path):
    sender, port = nowhere
    file = tmp_path / "events.ndjson"
    file.write_text("".join(f"{line}\n" for line in sender.lines(12_000)))
    sender.start("--spool-size", "1", "--block", file)
    wait_for(lambda: sender.waiting() > 1500, "a full spool")
    assert sender.end(seconds=7) == 0
    server = serve(port=port)
    sender.start("--spool-size", "1", "--block", file)
    wait_for(lambda: len(numbers(server)) >= 12_000, "all of them", 60)
    assert numbers(server) == list(range(1, 12_001))


def test_a_spool_that_is_made_smaller_keeps_within_its_new_size(nowhere):
    sender, _ = nowhere
    sender.start("--spool-size", "8")
    sender.feed(*sender.lines(12_000))
    wait_for(lambda: sender.waiting() == 12_000, "the spool to have them")
    sender.end(signal.SIGKILL)
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(100))
    wait_for(lambda: sum(path.stat().st_size for path in (sender.state / "spool").iterdir()) <= 1.3 * (1 << 20),
             "the spool to be small")
    wait_for(lambda: sum(int(record["events"]) for record in sender.log("spool_dropped")) + sender.waiting() >= 12_100,
             "the loss to be reported")


def test_what_was_sent_takes_no_room(server, sender):
    sender.start("--spool-size", "1", "--block")
    for _ in range(5):
        sender.feed(*sender.lines(3000))
        sender.wait_until_settled(sender.numbers, 60)
    # Files are given up as a whole, a quarter of a megabyte at a time.
    assert sum(path.stat().st_size for path in (sender.state / "spool").iterdir()) < 1 << 19


def test_memory_stays_small_whatever_waits(nowhere):
    sender, _ = nowhere
    sender.start()
    line = json.dumps(sender.event(payload={"text": "x" * 3000})).encode() + b"\n"
    bare = re.sub(rb'"id": "[^"]*", ', b"", line)
    for _ in range(10):
        sender.feed(bare * 1000)
    wait_for(lambda: sender.waiting() == 10_000, "the spool to have them", 60)
    assert sender.peak_mib() < 24


# A disk of one's own.

@pytest.fixture
def disk(nowhere):
    """The sender's state folder on a small disk that nobody else sees."""
    sender, _ = nowhere
    key = (sender.state / "key.priv").read_bytes()
    with empty_disk(sender.state, 1 << 20) as made:
        (made.seen / "key.priv").write_bytes(key)
        (made.seen / "key.priv").chmod(0o600)
        sender.state_outside, sender.state = sender.state, made.seen
        yield made
        sender.put_away()


@pytest.mark.mounts
@pytest.mark.parametrize("source", ["stdin", "file"])
def test_a_full_disk_loses_nothing_that_was_accepted_and_is_said(serve, nowhere, disk, tmp_path, source):
    sender, port = nowhere
    lines = sender.lines(8000)
    file = tmp_path / "events.ndjson"
    if source == "file":
        file.write_text("".join(f"{line}\n" for line in lines))
        sender.start(file, prefix=disk.prefix)
    else:
        sender.start(prefix=disk.prefix)
        Feeder(sender, lines).start()
    full = wait_for(lambda: [r for r in sender.log() if "No space" in str(r)], "the full disk to be said")
    assert full[-1]["level"] in ("warning", "error")
    time.sleep(2)
    # Once a second at most, or the log fills the next disk.
    assert len([r for r in sender.log() if "No space" in str(r)]) <= 6
    server = serve(port=port)
    sender.send_now()
    wait_for(lambda: len(set(numbers(server))) >= 1000, "what was accepted to go out", 40)
    disk.make_room(64 << 20)
    wait_for(lambda: len(set(numbers(server))) >= 8000, "everything else", 60)
    assert sorted(set(numbers(server))) == list(range(1, 8001))
    assert not sender.log("spool_dropped") and not sender.set_aside()
    assert sender.process.poll() is None


@pytest.mark.mounts
def test_a_full_disk_at_the_start_is_said(serve, nowhere, disk):
    sender, port = nowhere
    (disk.seen / "ballast").write_bytes(bytes(600_000))
    disk.fill()
    done = sender.run_with(disk.prefix)
    if done is None:  # it runs, and waits for room
        wait_for(lambda: [r for r in sender.log() if "No space" in str(r)], "the full disk to be said")
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
        wait_for(lambda: [r for r in sender.log() if "No space" in str(r)], "the full disk to be said")
        sender.end(signal.SIGKILL)
    server = serve(port=port)
    disk.make_room(64 << 20)
    sender.start(file, prefix=disk.prefix)
    wait_for(lambda: len(set(numbers(server))) >= 6000, "all of them", 60)
    assert sorted(numbers(server)) == list(range(1, 6001))


@pytest.mark.mounts
def test_a_folder_that_cannot_be_written_is_refused_with_a_sentence(nowhere, disk):
    sender, _ = nowhere
    disk.mount("-o", "remount,ro")
    assert sender.run_with(disk.prefix) == 1
    said = sender.stderr.read_text()
    assert "Read-only" in said and len(said) < 2000


def test_the_server_may_be_slow_for_ever_and_the_spool_stays_within_its_size(server, sender):
    server.always = error(503, "unavailable", {"Retry-After": "3600"})
    sender.start("--spool-size", "1")
    for _ in range(10):
        sender.feed(*sender.lines(2000))
    wait_for(lambda: sender.log("spool_dropped"), "a loss to be reported")
    assert sum(path.stat().st_size for path in (sender.state / "spool").iterdir()) <= 1.3 * (1 << 20)
    assert len(server.requests) <= 3
