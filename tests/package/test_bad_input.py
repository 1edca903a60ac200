"""Errors are reported in one sentence in the journal and by steepctl status, and leave nothing half started."""

import contextlib
import re

from machine import wait_for
from service import curl, drop_in, post, query

WARNING, CRITICAL = 1, 2


def status(machine):
    done = machine.run("steepctl", "status", check=False)
    return done.returncode, done.stdout


def is_well(machine):
    return status(machine)[0] == 0


@contextlib.contextmanager
def changed(machine, path, change):
    file = machine.file(path)
    before = file.read_text()
    file.write_text(change(before))
    try:
        yield
    finally:
        file.write_text(before)


def test_an_invalid_setting_is_reported_once(machine, monitor):
    since = machine.journal_now()
    with changed(machine, "/etc/steep/ingest.env", lambda text: text + "STEEP_WORKERS=many\n"):
        assert machine.run("systemctl", "restart", "steep-ingest", check=False).returncode != 0
        sentences = [line for line in machine.journal("steep-ingest", since).splitlines() if "event=configuration" in line]
        assert len(sentences) == 1
        assert "variable=STEEP_WORKERS" in sentences[0] and "must be a whole number from 1 to 256" in sentences[0]
        # A restart would not help, so there is none.
        assert machine.show("steep-ingest.service", "ActiveState") == "failed"
        assert machine.show("steep-ingest.service", "ExecMainStatus") == "78"
        code, said = status(machine)
        assert code == CRITICAL and "STEEP_WORKERS" in said, said
        # nginx answers clients at once.
        assert post(machine, monitor, [monitor.event()])[0] == 503
        done = machine.run("steepctl", "setup", check=False)
        assert done.returncode == 1 and "/etc/steep/ingest.env: " in done.stdout and "STEEP_WORKERS" in done.stdout
    machine.run("systemctl", "restart", "steep-ingest")
    assert post(machine, monitor, [monitor.event()])[0] == 200
    assert is_well(machine), status(machine)


def test_a_line_that_is_not_a_setting_is_reported(machine):
    since = machine.journal_now()
    with changed(machine, "/etc/steep/query.env", lambda text: text + "export STEEP_WORKERS=3\n"):
        machine.run("systemctl", "restart", "steep-query")
        machine.run("journalctl", "--sync")
        said = machine.run("journalctl", "-q", "-o", "cat", "--after-cursor", since).stdout
        assert "Ignoring invalid environment assignment 'export STEEP_WORKERS=3': /etc/steep/query.env" in said
        code, said = status(machine)
        assert code == WARNING and re.search(r"/etc/steep/query.env, line \d+, is not NAME=VALUE", said), said
    # Without an equals sign systemd reports nothing.
    with changed(machine, "/etc/steep/query.env", lambda text: text + "STEEP_WORKERS 3\n"):
        code, said = status(machine)
        assert code == WARNING and re.search(r"/etc/steep/query.env, line \d+, is not NAME=VALUE", said), said
    machine.run("systemctl", "restart", "steep-query")


def test_an_invalid_number_of_days_is_reported(machine):
    """Reported before the daily run fails."""
    with changed(machine, "/etc/steep/prune.env", lambda text: text.replace("STEEP_RETENTION_DAYS=", "STEEP_RETENTION_DAYS=x")):
        code, said = status(machine)
        assert code == WARNING and "/etc/steep/prune.env: STEEP_RETENTION_DAYS must be a whole number from 1 to 36500." in said, said
    assert is_well(machine), status(machine)


def test_a_database_of_a_newer_version_is_reported_and_served(machine, token):
    machine.sql("INSERT INTO schema_migrations (name, sha256) VALUES ('29990101_of_tomorrow.sql', 'x')")
    since = machine.journal_now()
    try:
        machine.run("systemctl", "restart", "steep-ingest", "steep-query")
        for program in ("ingest", "query"):
            wait_for(lambda: "the database has migrations of a newer version of this program"
                     in machine.journal(f"steep-{program}", since), f"{program}'s sentence")
            assert "29990101_of_tomorrow.sql" in machine.journal(f"steep-{program}", since)
        code, said = status(machine)
        assert code == CRITICAL and "29990101_of_tomorrow.sql" in said, said
        assert "aggregates" in query(machine, token)
    finally:
        machine.sql("DELETE FROM schema_migrations WHERE name = '29990101_of_tomorrow.sql'")
    assert is_well(machine), status(machine)


def test_a_missing_migration_is_reported_and_the_database_served(machine, token):
    name, digest = machine.sql("SELECT name, sha256 FROM schema_migrations ORDER BY name DESC LIMIT 1").split("|")
    machine.sql(f"DELETE FROM schema_migrations WHERE name = '{name}'")
    since = machine.journal_now()
    try:
        machine.run("systemctl", "restart", "steep-ingest", "steep-query")
        for program in ("ingest", "query"):
            wait_for(lambda: "the database lacks migrations; run steepctl migrate" in machine.journal(f"steep-{program}", since),
                     f"{program}'s sentence")
        code, said = status(machine)
        assert code == WARNING and "Pending migrations: 1" in said, said
        assert "aggregates" in query(machine, token)
    finally:
        machine.sql(f"INSERT INTO schema_migrations (name, sha256) VALUES ('{name}', '{digest}')")
    assert is_well(machine), status(machine)


def test_a_missing_grant_is_reported_and_its_return_noticed(machine, monitor):
    machine.sql("REVOKE EXECUTE ON FUNCTION list_monitor_keys(uuid) FROM steep_ingest")
    since = machine.journal_now()
    try:
        machine.run("systemctl", "restart", "steep-ingest")
        sentence = wait_for(lambda: [line for line in machine.journal("steep-ingest", since).splitlines()
                                     if "event=keyring" in line], "the sentence")
        assert len(sentence) == 1 and "could not read the credentials" in sentence[0] and "sqlstate=42501" in sentence[0]
        assert curl(machine, "/readyz/ingest")[0] == 503
        assert post(machine, monitor, [monitor.event()])[0] == 503
        code, said = status(machine)
        assert code == CRITICAL and "steep_ingest" in said and "list_monitor_keys(uuid)" in said, said
    finally:
        machine.sql("GRANT EXECUTE ON FUNCTION list_monitor_keys(uuid) TO steep_ingest")
    wait_for(lambda: post(machine, monitor, [monitor.event()])[0] == 200, "the grant to be noticed")
    assert is_well(machine), status(machine)


def test_a_missing_certificate_is_reported(machine, token):
    machine.run("mv", "/etc/steep/tls/server.crt", "/root/server.crt")
    since = machine.journal_now()
    # Running processes keep the certificate that they have read; a start needs the file.
    assert machine.run("systemctl", "reload", "nginx", check=False).returncode != 0
    assert machine.run("systemctl", "restart", "nginx", check=False).returncode != 0
    assert 'cannot load certificate "/etc/steep/tls/server.crt"' in machine.journal("nginx", since)
    code, said = status(machine)
    assert code == CRITICAL and "/etc/steep/tls/server.crt" in said, said
    machine.run("mv", "/root/server.crt", "/etc/steep/tls/server.crt")
    machine.run("systemctl", "restart", "nginx")
    assert "aggregates" in query(machine, token)


def test_setup_replaces_a_missing_certificate(machine, token):
    machine.run("rm", "/etc/steep/tls/server.crt")
    assert "it works" in machine.run("steepctl", "setup").stdout
    assert "aggregates" in query(machine, token)
    assert is_well(machine), status(machine)


def test_a_port_in_use_is_reported(machine, token):
    machine.run("systemctl", "stop", "nginx")
    machine.run("systemd-run", "--quiet", "--unit=squatter", "systemd-socket-activate", "--accept", "-l", "443", "true")
    machine.shell("until grep -q ':01BB .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done")
    since = machine.journal_now()
    try:
        assert machine.run("systemctl", "start", "nginx", check=False).returncode != 0
        assert "bind() to 0.0.0.0:443 failed (98: Address already in use)" in machine.journal("nginx", since)
        code, said = status(machine)
        assert code == CRITICAL and "Address already in use" in said, said
        done = machine.run("steepctl", "setup", check=False)
        assert done.returncode == 1 and "port 443 is in use by a program other than nginx" in done.stdout
    finally:
        machine.run("systemctl", "stop", "squatter")
        machine.run("systemctl", "start", "nginx")
    assert "aggregates" in query(machine, token)


def test_a_setup_that_fails_leaves_the_installation_as_it_was(machine, token):
    """The service does not start: setup reports it and removes nothing."""
    drop_in(machine, "steep-ingest.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    done = machine.run("steepctl", "setup", check=False)
    assert done.returncode == 1 and "steep-ingest.service failed to start" in done.stdout
    drop_in(machine, "steep-ingest.service", "")
    assert machine.file("/etc/nginx/sites-enabled/steep").is_symlink()
    assert "aggregates" in query(machine, token)
    assert "it works" in machine.run("steepctl", "setup").stdout
    assert is_well(machine), status(machine)
