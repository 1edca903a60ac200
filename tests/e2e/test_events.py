"""steepctl events: what is exported can be imported and sent, and what is wrong in a file is named by its line."""

import contextlib
import json
import os
import random
import re
import secrets
import signal
import subprocess
import threading

import pytest

from monitor import encode
from stack import ROOT, SLOWNESS, wait_for, without_progress
from test_steepctl import refuses

COUNTS = re.compile(r"events read: (\d+), inserted: (\d+), duplicates: (\d+), rejected: (\d+)\n")
# Strings that COPY, JSON or a shell could change.
ODD = ['\\', '\\\\n', '"', "'", '\n\r\t\b', '\x01\x02\x1f\x7f', '\\.', 'é\u2028\U0001f600', ',', '$(id)', '', ' ', '\\u0001']


@pytest.fixture
def events(fresh_source):
    """Make events of a source that no other test uses."""
    def make(count, **changes):
        return [{"id": f"evt_{secrets.token_hex(10)}", "source": fresh_source, "timestamp": "2026-02-03T14:30:00.123456+00:00",
                 "eventType": "tool", "payload": {"number": number}} | changes for number in range(count)]
    return make


def lines_of(events):
    return "".join(encode(event).decode() + "\n" for event in events)


@pytest.fixture
def imports(stack):
    """Import a text or bytes: read, inserted, duplicates and rejected; the numbers and codes of the rejected lines."""
    def run(text, **more):
        done = steepctl_bytes(stack, text if isinstance(text, bytes) else text.encode(), "import", **more)
        counts = tuple(map(int, COUNTS.fullmatch(done.stdout.decode()).groups()))
        errors = without_progress(done.stderr.decode())
        rejected = [(int(number), code) for number, code in re.findall(r"^line (\d+): (\w+): .*\.$", errors, re.MULTILINE)]
        assert len(rejected) == counts[3] and len(errors.splitlines()) == len(rejected), errors
        assert done.returncode == (1 if rejected else 0)
        return counts, sorted(rejected)
    return run


def steepctl_bytes(stack, data, *arguments, **more):
    return subprocess.run([str(ROOT / "deploy" / "steepctl"), "events", *arguments], input=data, capture_output=True,
                          env=environment(stack, **more), timeout=120 * SLOWNESS)


def environment(stack, **more):
    return stack.environment(STEEP_BUILD=str(stack.program("ingest").parent), **more)


@pytest.fixture
def exported(stack):
    """Export with these options, by an administrator who has another time zone: the events."""
    def run(*options):
        done = stack.steepctl("events", "export", *options, PGTZ="Asia/Tokyo")
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    return run


def count(db, source):
    return db.execute("SELECT count(*), (SELECT sum(event_count) FROM public.hourly_counts WHERE source = %s)"
                      " FROM public.events WHERE source = %s", (source, source)).fetchone()


def by_id(events):
    return sorted(events, key=lambda event: event["id"])


def test_what_is_imported_is_exported_again(imports, exported, events, fresh_source, db):
    sent = events(3) + [event | {"payload": {text: [text, {text: 1}]}} for text in ODD for event in events(1)]
    assert imports(lines_of(sent)) == ((len(sent), len(sent), 0, 0), [])
    assert by_id(exported("--source", fresh_source)) == by_id(sent)
    assert count(db, fresh_source) == (len(sent), len(sent))
    assert imports(lines_of(sent)) == ((len(sent), 0, len(sent), 0), [])


def test_what_monitors_sent_is_exported_and_imported(stack, monitor, client, exported, imports, db):
    sent = [monitor.event(payload={"v": text}) for text in ODD] + [monitor.event(payload={"v": 0, "big": 10 ** 30})]
    assert monitor.post(client, sent).status_code == 200
    ids = [event["id"] for event in sent]
    found = {event["id"]: event for event in exported("--source", monitor.source)}
    assert [found[event["id"]]["payload"] for event in sent] == [event["payload"] for event in sent]
    rows = "SELECT id, source, timestamp, event_type, payload FROM public.events WHERE id = ANY(%s) ORDER BY id"
    before = db.execute(rows, (ids,)).fetchall()
    db.execute("DELETE FROM public.events WHERE id = ANY(%s)", (ids,))
    assert imports(lines_of(found[key] for key in ids))[0] == (len(ids), len(ids), 0, 0)
    assert db.execute(rows, (ids,)).fetchall() == before


def test_an_event_of_64_kib_is_imported_again_although_its_text_is_longer(monitor, client, exported, imports, db):
    for payload in ("[" + ",".join(["1e308"] * 10000) + "]", "[" + ",".join(["{}"] * 20000) + "]"):
        event = monitor.raw_event(payload=f'{{"v":{payload}}}')
        key = json.loads(event)["id"]
        assert monitor.post(client, f"[{event}]").status_code == 200
        text = lines_of(found for found in exported("--source", monitor.source) if found["id"] == key)
        assert len(text) > 64 * 1024
        db.execute("DELETE FROM public.events WHERE id = %s", (key,))
        assert imports(text) == ((1, 1, 0, 0), [])


def test_an_event_of_another_source_is_stored_as_its_own_and_changes_none(imports, exported, events, fresh_source):
    """A file of events whose ids exist, of this source and of one that nobody knows; the stored ones stay as they are."""
    sent = events(3)
    assert imports(lines_of(sent))[0] == (3, 3, 0, 0)
    other = f"{fresh_source}-other"
    file = [event | {"source": other, "payload": {"other": 1}} for event in sent] + events(2, source=other)
    assert imports(lines_of(file)) == ((5, 2, 3, 0), [])
    assert by_id(exported("--source", fresh_source)) == by_id(sent)
    assert by_id(exported("--source", other)) == by_id(file[3:])


@pytest.mark.parametrize("source", ["it's", "100%", "a\\b", "*", "-x", "source = ''", "$(id)", "Jörg's Büro"])
def test_a_source_of_any_name_is_exported(source, imports, exported, events):
    sent = events(1, source=source)
    assert imports(lines_of(sent))[0] == (1, 1, 0, 0)
    assert sent[0]["id"] in [event["id"] for event in exported("--source", source)]
    assert {event["source"] for event in exported("--source", source)} == {source}


def test_from_is_included_and_to_is_not(imports, exported, events, fresh_source):
    times = ["2026-02-02T23:59:59.999999+00:00", "2026-02-03T00:00:00+00:00", "2026-02-03T12:00:00+00:00", "2026-02-04T00:00:00+00:00"]
    sent = [event for time in times for event in events(1, timestamp=time)]
    imports(lines_of(sent))
    for options, expected in ((("--from", "2026-02-03"), times[1:]), (("--to", "2026-02-03"), times[:1]),
                              (("--from", "2026-02-03", "--to", "2026-02-04"), times[1:3]),
                              (("--from", "2026-02-03T13:00:00+01:00"), times[2:]), (("--to", "2026-02-03T12:00:00.000001Z"), times[:3]),
                              (("--from", "2026-02-03 00:00:00z"), times[1:])):
        assert sorted(event["timestamp"] for event in exported("--source", fresh_source, *options)) == expected, options


@pytest.mark.parametrize("time", ["now", "yesterday", "infinity", "2026-02-30", "2026-13-01", "2026-02-03T25:00:00Z", "2026-02-03T12:00:00",
                                  "1 day", "2026-02-03'; SELECT 1; --Z"])
def test_a_bad_time_is_refused(time, stack):
    assert re.search(r"--from|2026", refuses(stack, "events", "export", "--from", time))


@pytest.mark.parametrize("arguments", [["export", "--source"], ["export", "laptop"], ["export", "--since", "2026-02-03"],
                                       ["import", "file"], ["import", "--quiet", "--quiet"], ["export", "--loud"], ["copy"], []])
def test_wrong_usage_is_refused(arguments, stack):
    done = stack.steepctl("events", *arguments, check=False)
    assert done.returncode == 2 and "usage: steepctl" in done.stderr and not done.stdout


def test_bad_lines_are_named_and_the_others_stored(imports, events, fresh_source, db):
    good = [line for line in lines_of(events(4)).splitlines()]
    bad = events(1)[0]
    variants = {"invalid_event_id": bad | {"id": "7"}, "invalid_source": bad | {"source": ""}, "invalid_timestamp": bad | {"timestamp": "now"},
                "invalid_event_type": bad | {"eventType": "x"}, "invalid_payload": bad | {"payload": []}}
    text = [good[0], "", "x", good[1], *[encode(variant).decode() for variant in variants.values()], "[]", good[2] + good[3], "[", "]", good[3]]
    counts, rejected = imports("\n".join(text) + "\n")
    assert counts == (13, 3, 0, 10)
    assert rejected == [(3, "invalid_event"), *zip(range(5, 10), variants), *[(number, "invalid_event") for number in range(10, 14)]]
    assert count(db, fresh_source) == (3, 3)


def test_the_forms_of_text_files(imports, events, fresh_source, db):
    """A byte order mark, CR LF, empty lines, and a last line without its end, whole or half."""
    text = "\ufeff" + lines_of(events(3)).replace("\n", "\r\n\r\n")
    assert imports(text) == ((3, 3, 0, 0), [])
    last = lines_of(events(2)).rstrip("\n")
    assert imports(last)[0] == (2, 2, 0, 0)
    half = lines_of(events(2))[:-30]
    assert imports(half) == ((2, 1, 0, 1), [(2, "invalid_event")])
    assert count(db, fresh_source) == (6, 6)
    for text in ("", "\n", "\ufeff", "\r\n\r\n"):
        assert imports(text) == ((0, 0, 0, 0), [])
    assert imports(b"\0\n\xff\xfe\n") == ((2, 0, 0, 2), [(1, "invalid_event"), (2, "invalid_event")])


def test_what_postgresql_refuses_is_named_and_the_others_stored(imports, events, fresh_source, db, stack):
    sent = events(2500)
    before = len(stack.log_text("postgresql"))
    db.execute("ALTER TABLE public.events ADD CONSTRAINT test_events CHECK (payload <> '{\"secret\": 1}') NOT VALID")
    try:
        sent[1700]["payload"] = {"secret": 1}
        assert imports(lines_of(sent)) == ((2500, 2499, 0, 1), [(1701, "invalid_event")])
    finally:
        db.execute("ALTER TABLE public.events DROP CONSTRAINT test_events")
    assert count(db, fresh_source) == (2499, 2499)
    assert "secret" not in stack.log_text("postgresql")[before:]


# Prints the most memory in KiB that a command and its processes had, as the last line of its errors.
MEASURED = ["python3", "-c", "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
            " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"]


def peak(stack, data, *arguments):
    """The most memory in MiB that steepctl events and what it starts had, and how it ended."""
    # A sanitizer would keep what was freed.
    options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    done = subprocess.run([*MEASURED, str(ROOT / "deploy" / "steepctl"), "events", *arguments], input=data, capture_output=True,
                          env=environment(stack, ASAN_OPTIONS=options), timeout=300 * SLOWNESS)
    *errors, kib = without_progress(done.stderr.decode()).splitlines()
    done.stderr = errors
    return int(kib) / 1024, done


def check_memory(stack, used, least):
    """At most 32 MiB; of a sanitized program, no more than for little data."""
    assert used <= (least + 16 if sanitized(stack) else 32), used


def sanitized(stack):
    return b"__asan_init" in stack.program("ingest").read_bytes()


def test_a_line_of_any_length_is_one_rejected_line_and_takes_no_memory(stack, events, fresh_source, db):
    first, last, long = lines_of(events(3)).splitlines()
    least, done = peak(stack, first.encode(), "import")
    used, done = peak(stack, first.encode() + b"\n" + long.encode() + b" " * 100_000_000 + b"\n" + last.encode(), "import")
    assert done.stdout == b"events read: 3, inserted: 1, duplicates: 1, rejected: 1\n"
    assert len(done.stderr) == 1 and done.stderr[0].startswith("line 2: invalid_event: ")
    assert count(db, fresh_source) == (2, 2)
    check_memory(stack, used, least)


def test_many_events_take_no_more_memory_than_few(stack, events, fresh_source, db):
    """66 MB; the batches of 10 GB are no larger, and nothing is kept of one when it is stored."""
    data = lines_of(events(60_000, payload={"text": "x" * 950})).encode()
    least, _ = peak(stack, data[:10_000], "import")
    used, done = peak(stack, data, "import")
    assert done.returncode == 0 and count(db, fresh_source) == (60_000, 60_000)
    check_memory(stack, used, least)
    used, done = peak(stack, b"", "export", "--source", fresh_source)
    assert done.stdout.count(b"\n") == 60_000 and used <= 32
    db.execute("DELETE FROM public.events WHERE source = %s", (fresh_source,))


def test_an_export_to_a_full_disk_fails(stack, imports, events):
    imports(lines_of(events(300, payload={"text": "x" * 1000})))
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(ROOT / "deploy" / "steepctl"), "events", "export"], stdout=full, stderr=subprocess.PIPE, text=True,
                              env=environment(stack), timeout=60 * SLOWNESS)
    assert (done.returncode, done.stderr) == (1, "steepctl: the output is incomplete: No space left on device\n")


def test_an_import_that_cannot_print_its_counts_says_so(stack, events, fresh_source, db):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(ROOT / "deploy" / "steepctl"), "events", "import"], input=lines_of(events(3)), stdout=full,
                              stderr=subprocess.PIPE, text=True, env=environment(stack), timeout=60 * SLOWNESS)
    assert (done.returncode, done.stderr) == (1, "cannot write standard output: No space left on device\n")
    assert count(db, fresh_source) == (3, 3)


@pytest.mark.parametrize("ignored", [True, False])
def test_an_export_to_a_closed_pipe_ends(ignored, stack, imports, events):
    imports(lines_of(events(300, payload={"text": "x" * 1000})))
    before = signal.SIG_IGN if ignored else signal.SIG_DFL
    process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "events", "export"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment(stack), restore_signals=False, preexec_fn=lambda: signal.signal(signal.SIGPIPE, before))
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60 * SLOWNESS) == (1 if ignored else 141)
    assert errors == ("steepctl: the reader of the output ended early\n" if ignored else "")


@contextlib.contextmanager
def importing(stack, data):
    """A running import that is fed from a thread."""
    process = subprocess.Popen([str(stack.program("ingest")), "--import"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment(stack))

    def feed():
        with contextlib.suppress(BrokenPipeError, ValueError):
            process.stdin.write(data)
            process.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        feeder.join()


def test_an_import_that_was_killed_is_run_again(stack, imports, exported, events, fresh_source, db):
    sent = events(20000)
    data = lines_of(sent).encode()
    for least in sorted(random.sample(range(15000), 3)):
        with importing(stack, data) as process:
            wait_for(lambda: count(db, fresh_source)[0] >= least or process.poll() is not None, f"{least} events", every=0.005)
        # The server may still be at the last statements.
        wait_for(lambda: db.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'steepctl events import'")
                 .fetchone() == (0,), "its sessions to end")
    stored, counted = count(db, fresh_source)
    assert stored == counted
    assert imports(data) == ((20000, 20000 - stored, stored, 0), [])
    assert count(db, fresh_source) == (20000, 20000)
    assert by_id(exported("--source", fresh_source)) == by_id(sent)


def test_an_export_that_was_killed_is_imported_as_far_as_it_came(stack, imports, exported, events, fresh_source, db):
    sent = events(20000)
    imports(lines_of(sent))
    whole = stack.steepctl("events", "export", "--source", fresh_source).stdout.encode()
    parts = [whole[:whole.index(b"\n", len(whole) // 2)]]
    for end in random.sample(range(1, len(whole)), 3):
        process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "events", "export", "--source", fresh_source], stdout=subprocess.PIPE,
                                   env=environment(stack), start_new_session=True)
        part = process.stdout.read(end)
        os.killpg(process.pid, signal.SIGKILL)
        parts.append(part + process.stdout.read())
        process.communicate()
        assert len(parts[-1]) >= end and whole.startswith(parts[-1])
    db.execute("DELETE FROM public.events WHERE source = %s", (fresh_source,))
    # Each has what the one before has, and more: how much was in the pipe when it was killed differs.
    for part in sorted(parts, key=len):
        # The last line may lack its end alone.
        lines = part.count(b"\n") + whole[len(part):].startswith(b"\n")
        half = 0 if b"\n" in (part[-1:], whole[len(part):len(part) + 1]) else 1
        (read, *_), rejected = imports(part)
        assert (read, rejected) == (lines + half, [(lines + 1, "invalid_event")] * half)
        assert count(db, fresh_source)[0] == lines
    imports(whole)
    assert by_id(exported("--source", fresh_source)) == by_id(sent)


@pytest.mark.parametrize("failing", [(4200,), (500, 1500)])
def test_an_import_that_the_database_ends_says_where_to_continue(failing, stack, imports, events, fresh_source, db):
    sent = events(6000)
    data = lines_of(sent)
    db.execute("""
        CREATE FUNCTION public.test_cancel() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(0.5); RAISE EXCEPTION 'no' USING ERRCODE = 'query_canceled'; END $$;
        CREATE TRIGGER test_cancel BEFORE INSERT ON public.events FOR EACH ROW
        WHEN (NEW.id IN ('%s')) EXECUTE FUNCTION public.test_cancel()""" % "', '".join(sent[number]["id"] for number in failing))
    try:
        done = steepctl_bytes(stack, data.encode(), "import")
    finally:
        db.execute("DROP TRIGGER test_cancel ON public.events; DROP FUNCTION public.test_cancel")
    assert done.returncode == 1
    said = re.fullmatch(r"the database reports error 57014; the lines before (\d+) are done: run it again, which skips them,"
                        r" or continue with tail -n \+\1\n", without_progress(done.stderr.decode()))
    line = int(said[1])
    assert line <= failing[0] + 1
    ids = {row[0] for row in db.execute("SELECT id FROM public.events WHERE source = %s", (fresh_source,)).fetchall()}
    assert ids >= {event["id"] for event in sent[:line - 1]}
    assert imports("".join(data.splitlines(keepends=True)[line - 1:]))[0][0] == 6000 - line + 1
    assert count(db, fresh_source) == (6000, 6000)


def test_without_a_database_the_commands_say_so(stack):
    for arguments in (["export"], ["import"]):
        assert "no connection to the database" in refuses(stack, "events", *arguments, PGHOST="/nonexistent")


def test_a_role_without_rights_is_refused(stack):
    for arguments in (["export"], ["import"]):
        assert "permission denied" in refuses(stack, "events", *arguments, PGUSER="steep_query")
