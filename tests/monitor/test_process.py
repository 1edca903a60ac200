"""Options, signals, when a batch is sent, and who may use a state folder."""

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from scripted import error, ids_of, silence
from sender import PROGRAM
from stack import SLOWNESS, alive, wait_for


def test_a_batch_is_sent_after_the_interval(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3")
    began = time.monotonic()
    sender.feed(*sender.lines(2))
    first, = server.wait(1)
    assert 2 <= first.at - began <= 3 + 4 * SLOWNESS


def is_signalled(pid):
    """Whether a signal to the process waits to be read."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"^ShdPnd:\s+(\w+)", status, re.MULTILINE)[1], 16) != 0


def test_a_signal_without_pending_events_changes_nothing_for_the_next(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3")
    sender.feed(*sender.lines(1))
    wait_for(lambda: sender.counted("sent") == 1, "the first event to be sent")
    sender.send_now()
    wait_for(lambda: not is_signalled(sender.process.pid), "the signal to be read")
    time.sleep(0.5)
    began = time.monotonic()
    sender.feed(*sender.lines(1))
    assert server.wait(2)[1].at - began >= 2


def test_a_batch_is_sent_when_it_is_full(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600", STEEP_MAX_BATCH_SIZE="50")
    sender.feed(*sender.lines(49))
    time.sleep(1)
    assert not server.requests
    sender.feed(*sender.lines(76))
    server.wait(2)
    assert [len(ids_of(request)) for request in server.requests] == [50, 50]


def test_sigusr1_sends_pending_events(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(3))
    wait_for(lambda: sender.pending() == 3, "the events to be in the spool")
    sender.send_now()
    assert len(ids_of(server.wait(1)[0])) == 3


def test_sigusr1_with_nothing_pending_sends_nothing(server, sender):
    sender.start()
    sender.send_now()
    time.sleep(1)
    assert not server.requests and sender.end() == 0


def test_events_are_sent_in_order(server, sender):
    sender.start(STEEP_MAX_BATCH_SIZE="7")
    sender.feed(*sender.lines(100))
    server.wait_for_events(100)
    sent = [event["payload"]["number"] for request in server.requests for event in json.loads(request.body)]
    assert sent == list(range(1, 101))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_last_batch_is_sent_at_the_end(server, sender, how):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(3))
    wait_for(lambda: sender.pending() == 3, "the events to be in the spool")
    assert sender.end(how) == 0
    assert len(ids_of(server.wait(1)[0])) == 3
    assert sender.log("stopping") and sender.log("stopped")[-1]["pending"] == "0"


def test_the_pipe_is_read_to_its_end_after_a_signal(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(100))
    assert sender.end() == 0
    assert len(server.wait_for_events(100)) == 100


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_within_5_seconds_of_sigterm_while_the_server_hangs(server, sender, busy):
    """With and without a request in progress; its events stay in the spool."""
    server.always = silence
    sender.start(STEEP_BATCH_INTERVAL_SECS="1" if busy else "3600")
    sender.feed(*sender.lines(4))
    if busy:
        server.wait(1)
    wait_for(lambda: sender.pending() == 4, "the events to be in the spool")
    began = time.monotonic()
    assert sender.end() == 0
    assert time.monotonic() - began < 5 + 5 * SLOWNESS
    assert sender.log("stopped")[-1]["pending"] == "4"
    first = server.wait(1)[0]
    server.always = error(503, "unavailable")
    sender.start()
    again = server.wait(2)[1]
    assert ids_of(again) == ids_of(first)
    assert again.body == first.body


def test_the_last_flush_does_not_wait_for_a_retry(server, sender):
    server.always = error(503, "unavailable", {"Retry-After": "60"})
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(2))
    wait_for(lambda: sender.pending() == 2, "the events to be in the spool")
    began = time.monotonic()
    assert sender.end() == 0
    assert time.monotonic() - began < 5 + 5 * SLOWNESS and sender.pending() == 2


def test_the_same_ids_are_sent_again_after_a_kill_during_a_request(server, sender):
    server.answer(silence)
    sender.start()
    sender.feed(*sender.lines(6))
    first = server.wait(1)[0]
    sender.end(signal.SIGKILL)
    sender.start()
    second = server.wait(2)[1]
    assert ids_of(second)[:6] == ids_of(first)


def test_a_closed_log_does_not_lose_events(server, sender):
    """Its log may be a pipe without a reader."""
    reading, writing = os.pipe()
    with open(sender.stderr, "ab") as log:
        process = subprocess.Popen([str(PROGRAM)], env=sender.environment, stdin=subprocess.PIPE, stderr=writing,
                                   stdout=log)
    os.close(writing)
    os.close(reading)
    process.stdin.write("".join(f"{line}\n" for line in sender.lines(2)).encode())
    process.stdin.flush()
    server.wait_for_events(2)
    assert alive(process.pid)
    process.stdin.close()
    assert process.wait(20 * SLOWNESS) == 0


def test_the_journal_gets_the_priority_of_each_line(server, sender):
    with open(sender.folder / "journal", "w+b") as journal:
        target = os.fstat(journal.fileno())
        done = subprocess.run([str(PROGRAM)], env=sender.environment | {
            "JOURNAL_STREAM": f"{target.st_dev}:{target.st_ino}"}, input=b"bad\n", stderr=journal, timeout=60 * SLOWNESS)
        journal.seek(0)
        lines = journal.read().decode().splitlines()
    assert done.returncode == 0
    assert {line[:3] for line in lines if "level=info" in line} == {"<6>"}
    assert {line[:3] for line in lines if "level=warning" in line} == {"<4>"}


def test_the_status_command_does_not_keep_a_process_from_starting(server, sender):
    """It tests the lock without taking it, which flock(2) could not do."""
    sender.start()
    assert "running: yes" in sender.status()
    sender.end()
    assert "running: no" in sender.status()
    with open(sender.state / "lock", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        sender.start()
        assert "running: yes" in sender.status()


def test_a_crash_writes_no_core_file_with_the_key(server, sender):
    sender.start(prefix=["sh", "-c", 'ulimit -c "$(ulimit -H -c)"; exec "$@"', "sh"])
    limits = Path(f"/proc/{sender.process.pid}/limits").read_text(encoding="ascii")
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits


def test_a_second_process_on_the_same_spool_is_refused(server, sender):
    sender.start()
    done = sender.run()
    assert done.returncode == 1 and len(done.stderr.strip()) > 10
    sender.feed(*sender.lines(1))
    server.wait_for_events(1)
    assert not sender.log("stopped")


def test_a_killed_process_leaves_no_lock_behind(server, sender):
    sender.start()
    sender.end(signal.SIGKILL)
    sender.start()


def test_the_state_folder_is_accessible_to_its_owner_only(server, sender):
    sender.start()
    sender.feed("bad", *sender.lines(1))
    server.wait_for_events(1)
    for path in [sender.state, *sender.state.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_missing_state_folder_is_created(sender, tmp_path):
    fresh = tmp_path / "a" / "b" / "state"
    sender.start("--state", fresh, "--key", sender.state / "key.priv")
    assert fresh.stat().st_mode & 0o777 == 0o700


def test_the_default_state_folder_is_systemds_or_the_users(sender, tmp_path):
    for number, changes in enumerate([{"STATE_DIRECTORY": tmp_path / "systemd"}, {"XDG_STATE_HOME": tmp_path / "xdg"},
                                      {"HOME": tmp_path / "home"}]):
        environment = {name: str(value) for name, value in changes.items()}
        (tmp_path / "systemd").mkdir(exist_ok=True)
        sender.start("--key", sender.state / "key.priv", STEEP_MONITOR_STATE=None, **environment)
        place = [tmp_path / "systemd", tmp_path / "xdg" / "steep-monitor",
                 tmp_path / "home" / ".local" / "state" / "steep-monitor"][number]
        assert (place / "lock").exists() and (place / "spool.db").exists()
        sender.end()


@pytest.mark.parametrize("base", ["", "/", "/functions/v1", "/functions/v1/"])
def test_ingest_is_appended_to_the_url(serve, make_sender, base):
    server = serve(base=base)
    sender = make_sender(server.url).start()
    sender.feed(*sender.lines(1))
    server.wait(1)


MALFORMED = [
    {"STEEP_URL": None}, {"STEEP_URL": "http://127.0.0.1:1"}, {"STEEP_URL": "http://localhost"}, {"STEEP_URL": "ftp://x"},
    {"STEEP_URL": "localhost:8443"}, {"STEEP_URL": "https://"}, {"STEEP_URL": "https://a b/"}, {"STEEP_URL": "https://x:99999/"},
    {"STEEP_URL": "https://x/\n"}, {"STEEP_URL": "https://x/?"}, {"STEEP_URL": "https://x#"}, {"STEEP_BATCH_INTERVAL_SECS": "0"}, {"STEEP_BATCH_INTERVAL_SECS": "86401"},
    {"STEEP_BATCH_INTERVAL_SECS": "1s"}, {"STEEP_BATCH_INTERVAL_SECS": " 1"}, {"STEEP_BATCH_INTERVAL_SECS": "-1"},
    {"STEEP_MAX_BATCH_SIZE": "0"}, {"STEEP_MAX_BATCH_SIZE": "1001"}, {"STEEP_MAX_BATCH_SIZE": "1e2"},
    {"STEEP_SPOOL_MIB": "0"}, {"STEEP_SPOOL_MIB": "99999999999999999999"}, {"STEEP_SPOOL_MIB": "x"},
    {"STEEP_ROTATE_WAIT_SECS": "-1"}, {"STEEP_ROTATE_WAIT_SECS": "3601"}, {"STEEP_ROTATE_WAIT_SECS": "5s"},
    {"STEEP_BLOCK": "maybe"}, {"STEEP_SOURCE": " x"}, {"STEEP_SOURCE": "x" * 256}, {"STEEP_SOURCE": "ü"},
    {"STEEP_SOURCE": "a\tb"}, {"STEEP_CA": "/nowhere/ca.crt"}, {"STEEP_CA": "/dev/null"}, {"STEEP_KEY": "/nowhere/key"},
]


@pytest.mark.parametrize("changes", MALFORMED, ids=lambda changes: "=".join(map(str, *changes.items()))[:40].encode("unicode_escape").decode())
def test_an_invalid_setting_is_refused_with_a_message(sender, changes):
    for arguments in ([], ["-t"]):
        done = sender.run(*arguments, **changes)
        assert done.returncode == 1, (arguments, done)
        assert len(done.stderr.strip()) > 10


def test_t_accepts_a_valid_configuration_and_changes_nothing(sender):
    before = sorted(sender.state.rglob("*"))
    assert sender.run("-t").returncode == 0
    assert sender.run("-t", STEEP_BATCH_INTERVAL_SECS="", STEEP_MAX_BATCH_SIZE="", STEEP_SPOOL_MIB="",
                      STEEP_BLOCK="", STEEP_CA="").returncode == 0
    assert sorted(sender.state.rglob("*")) == before


def test_options_override_the_environment(server, sender, tmp_path):
    sender.start("--url", server.url, "--source", sender.identity.source, "--spool-size", "1", "--block", "--ca",
                 sender.environment["STEEP_CA"], "--key", sender.state / "key.priv", "--state", sender.state,
                 STEEP_URL="https://127.0.0.1:9", STEEP_SOURCE="x", STEEP_CA="/etc/ssl/certs/ca-certificates.crt",
                 STEEP_KEY="/nowhere", STEEP_SPOOL_MIB="2", STEEP_MONITOR_STATE=str(tmp_path / "other"))
    sender.feed(*sender.lines(1))
    server.wait(1)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["-x"], ["--url"], ["a", "b"], ["keygen", "a", "b"], ["status", "a"]])
def test_a_wrong_command_line_prints_the_usage(sender, arguments):
    done = sender.run(*arguments)
    assert done.returncode == 2 and "steep-monitor" in done.stderr


def switches(pid):
    """How often its threads have waited: a busy machine takes the CPU from them more often than that."""
    status = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(number) for text in status for number in re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE))


def test_an_idle_process_wakes_at_most_once_a_second(server, make_sender, serve, tmp_path):
    """On a pipe, a file, a FIFO and a missing file; after a batch, and between retries."""
    refusing = serve(always=error(401, "unknown_source"))
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    senders = []
    for name, place in [("pipe", []), ("file", [tmp_path / "file"]), ("fifo", [tmp_path / "fifo"]),
                        ("missing", [tmp_path / "missing"]), ("refused", [])]:
        sender = make_sender((refusing if name == "refused" else server).url, f"on-{name}")
        senders.append(sender.start(*place, STEEP_BATCH_INTERVAL_SECS="60" if name == "refused" else "1"))
        if not place:
            sender.feed(*sender.lines(1))
            wait_for(lambda: sender.pending() == 1 or sender.log("batch"), "the event to be in the spool")
            sender.send_now()
            sender.wait_for("batch")
    time.sleep(2)
    began = time.monotonic()
    before = [switches(sender.process.pid) for sender in senders]
    time.sleep(6)
    woken = [switches(sender.process.pid) - count for sender, count in zip(senders, before)]
    assert max(woken) <= time.monotonic() - began + 1, woken


@pytest.mark.parametrize("options", [("-V", "-h"), ("--version", "--help")])
def test_version_and_help(sender, options):
    version, usage = (sender.run(option) for option in options)
    assert version.returncode == usage.returncode == 0
    assert version.stdout.strip().split()[-1][0].isdigit()
    assert "keygen" in usage.stdout and "status" in usage.stdout


def test_a_proxy_from_the_environment_is_used(server, sender):
    """By libcurl's own variables."""
    sender.start(https_proxy="http://127.0.0.1:9")
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=0)
    assert not server.requests
    sender.end()
    sender.start(https_proxy="http://127.0.0.1:9", no_proxy="127.0.0.1")
    server.wait(1)


def test_the_users_curlrc_and_netrc_are_not_read(server, sender, tmp_path):
    (tmp_path / ".curlrc").write_text("insecure\nproxy = http://127.0.0.1:9\n")
    (tmp_path / ".netrc").write_text("default login somebody password secret\n")
    sender.start(HOME=str(tmp_path))
    sender.feed(*sender.lines(1))
    assert "authorization" not in server.wait(1)[0].headers
