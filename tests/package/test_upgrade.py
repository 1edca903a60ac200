"""An upgrade to a higher version while monitors and a dashboard send requests."""

import shutil

from conftest import NEXT_MIGRATION, NEXT_VERSION
from machine import wait_for
from service import main_pid, query


def stored(machine):
    return int(machine.sql("SELECT count(*) FROM events WHERE source = 'tester'"))


def test_an_upgrade_loses_no_request(machine, next_packages, load):
    package = next_packages()
    shutil.copy(package, machine.file("/root/next.deb"))
    settings = machine.file("/etc/steep/query.env")
    changed = settings.read_text() + "\n# The administrator's own line.\n"
    settings.write_text(changed)
    pids = {program: main_pid(machine, f"steep-{program}") for program in ("ingest", "query")}
    # Whatever database the upgrade's shell uses.
    machine.run("apt-get", "-qq", "-y", "install", "/root/next.deb", env={"PGHOST": "/nonexistent", "PGUSER": "nobody"})
    wait_for(lambda: all(main_pid(machine, f"steep-{program}") not in ("0", pid) for program, pid in pids.items()),
             "both programs to be new ones")
    result = load()
    assert not result["lost"], result
    assert stored(machine) - load.before == result["events"] > 100 and result["answers"] > 10
    assert settings.read_text() == changed
    for program in pids:
        version = machine.run(f"/usr/lib/steep/{program}.fcgi", "-V").stdout
        assert version == f"{program}.fcgi (steep) {NEXT_VERSION}\n"
    machine.run("steepctl", "counts", "check")


def test_the_upgrade_migrated_the_database(machine):
    assert machine.sql(f"SELECT count(*) FROM schema_migrations WHERE name = '{NEXT_MIGRATION}'") == "1"
    assert machine.run("steepctl", "status", check=False).returncode == 0


def test_an_upgrade_without_a_database_reports_what_is_left_to_do(machine, token):
    machine.run("systemctl", "stop", "postgresql")
    done = machine.run("dpkg", "-i", "/root/next.deb", check=False)
    machine.run("systemctl", "start", "postgresql")
    assert done.returncode == 0
    assert "steep: cannot migrate the database; run steepctl migrate" in done.stdout
    wait_for(lambda: "aggregates" in query(machine, token), "an answer")


def test_going_back_to_the_last_version_is_noticed_and_works(machine, package, token):
    machine.run("dpkg", "-i", f"/root/{package.name}")
    done = machine.run("steepctl", "status", check=False)
    assert done.returncode == 2 and NEXT_MIGRATION in done.stdout, done.stdout
    assert "aggregates" in query(machine, token)
