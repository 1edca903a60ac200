"""The package of the reference monitor, here on the server's machine: from a file to the counts."""

import shutil

from machine import wait_for
from service import query
from test_administration import complete

EVENTS = "/var/log/steep-events.ndjson"


def stored(machine):
    return int(machine.sql("SELECT count(*) FROM events WHERE source = 'watched'"))


def test_it_is_installed_and_waits_for_its_settings(machine, monitor_package):
    shutil.copy(monitor_package, machine.file("/root"))
    machine.run("apt-get", "-qq", "-y", "install", f"/root/{monitor_package.name}")
    assert machine.show("steep-monitor", "ActiveState") == "inactive"
    assert complete(machine, "steep-monitor", "steep-monitor rejected ") == {"list", "retry", "discard"}
    assert machine.run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/steep-monitor.service").stdout == ""


def test_what_is_appended_to_its_file_is_stored_and_counted(machine, token):
    machine.run("runuser", "-u", "steep-monitor", "--", "steep-monitor", "keygen", "/var/lib/steep-monitor")
    key = machine.file("/var/lib/steep-monitor/key.pub").read_text().strip()
    machine.run("steepctl", "monitor", "add", "watched", key)
    settings = machine.file("/etc/steep/steep-monitor.env")
    settings.write_text(settings.read_text().replace("STEEP_URL=\n", "STEEP_URL=https://localhost\n")
                        + "STEEP_SOURCE=watched\nSTEEP_CA=/etc/steep/tls/server.crt\nSTEEP_BATCH_INTERVAL_SECS=1\n")
    machine.file(EVENTS).write_text('{"type":"tool","payload":{"tool":"Read"}}\n')
    machine.run("systemctl", "enable", "--quiet", "--now", "steep-monitor")
    with machine.file(EVENTS).open("a", encoding="utf-8") as file:
        file.write('{"type":"session","payload":{}}\n')
    wait_for(lambda: stored(machine) == 2, "both events")
    assert sum(row["eventCount"] for row in query(machine, token)["aggregates"] if row["source"] == "watched") == 2


def test_its_user_reads_the_status_and_the_rejected_events(machine):
    command = ["runuser", "-u", "steep-monitor", "--", "steep-monitor", "--state", "/var/lib/steep-monitor"]
    with machine.file(EVENTS).open("a", encoding="utf-8") as file:
        file.write("bad\n")
    wait_for(lambda: '"event":"bad"' in machine.run(*command, "rejected", "list").stdout, "the bad line")
    status = machine.run(*command, "status").stdout
    assert "running: yes\n" in status and "sent: 2\n" in status and "rejected: 1\n" in status
    # Root may look as well, and leaves no file that the service can't write.
    machine.run("steep-monitor", "--state", "/var/lib/steep-monitor", "status")
    assert machine.run("find", "/var/lib/steep-monitor", "!", "-user", "steep-monitor").stdout == ""


def test_removal_leaves_the_spool_and_purge_takes_it(machine):
    machine.run("apt-get", "-qq", "-y", "remove", "steep-monitor")
    assert machine.show("steep-monitor", "ActiveState") == "inactive"
    assert machine.file("/var/lib/steep-monitor/key.priv").exists()
    machine.run("apt-get", "-qq", "-y", "purge", "steep-monitor")
    assert not machine.file("/var/lib/steep-monitor").exists()
    assert machine.file("/etc/steep/ingest.env").exists() and not machine.file("/etc/steep/steep-monitor.env").exists()
