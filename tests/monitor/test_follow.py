"""A followed file or FIFO: every line is sent once, whatever happens to the file and to the process."""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import threading
import time

import pytest

from scripted import error, events_of
from stack import SLOWNESS, alive, wait_for


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "events.ndjson"
    path.touch()
    return path


def append(path, *lines):
    with open(path, "ab") as opened:
        opened.write(b"".join(line.encode() + b"\n" for line in lines))


def numbers(server):
    """The number of every event that arrived, including repeated ones."""
    return [event["payload"]["number"] for request in server.requests for event in events_of(request)]


def wait_for_numbers(server, wanted, seconds=30):
    try:
        wait_for(lambda: len(set(numbers(server))) >= len(set(wanted)), "every line to arrive", seconds)
    finally:
        came = numbers(server)
        assert sorted(set(came)) == sorted(set(wanted)) or set(came) < set(wanted), set(came) - set(wanted)
    assert sorted(numbers(server)) == sorted(wanted)


def test_existing_and_appended_lines_are_sent_once(server, sender, file):
    append(file, *sender.lines(5))
    sender.start(file)
    wait_for_numbers(server, range(1, 6))
    append(file, *sender.lines(5))
    wait_for_numbers(server, range(1, 11))


def test_a_missing_file_is_read_once_it_exists(server, sender, tmp_path):
    later = tmp_path / "later.ndjson"
    sender.start(later)
    append(later, *sender.lines(3))
    wait_for_numbers(server, range(1, 4))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_reading_continues_where_it_stopped(server, sender, file, how):
    append(file, *sender.lines(5))
    sender.start(file)
    wait_for_numbers(server, range(1, 6))
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    sender.end(how)
    append(file, *sender.lines(5))
    sender.start(file)
    wait_for_numbers(server, range(1, 11))


def test_an_incomplete_line_is_read_once_it_is_complete(server, sender, file):
    """The process may be killed while a writer is in the middle of a line."""
    sender.start(file)
    line = sender.lines(1)[0].encode() + b"\n"
    with open(file, "ab", buffering=0) as opened:
        opened.write(line[:30])
        sender.send_now()
        time.sleep(0.3)
        sender.end(signal.SIGKILL)
        sender.start(file)
        opened.write(line[30:])
        wait_for_numbers(server, [1])
    assert not sender.rejected()


def test_rotation_by_renaming(server, sender, file):
    sender.start(file)
    append(file, *sender.lines(5))
    wait_for_numbers(server, range(1, 6))
    with open(file, "ab", buffering=0) as old:
        file.rename(file.with_suffix(".1"))
        # A writer that has it open may still write to it.
        old.write("".join(f"{line}\n" for line in sender.lines(5)).encode())
        wait_for_numbers(server, range(1, 11))
    append(file, *sender.lines(5))
    wait_for_numbers(server, range(1, 16))
    append(file, *sender.lines(5))
    wait_for_numbers(server, range(1, 21))


@contextlib.contextmanager
def rotated_in_a_line(server, sender, file):
    """The old file with 40 bytes of the third line, and the third and fourth; the fifth is in the new file and sent."""
    third, fourth = (f"{line}\n".encode() for line in sender.lines(2))
    with open(file, "ab", buffering=0) as old:
        old.write(third[:40])
        file.rename(file.with_name(f"{file.name}.1"))
        append(file, *sender.lines(1))
        wait_for_numbers(server, [1, 2, 5])
        yield old, third, fourth


@pytest.mark.slow
def test_a_rotated_file_is_read_beside_the_new_one_until_it_is_quiet(server, sender, file):
    """A slow writer still has it open, and completes half a line there."""
    sender.start("--rotate-wait", "10", file)
    append(file, *sender.lines(2))
    wait_for_numbers(server, [1, 2])
    with rotated_in_a_line(server, sender, file) as (old, third, fourth):
        old.write(third[40:])
        wait_for_numbers(server, [1, 2, 3, 5])
        append(file, *sender.lines(1))
        # Each line makes it wait again.
        time.sleep(5)
        old.write(fourth)
        wait_for_numbers(server, range(1, 7))
        seventh, = sender.lines(1)
        time.sleep(5)
        old.write(seventh.encode())
        wait_for_numbers(server, range(1, 8), 30)  # its end without a newline, once it is quiet
    assert not sender.rejected()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_rotated_file_is_read_on_after_a_restart(server, sender, file, how):
    append(file, *sender.lines(2))
    sender.start(file)
    wait_for_numbers(server, [1, 2])
    with rotated_in_a_line(server, sender, file) as (old, third, fourth):
        wait_for(lambda: sender.pending() == 0, "nothing to be pending")
        sender.end(how)
        old.write(third[40:] + fourth)
        append(file, *sender.lines(1))
        sender.start(file)
        wait_for_numbers(server, range(1, 7))
    assert not sender.rejected() and not sender.log("input_replaced")


@pytest.mark.parametrize("when", ["before", "while stopped"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_rotated_file_of_which_no_line_was_read_is_read_on_after_a_restart(server, sender, file, how, when):
    """It may have half a line, which the writer completes later."""
    third, fourth = (f"{line}\n".encode() for line in sender.lines(2))
    append(file, *sender.lines(1))
    sender.start(file)
    wait_for_numbers(server, [3])
    file.rename(file.with_name(f"{file.name}.2"))
    with open(file, "ab", buffering=0) as old:
        old.write(third[:40])
        sender.wait_for("input_rotated")
        if when == "before":
            file.rename(file.with_name(f"{file.name}.1"))
            append(file, *sender.lines(1))
            wait_for_numbers(server, [3, 4])
        else:
            time.sleep(1.5)
        wait_for(lambda: sender.pending() == 0, "nothing to be pending")
        sender.end(how)
        if when != "before":
            file.rename(file.with_name(f"{file.name}.1"))
            append(file, *sender.lines(1))
        old.write(third[40:] + fourth)
        sender.start(file)
        wait_for_numbers(server, range(1, 5))
    assert not sender.rejected() and not sender.log("input_replaced")


def test_several_rotations_within_the_wait_lose_nothing(server, sender, file):
    """Each of the files still has a writer."""
    sender.start(file)
    append(file, *sender.lines(1))
    wait_for_numbers(server, [1])
    writers = []
    for number in range(4):
        writers.append(open(file, "ab", buffering=0))
        for older in range(number, 0, -1):
            file.with_name(f"{file.name}.{older}").rename(file.with_name(f"{file.name}.{older + 1}"))
        file.rename(file.with_name(f"{file.name}.1"))
        append(file, *sender.lines(1))
        time.sleep(0.2)
    for writer in writers:
        writer.write("".join(f"{line}\n" for line in sender.lines(2)).encode())
    append(file, *sender.lines(1))
    wait_for_numbers(server, range(1, 15))
    for writer in writers:
        writer.close()


def test_rotation_while_stopped_loses_nothing_silently(server, sender, file):
    """The old file is found by its inode."""
    append(file, *sender.lines(5))
    sender.start(file)
    wait_for_numbers(server, range(1, 6))
    sender.end(signal.SIGTERM)
    append(file, *sender.lines(5))
    file.rename(file.with_suffix(".ndjson.1"))
    append(file, *sender.lines(5))
    sender.start(file)
    wait_for(lambda: set(range(11, 16)) <= set(numbers(server)), "the new file's lines")
    lost = set(range(6, 11)) - set(numbers(server))
    assert not lost or sender.log(level="warning"), "lost the old file's rest without logging it"
    assert len(numbers(server)) == len(set(numbers(server)))


def test_rotation_by_truncation(server, sender, file):
    sender.start(file)
    append(file, *sender.lines(5))
    wait_for_numbers(server, range(1, 6))
    os.truncate(file, 0)
    append(file, *sender.lines(3))
    wait_for_numbers(server, range(1, 9))


def test_rotation_by_copytruncate_reads_the_rest_from_the_copy(server, sender, file):
    """logrotate copies first; lines that were not yet read are only in the copy."""
    sender.start(file)
    append(file, *sender.lines(5))
    wait_for_numbers(server, range(1, 6))
    sender.send_signal(signal.SIGSTOP)
    append(file, *sender.lines(5))
    file.with_name(f"{file.name}.1").write_bytes(file.read_bytes())
    os.truncate(file, 0)
    append(file, *sender.lines(5))
    sender.send_signal(signal.SIGCONT)
    wait_for_numbers(server, range(1, 16))


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", ["truncated", "new"])
def test_an_older_file_with_the_same_lines_is_not_mistaken_for_a_copy(server, sender, file, running, how):
    """Lines without a timestamp may repeat those that were sent long ago."""
    line = '{"type":"tool","payload":{"number":0}}'
    append(file, *[line] * 20)
    # As copytruncate leaves it: the copy is newer than the file.
    append(file.with_name(f"{file.name}.1"), *[line] * 50)
    time.sleep(0.1)
    sender.start(file)
    wait_for(lambda: len(numbers(server)) == 20, "the first lines")
    if not running:
        sender.end()
    if how == "truncated":
        os.truncate(file, 0)
    else:
        file.unlink()
    append(file, *[line] * 5)
    if not running:
        sender.start(file)
    wait_for(lambda: len(numbers(server)) >= 25, "the new lines")
    time.sleep(1.5)
    assert len(numbers(server)) == 25


def test_a_truncated_file_that_grows_beyond_its_former_length_at_once(server, sender, file):
    append(file, *sender.lines(5))
    sender.start(file)
    wait_for_numbers(server, range(1, 6))
    sender.send_signal(signal.SIGSTOP)
    os.truncate(file, 0)
    append(file, *sender.lines(20))
    sender.send_signal(signal.SIGCONT)
    wait_for_numbers(server, range(1, 26))


def test_truncation_while_stopped(server, sender, file):
    append(file, *sender.lines(20))
    sender.start(file)
    wait_for_numbers(server, range(1, 21))
    sender.end()
    os.truncate(file, 0)
    append(file, *sender.lines(3))
    sender.start(file)
    wait_for_numbers(server, range(1, 24))


def test_replacement_by_a_shorter_file(server, sender, file):
    sender.start(file)
    append(file, *sender.lines(20))
    wait_for_numbers(server, range(1, 21))
    other = file.with_suffix(".new")
    append(other, *sender.lines(2))
    other.rename(file)
    wait_for_numbers(server, range(1, 23))


def test_removal_and_recreation(server, sender, file):
    sender.start(file)
    append(file, *sender.lines(2))
    wait_for_numbers(server, range(1, 3))
    file.unlink()
    time.sleep(1.5)
    append(file, *sender.lines(2))
    wait_for_numbers(server, range(1, 5))


def test_bad_lines_of_a_file_are_rejected_once_despite_a_kill(server, sender, file):
    append(file, *sender.lines(2), "bad")
    sender.start(file)
    wait_for_numbers(server, [1, 2])
    wait_for(lambda: len(sender.rejected()) == 1, "the bad line")
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    sender.end(signal.SIGKILL)
    append(file, *sender.lines(1), "bad too")
    sender.start(file)
    wait_for_numbers(server, [1, 2, 3])
    wait_for(lambda: len(sender.rejected()) == 2, "the second bad line")
    assert [each["event"] for each in sender.rejected()] == ["bad", "bad too"]


def test_another_file_is_read_from_its_beginning(server, sender, file, tmp_path):
    append(file, *sender.lines(10))
    sender.start(file)
    wait_for_numbers(server, range(1, 11))
    sender.end()
    other = tmp_path / "other.ndjson"
    append(other, *sender.lines(10))
    sender.start(other)
    wait_for_numbers(server, range(1, 21))


def test_writers_of_a_fifo_come_and_go(server, sender, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sender.start(fifo)
    for _ in range(3):
        append(fifo, *sender.lines(4))
    wait_for_numbers(server, range(1, 13))
    assert sender.process.poll() is None
    assert sender.end() == 0


def test_sigterm_ends_it_while_a_fifo_has_no_writer(server, sender, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sender.start(fifo)
    assert sender.end(seconds=6) == 0


@pytest.mark.parametrize("what", ["folder", "socket"])
def test_a_folder_or_socket_is_refused_with_a_message(sender, tmp_path, what):
    place = tmp_path if what == "folder" else tmp_path / "odd"
    if what == "socket":
        socket.socket(socket.AF_UNIX).bind(str(place))
    done = sender.run(place)
    assert done.returncode == 1 and len(done.stderr.strip()) > 10


class Writer(threading.Thread):
    """Appends numbered lines, some in pieces, some without an id, and may rotate the file now and then."""

    def __init__(self, sender, file, total, chooser, rotates):
        super().__init__(daemon=True)
        self.sender, self.file, self.total, self.random = sender, file, total, chooser
        self.rotates, self.rotations = rotates, 0
        self.written = 0

    def run(self):
        while self.written < self.total:
            count = min(self.random.choice([1, 10, 300]), self.total - self.written)
            data = b"".join(self.line() for _ in range(count))
            cut = self.random.randrange(len(data))
            with open(self.file, "ab", buffering=0) as opened:
                opened.write(data[:cut])
                time.sleep(self.random.choice([0, 0, 0.01]))
                opened.write(data[cut:])
            self.written += count
            time.sleep(0.02)
            # A file is finished once the next one has a line.
            if self.rotates and self.written < self.total and self.random.random() < 0.2:
                self.rotate()

    def rotate(self):
        """As logrotate does, but without removing any file."""
        for number in range(self.rotations, 0, -1):
            self.file.with_name(f"{self.file.name}.{number}").rename(self.file.with_name(f"{self.file.name}.{number + 1}"))
        self.file.rename(self.file.with_name(f"{self.file.name}.1"))
        self.rotations += 1

    def line(self):
        event = self.sender.event()
        if self.random.random() < 0.5:
            del event["id"]
        return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize("rotates", [False, True])
def test_every_line_arrives_once_whenever_it_is_killed(server, sender, file, rotates):
    """Compared with what the server would store, also for ids that are filled in."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**9))
    print(f"SEED={seed}")
    chooser = random.Random(seed)
    server.answer(*[error(503, "unavailable", {"Retry-After": "0"}) if chooser.random() < 0.3 else server.always
                    for _ in range(60)])
    total = 6000
    writer = Writer(sender, file, total, chooser, rotates)
    sender.start(file, STEEP_MAX_BATCH_SIZE="100")
    writer.start()
    if rotates:
        # A file that was rotated before any of it was read is not found.
        server.wait(1)
    kills = 0
    while writer.is_alive() or kills < 12:
        time.sleep(chooser.uniform(0.02, 0.4) * SLOWNESS)
        assert alive(sender.process.pid)
        sender.end(signal.SIGKILL)
        kills += 1
        sender.start(file, STEEP_MAX_BATCH_SIZE="100")
    wait_for(lambda: len(stored_numbers(server)) >= total, "every line", 60)
    assert sorted(stored_numbers(server)) == list(range(1, total + 1))
    assert not sender.rejected() and (writer.rotations > 0 or not rotates)


def stored_numbers(server):
    """The number of each row that a database would store: one for each id."""
    rows = {}
    for request in list(server.requests):
        for event in events_of(request):
            rows.setdefault(event["id"], event["payload"]["number"])
    return list(rows.values())
