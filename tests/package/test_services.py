"""What operators do to services, and what happens to them, while monitors and a dashboard send requests."""

import os
import re
import signal
import time

import pytest

from machine import wait_for
from service import curl, drop_in, main_pid, post, query

PROGRAMS = ["ingest", "query"]


def stored(machine):
    return int(machine.sql("SELECT count(*) FROM events WHERE source = 'tester'"))


def host_pid(machine, unit):
    """The process's id on the host: the last number of NSpid is the container's."""
    wanted = main_pid(machine, unit)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/status", encoding="utf-8") as status:
                    found = re.search(r"^NSpid:.*\t(\d+)$", status.read(), re.M)
                if found and found[1] == wanted and os.readlink(f"/proc/{entry}/exe").endswith(".fcgi"):
                    return int(entry)
            except OSError:
                continue
    raise AssertionError(f"{unit} has no process")


def is_another(machine, unit, pid):
    return machine.show(unit, "ActiveState") == "active" and main_pid(machine, unit) not in ("0", pid)


def test_a_signed_batch_is_stored_and_counted(machine, monitor, token):
    def counted():
        return sum(row["eventCount"] for row in query(machine, token)["aggregates"] if row["source"] == "tester")

    before = counted()
    assert post(machine, monitor, [monitor.event(), monitor.event()])[0] == 200
    assert counted() == before + 2
    machine.run("steepctl", "counts", "check")


def test_status_reports_that_all_is_well(machine):
    done = machine.run("steepctl", "status", check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^Connections of nginx: \d+ in use by a worker, which may have 768\.$", done.stdout, re.MULTILINE)


def test_both_programs_report_their_health(machine):
    for program in PROGRAMS:
        assert curl(machine, f"/healthz/{program}")[0] == 200
        assert curl(machine, f"/readyz/{program}")[0] == 200
        assert curl(machine, f"/metrics/{program}")[0] == 404
        for host in ("127.0.0.1", "[::1]"):
            assert "steep_" in machine.run("curl", "-sSg", f"http://{host}:9180/metrics/{program}").stdout


def test_systemd_knows_when_they_are_ready_and_watches_them(machine):
    for program in PROGRAMS:
        assert machine.show(f"steep-{program}.service", "Type") == "notify"
        assert machine.show(f"steep-{program}.service", "WatchdogUSec") == "30s"
        assert machine.show(f"steep-{program}.service", "NRestarts") == "0"


def test_a_restart_loses_no_request(machine, load):
    pids = {program: main_pid(machine, f"steep-{program}") for program in PROGRAMS}
    for _ in range(3):
        for program in PROGRAMS:
            machine.run("systemctl", "restart", f"steep-{program}.service")
        time.sleep(0.5)
    result = load()
    assert not result["lost"] and not result["faults"], result
    assert result["events"] > 100 and result["answers"] > 10
    assert stored(machine) - load.before == result["events"]
    assert all(main_pid(machine, f"steep-{program}") != pid for program, pid in pids.items())
    machine.run("steepctl", "counts", "check")


@pytest.mark.parametrize("program", PROGRAMS)
def test_kill_9_costs_no_more_than_a_retry(machine, load, program):
    unit = f"steep-{program}.service"
    pid = main_pid(machine, unit)
    os.kill(host_pid(machine, unit), signal.SIGKILL)
    wait_for(lambda: is_another(machine, unit, pid), f"{unit} to be back")
    time.sleep(0.5)
    result = load()
    assert not result["lost"], result
    assert stored(machine) - load.before == result["events"] > 0
    assert machine.show(unit, "NRestarts") == "1"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_watchdog_ends_a_program_that_hangs(machine, token, program):
    unit = f"steep-{program}.service"
    drop_in(machine, unit, "[Service]\nWatchdogSec=6s\n")
    machine.run("systemctl", "restart", unit)
    pid, since = main_pid(machine, unit), machine.journal_now()
    os.kill(host_pid(machine, unit), signal.SIGSTOP)
    wait_for(lambda: is_another(machine, unit, pid), f"the watchdog to start {unit} again")
    assert f"{unit}: Watchdog timeout (limit 6s)!" in machine.journal(unit, since)
    drop_in(machine, unit, "")
    machine.run("systemctl", "restart", unit)
    assert "aggregates" in query(machine, token)


def test_a_program_that_crashes_repeatedly_is_back_within_a_minute(machine, monitor, load):
    """Both of its listeners are back."""
    unit, before = "steep-ingest.service", main_pid(machine, "steep-ingest.service")
    for _ in range(8):
        wait_for(lambda: is_another(machine, unit, "0"), f"{unit} to be back")
        os.kill(host_pid(machine, unit), signal.SIGKILL)
        wait_for(lambda: main_pid(machine, unit) != before, f"{unit} to be gone")
        before = main_pid(machine, unit)
    wait_for(lambda: post(machine, monitor, [monitor.event()])[0] == 200, "it to answer again", seconds=60)
    assert {machine.show(f"steep-ingest{kind}.socket", "ActiveState") for kind in ("", "-health")} == {"active"}
    result = load()
    assert stored(machine) - load.before > result["events"] > 0


def test_the_timer_prunes(machine, monitor, token):
    """The timer itself, at an earlier hour; the days are those of the environment file."""
    machine.sql("INSERT INTO events (id, source, timestamp, event_type, payload)"
                " SELECT 'evt_old' || n, 'tester', now() - n * interval '1 day', 'tool', '{}'::jsonb FROM generate_series(80, 99) AS n"
                " UNION ALL SELECT 'evt_new' || n, 'tester', now(), 'tool', '{}' FROM generate_series(1, 20) AS n")
    settings = machine.file("/etc/steep/prune.env")
    settings.write_text(settings.read_text().replace("STEEP_RETENTION_DAYS=90", "STEEP_RETENTION_DAYS=85"))
    assert machine.show("steep-prune.timer", "ActiveState") == "active"
    since = machine.journal_now()
    drop_in(machine, "steep-prune.timer", "[Timer]\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1s\n")
    machine.run("systemctl", "restart", "steep-prune.timer")
    wait_for(lambda: machine.sql("SELECT count(*) FROM events WHERE id LIKE 'evt\\_old%'") == "5", "the old events to be gone")
    wait_for(lambda: "events deleted: 15" in machine.journal("steep-prune.service", since), "the line in the journal")
    drop_in(machine, "steep-prune.timer", "")
    settings.write_text(settings.read_text().replace("STEEP_RETENTION_DAYS=85", "STEEP_RETENTION_DAYS=90"))
    machine.run("systemctl", "restart", "steep-prune.timer")
    assert machine.show("steep-prune.service", "Result") == "success"
    machine.run("steepctl", "counts", "check")
    machine.sql("DELETE FROM events WHERE id ~ '^evt_(old|new)'")


def test_the_daily_run_fails_with_a_reason_if_it_would_delete_most_events(machine, monitor, token):
    """As it would if the clock of the database were years ahead."""
    before = int(machine.sql("SELECT count(*) FROM events"))
    machine.sql("INSERT INTO events (id, source, timestamp, event_type, payload)"
                " SELECT 'evt_old' || n, 'tester', now() - (100 + n % 10) * interval '1 day', 'tool', '{}'"
                f" FROM generate_series(1, {before + 10}) AS n")
    since = machine.journal_now()
    assert machine.run("systemctl", "start", "steep-prune", check=False).returncode != 0
    assert machine.show("steep-prune.service", "Result") == "exit-code"
    reason = f"steepctl: refused to delete {before + 10} of {2 * before + 10} events, "
    assert reason in machine.journal("steep-prune.service", since)
    assert int(machine.sql("SELECT count(*) FROM events")) == 2 * before + 10
    status = machine.run("steepctl", "status", check=False)
    assert status.returncode == 1 and f"WARNING: steep-prune.service failed: {reason}" in status.stdout, status.stdout
    assert "run steepctl prune 90 --force." in status.stdout
    assert machine.run("steepctl", "prune", "90", "--force").stdout == f"events deleted: {before + 10}\n"
    machine.run("systemctl", "start", "steep-prune")
    assert machine.run("steepctl", "status", check=False).returncode == 0


def test_the_pruning_role_may_do_nothing_else(machine):
    done = machine.run("runuser", "-u", "steep-prune", "--", "psql", "-XAt", "-U", "steep_prune", "-d", "steep", "-c",
                       "SELECT count(*) FROM events", check=False)
    assert "permission denied for table events" in done.stdout


def test_the_access_log_is_rotated(machine, token):
    log = machine.file("/var/log/nginx/steep-access.log")
    before = log.stat().st_ino
    machine.run("logrotate", "--force", "/etc/logrotate.d/nginx")
    assert "aggregates" in query(machine, token)
    wait_for(lambda: log.exists() and '"path":"/query"' in log.read_text(), "the request in the new log")
    assert log.stat().st_ino != before and machine.file("/var/log/nginx/steep-access.log.1").stat().st_size > 0


def test_a_failure_has_its_priority_in_the_journal(machine):
    """Warnings and errors can be told from the lines of ordinary requests."""
    since = machine.journal_now()
    machine.run("systemctl", "restart", "steep-ingest")
    machine.run("journalctl", "--sync")
    shown = machine.run("journalctl", "-q", "-o", "json", "--output-fields=PRIORITY,MESSAGE", "-u", "steep-ingest",
                        "--after-cursor", since).stdout
    lines = [line for line in shown.splitlines() if "event=serving" in line]
    assert lines and all('"PRIORITY":"6"' in line for line in lines), shown


def test_everything_works_after_a_reboot(machine, monitor, token):
    machine.stop()
    machine.boot()
    wait_for(lambda: "aggregates" in query(machine, token), "the first answer after the reboot")
    assert post(machine, monitor, [monitor.event()])[0] == 200
    assert machine.show("steep-prune.timer", "ActiveState") == "active"
