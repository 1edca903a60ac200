"""What a compromised program could do: systemd's score, and a probe that tries it in the same sandbox."""

import re
import subprocess
import warnings
from pathlib import Path

import pytest

from machine import wait_for
from service import drop_in, post, query, reload_nginx

PROGRAMS = ["ingest", "query"]
MOST_EXPOSURE = 0.5

# The only attempts of the probe that may succeed: PostgreSQL's socket.
ALLOWED = {("connect", "/run/postgresql/.s.PGSQL.5432")}


def exposure(text):
    return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)[1])


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_score_of_the_running_service_is_good(machine, program):
    shown = machine.run("systemd-analyze", "--no-pager", "security", f"steep-{program}.service").stdout
    assert exposure(shown) <= MOST_EXPOSURE, shown


@pytest.mark.parametrize("program", [*PROGRAMS, "prune"])
def test_the_score_of_the_unit_file_is_good(machine, program):
    unit = machine.file(f"/lib/systemd/system/steep-{program}.service")
    done = subprocess.run(["systemd-analyze", "--no-pager", "security", "--offline=yes", str(unit)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    assert exposure(done.stdout) <= MOST_EXPOSURE, done.stdout


@pytest.fixture(scope="module")
def probe(machine):
    binary = machine.file("/usr/lib/steep/probe")
    subprocess.run(["cc", "-D_GNU_SOURCE", f'-DPOSTGRESQL="{machine.postgresql}"', "-o", str(binary),
                    str(Path(__file__).with_name("probe.c"))], check=True)
    yield "/usr/lib/steep/probe"
    binary.unlink()


def attempts(text):
    """{(attempt, what): "ok" or an error}"""
    return {tuple(line.split()[:2]): line.split()[2] for line in text.splitlines() if len(line.split()) == 3}


def run_in_sandbox(machine, program, drop_ins=""):
    """Run the unit with the probe as its command and without notifications."""
    unit = machine.file(f"/lib/systemd/system/steep-{program}.service").read_text()
    unit = re.sub(r"(?m)^(Type|NotifyAccess|WatchdogSec|Restart|RestartPreventExitStatus|Requires|Sockets)=.*\n", "", unit)
    unit = re.sub(r"(?m)^ExecStart=.*", "Type=oneshot\nExecStart=/usr/lib/steep/probe", unit)
    machine.file(f"/run/systemd/system/steep-probe.service")
    machine.run("tee", "/run/systemd/system/steep-probe.service", input=unit)
    drop_in(machine, "steep-probe.service", drop_ins)
    since = machine.journal_now()
    machine.run("systemctl", "start", "steep-probe.service")
    done = attempts(wait_for(lambda: "trace itself" in machine.journal("steep-probe.service", since)
                             and machine.journal("steep-probe.service", since), "the probe's report"))
    machine.run("rm", "/run/systemd/system/steep-probe.service")
    drop_in(machine, "steep-probe.service", "")
    return done


def test_the_probe_succeeds_outside_the_sandbox(machine, probe):
    """Otherwise its failures would prove nothing."""
    done = attempts(machine.run(probe).stdout)
    assert len(done) > 20
    refused = {attempt for attempt, result in done.items() if result != "ok"}
    assert refused <= {("mount", "/nonexistent"), ("unshare", "a-user-namespace")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_sandbox_allows_no_file_no_tcp_connection_no_other_program(machine, probe, program):
    done = run_in_sandbox(machine, program)
    assert len(done) > 20
    assert {attempt for attempt, result in done.items() if result == "ok"} == ALLOWED
    assert done[("connect", "127.0.0.1:5432")] == done[("connect", "[::1]:5432")] == "EAFNOSUPPORT"
    assert done[("read", "/etc/passwd")] == done[("execute", "/bin/sh")] == "ENOENT"


def test_a_remote_database_needs_the_drop_in_which_opens_only_the_network(machine, probe, token, filters_addresses):
    """PostgreSQL's TCP port on this machine stands in for a remote one."""
    settings = machine.file("/etc/steep/query.env")
    before = settings.read_text()
    example = machine.file("/usr/share/doc/steep/examples/remote-database.conf").read_text()
    example = example.replace("IPAddressAllow=192.0.2.1", "IPAddressAllow=127.0.0.1")
    machine.sql("ALTER ROLE steep_query PASSWORD 'for-this-test'")
    settings.write_text(before.replace("PGHOST=/run/postgresql", "PGHOST=127.0.0.1\nPGPASSWORD=for-this-test"))
    try:
        machine.run("systemctl", "restart", "steep-query")
        assert query(machine, token)[0] == 503
        drop_in(machine, "steep-query.service", example)
        machine.run("systemctl", "restart", "steep-query")
        wait_for(lambda: "aggregates" in query(machine, token), "an answer over TCP")
        assert machine.sql("SELECT bool_and(client_addr = '127.0.0.1') FROM pg_stat_activity WHERE usename = 'steep_query'") == "t"
        opened = run_in_sandbox(machine, "query", example)
        others = set() if filters_addresses else {("connect", "[::1]:5432")}
        assert {attempt for attempt, result in opened.items() if result == "ok"} == ALLOWED | others | {("connect", "127.0.0.1:5432")}
        shown = machine.run("systemd-analyze", "--no-pager", "security", "steep-query.service").stdout
        print(shown.splitlines()[-1])
    finally:
        settings.write_text(before)
        machine.sql("ALTER ROLE steep_query PASSWORD NULL")
        drop_in(machine, "steep-query.service", "")
        machine.run("systemctl", "restart", "steep-query")
    wait_for(lambda: "aggregates" in query(machine, token), "an answer over the socket again")


@pytest.fixture(scope="module")
def filters_addresses(machine):
    """Whether systemd can filter addresses, for which the kernel must have BPF."""
    command = ["systemd-run", "--wait", "--quiet", "-p", "IPAddressDeny=any", "curl", "-s", "--connect-timeout", "3", "-o", "/dev/null"]
    assert machine.run("curl", "-s", "-k", "-o", "/dev/null", "https://127.0.0.1/").returncode == 0
    filtered = machine.run(*command, "-k", "https://127.0.0.1/", check=False).returncode != 0
    if not filtered:
        warnings.warn("systemd can filter no addresses here: what IPAddressDeny= keeps out was not tested")
    return filtered


def connected(machine, address, ports):
    """To which of the ports of 127.0.0.2 a connection can be made from an address."""
    said = machine.shell("\n".join(f"(curl -s -o /dev/null --interface {address} --connect-timeout 5 --max-time 6"
                                   f" -w '{port} %{{time_connect}}\n' telnet://127.0.0.2:{port} </dev/null || :) &" for port in ports) + "\nwait")
    return {int(port) for port, seconds in map(str.split, said.splitlines()) if float(seconds) > 0}


def test_front_ends_listen_on_one_address_with_the_drop_in(machine, monitor, token, filters_addresses):
    """The loopback network stands in for a private one."""
    example = machine.file("/usr/share/doc/steep/examples/front-end.conf").read_text().replace("192.0.2.10", "127.0.0.1")
    sockets = {"ingest": 9101, "ingest-health": 9102, "query": 9103, "query-health": 9104}
    units = [f"steep-{name}.socket" for name in sockets]
    upstream = machine.file("/etc/nginx/snippets/steep/upstream.conf")
    before = upstream.read_text()
    text = before
    try:
        for name, port in sockets.items():
            drop_in(machine, f"steep-{name}.socket", example.replace("192.0.2.11:9101", f"127.0.0.2:{port}"))
            text = text.replace(f"unix:/run/steep/{name}.sock", f"127.0.0.2:{port}")
        machine.run("systemctl", "restart", *units)
        upstream.write_text(text)
        reload_nginx(machine)
        wait_for(lambda: post(machine, monitor, [monitor.event()])[0] == 200, "a batch over TCP")
        assert "aggregates" in query(machine, token)
        # 0A is LISTEN; 0200007F is 127.0.0.2.
        table = [line.split()[1:4] for line in machine.run("cat", "/proc/net/tcp").stdout.splitlines()[1:]]
        listening = {local for local, _, state in table if state == "0A"}
        ours = {each for each in listening if int(each[-4:], 16) in sockets.values()}
        assert ours == {f"0200007F:{port:04X}" for port in sockets.values()}
        for unit in units:
            assert machine.show(unit, "IPAddressAllow") == "127.0.0.1/32" and machine.show(unit, "KeepAlive") == "yes"
        # Only from the address of nginx's machine.
        assert connected(machine, "127.0.0.1", sockets.values()) == set(sockets.values())
        assert connected(machine, "127.0.0.3", sockets.values()) == (set() if filters_addresses else set(sockets.values()))
    finally:
        for unit in units:
            drop_in(machine, unit, "")
        machine.run("systemctl", "restart", *units)
        upstream.write_text(before)
        reload_nginx(machine)
    wait_for(lambda: post(machine, monitor, [monitor.event()])[0] == 200, "a batch over the socket again")
