"""Behind a proxy that terminates TLS: nginx again, configured as documented."""

import json
import re
import subprocess

import pytest

from front_proxy import documented
from layouts import LISTEN, WORKS, kept, refused, status_is_ok
from machine import wait_for
from service import MIGHT_BE_SLOW, post, query


def last_address(machine):
    """The client's address in the last line of the access log."""
    return json.loads(machine.shell("tail -n 1 /var/log/nginx/steep-access.log"))["remote_address"]


def ask(machine, url, *arguments):
    """The status of an answer, 0 if there is none."""
    done = machine.run("curl", "-sS", "--insecure", "--max-time", MIGHT_BE_SLOW, "-w", "\\n%{http_code}", *arguments, url, check=False)
    return int(done.stdout.rsplit("\n", 1)[1])


@pytest.mark.parametrize("arguments, sentence", [
    (["--behind-proxy", "proxy.example"], "proxy.example is not a list of IP addresses"),
    (["--behind-proxy", "127.0.0.1,"], "127.0.0.1, is not a list of IP addresses"),
    (["--behind-proxy", "127.0.0.1;"], "127.0.0.1; is not a list of IP addresses"),
    (["--behind-proxy", "127.0.0.1/99"], "nginx rejects the site: "),
    (["--behind-proxy", "127.0.0.1", "--listen", "8080"], "--listen 8080 is not ADDRESS:PORT"),
    (["--behind-proxy", "127.0.0.1", "--listen", ":8080"], "--listen :8080 is not ADDRESS:PORT"),
    (["--behind-proxy", "192.0.2.1", "--listen", "::1:8080"], "--listen ::1:8080 is not ADDRESS:PORT"),
    (["--behind-proxy", "127.0.0.1", "--listen", "127.0.0.1:80;"], "--listen 127.0.0.1:80; is not ADDRESS:PORT"),
    (["--behind-proxy", "127.0.0.1", "--listen", "192.0.2.77:8080"], "nginx rejects the site: nginx: [emerg] bind() to 192.0.2.77:8080 failed"),
    (["--behind-proxy", "127.0.0.1", "--name", "x.test"], "--behind-proxy excludes --name and --certificate"),
    (["--listen", "127.0.0.1:8080"], "--listen belongs to --behind-proxy"),
])
def test_what_cannot_work_is_refused_and_the_site_stays_as_it_was(machine, monitor, token, arguments, sentence):
    assert sentence in refused(machine, *arguments)
    assert WORKS in machine.run("steepctl", "setup").stdout
    status_is_ok(machine)


def test_a_port_in_use_is_reported_with_the_option_that_changes_it(machine, monitor, token):
    machine.run("systemd-run", "--quiet", "--unit=squatter", "systemd-socket-activate", "--accept", "-l", "8080", "true")
    machine.shell("until grep -q ':1F90 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done")
    said = refused(machine, "--behind-proxy", "127.0.0.1")
    machine.run("systemctl", "stop", "squatter")
    assert "port 8080 is in use by a program other than nginx; set another port with --listen" in said


def test_a_port_that_a_worker_of_nginx_still_holds_is_not_in_use_by_another_program(machine, monitor, token):
    """As for a moment after a reload: here the workers are stopped, so that the moment lasts."""
    machine.run("steepctl", "setup", "--behind-proxy", "127.0.0.1")
    workers = machine.shell("pid=$(cat /run/nginx.pid); cat /proc/$pid/task/$pid/children").split()
    machine.run("kill", "-STOP", *workers)
    try:
        machine.run("mv", f"{LISTEN}.old", LISTEN)
        machine.run("systemctl", "reload", "nginx")
        wait_for(lambda: ask(machine, "https://127.0.0.1/") == 200, "nginx to answer at the old address")
        found = machine.run("sh", "-ec", ". /usr/share/steep/common/port.sh; . /usr/share/steep/admin/setup-site.sh; inodes=$(listeners 8080);"
                            " for inode in $inodes; do is_of_nginx $inode && echo nginx || echo other; done").stdout
    finally:
        machine.run("kill", "-CONT", *workers)
    wait_for(lambda: machine.run("grep", "-q", ":1F90 .* 0A ", "/proc/net/tcp", check=False).returncode == 1, "the workers to end")
    assert found == "nginx\n"
    status_is_ok(machine)


def test_a_failed_test_through_the_new_address_restores_the_old_one(machine, monitor, token):
    page = machine.file("/usr/share/steep/html/index.html")
    page.rename(page.with_suffix(".away"))
    said = refused(machine, "--behind-proxy", "127.0.0.1")
    page.with_suffix(".away").rename(page)
    assert "does not serve the page: 404" in said and machine.shell("ls /etc/nginx/sites-enabled/steep")
    wait_for(lambda: ask(machine, "https://127.0.0.1/") == 200, "the old address to answer")


@pytest.fixture(scope="module")
def proxied(machine, monitor, token):
    """Set up behind a proxy: nginx again, with the documented location and the certificate."""
    with kept(machine, "/etc/nginx"):
        before = machine.file(LISTEN).read_text()
        done = machine.run("steepctl", "setup", "--behind-proxy", "127.0.0.1", check=False)
        assert "steep: it works: http://127.0.0.1:8080/ stores events and answers queries\n" in done.stdout, done.stdout
        machine.file("/etc/nginx/conf.d/proxy.conf").write_text(
            "server {\nlisten 443 ssl;\nssl_certificate /etc/steep/tls/server.crt;\nssl_certificate_key /etc/steep/tls/server.key;\n"
            + documented("Behind a proxy") + "}\n")
        machine.run("systemctl", "reload", "nginx")
        yield before
        # The documented way back.
        machine.run("rm", "/etc/nginx/conf.d/proxy.conf")
        machine.run("mv", f"{LISTEN}.old", LISTEN)
        assert WORKS in machine.run("steepctl", "setup").stdout
        assert machine.file(LISTEN).read_text() == before
        assert "certificate is valid" in status_is_ok(machine)


def test_a_proxy_on_this_machine_needs_no_more_than_its_address(machine, proxied):
    # 1F90 is port 8080.
    assert machine.shell("awk '$4 == \"0A\" && $2 ~ /:1F90$/ { print $2 }' /proc/net/tcp /proc/net/tcp6").split() == ["0100007F:1F90"]
    said = status_is_ok(machine)
    assert "The certificate was not checked: TLS ends in front of the site." in said and "ingest.fcgi is ready." in said
    through = machine.run("steepctl", "status", env={"STEEP_URL": "https://localhost", "STEEP_CA": "/etc/steep/tls/server.crt"})
    assert "certificate is valid" in through.stdout


def test_monitors_and_dashboards_work_through_the_proxy(machine, proxied, monitor, token):
    """Also with a body that is larger than a proxy accepts by default."""
    events = [monitor.event(payload={"text": "x" * 4000}) for _ in range(1000)]
    assert len(json.dumps(events)) > 4_000_000
    assert post(machine, monitor, events)[0] == 200
    assert sum(row["eventCount"] for row in query(machine, token)["aggregates"] if row["source"] == "tester") >= 1000


def test_the_address_of_a_client_is_the_one_that_the_proxy_forwards(machine, proxied, token):
    known = ("-H", f"Authorization: Bearer {token}")
    assert ask(machine, "https://127.0.0.1/query", *known, "--interface", "127.0.0.5") == 200
    wait_for(lambda: last_address(machine) == "127.0.0.5", "the request in the log")
    # Whatever a client claims.
    assert ask(machine, "https://127.0.0.1/query", *known, "--interface", "127.0.0.6", "-H", "X-Forwarded-For: 192.0.2.99") == 200
    wait_for(lambda: last_address(machine) == "127.0.0.6", "the request in the log")
    # Nobody but the proxy is believed.
    assert ask(machine, "http://127.0.0.1:8080/query", *known, "--interface", "127.0.0.7", "-H", "X-Forwarded-For: 192.0.2.99") == 200
    wait_for(lambda: last_address(machine) == "127.0.0.7", "the request in the log")


def test_setup_again_stays_behind_the_proxy_and_keeps_the_first_listen_conf(machine, proxied):
    before = machine.file(LISTEN).read_text()
    for arguments in ([], ["--behind-proxy", "127.0.0.1"]):
        assert "it works: http://127.0.0.1:8080/" in machine.run("steepctl", "setup", *arguments).stdout
        assert machine.file(LISTEN).read_text() == before
    done = machine.run("steepctl", "setup", "--behind-proxy", "127.0.0.1,198.51.100.0/24,2001:db8::1")
    changed = machine.file(LISTEN).read_text()
    again = machine.run("steepctl", "setup", "--behind-proxy", "127.0.0.1")
    assert "it works" in done.stdout and "it works" in again.stdout
    assert re.findall("^set_real_ip_from (.*);$", changed, re.M) == ["127.0.0.1", "198.51.100.0/24", "2001:db8::1"]
    assert machine.file(LISTEN).read_text() == before
    assert machine.file(f"{LISTEN}.old").read_text() == proxied
    status_is_ok(machine)


def test_a_certificate_is_refused_where_it_would_have_no_effect(machine, proxied):
    assert "the site has no use for a certificate: " in refused(machine, "--certificate", "/etc/steep/tls/server.crt",
                                                                "--key", "/etc/steep/tls/server.key")


def test_a_proxy_on_another_machine_connects_to_the_given_address(machine, proxied, token):
    before = machine.file(LISTEN).read_text()
    for address in ("192.0.2.10", "192.0.2.20"):
        subprocess.run(machine.network("ip", "address", "add", f"{address}/32", "dev", "lo"), check=True)
    assert "the proxy 192.0.2.10 is on another machine; give the address of this one that it connects to with --listen ADDRESS:PORT" in \
        refused(machine, "--behind-proxy", "192.0.2.10")
    done = machine.run("steepctl", "setup", "--behind-proxy", "192.0.2.10", "--listen", "192.0.2.20:8081", check=False)
    said = status_is_ok(machine)
    for address, logged in (("192.0.2.10", "203.0.113.9"), ("192.0.2.20", "192.0.2.20")):
        assert ask(machine, "http://192.0.2.20:8081/query", "-H", f"Authorization: Bearer {token}", "--interface", address,
                   "-H", "X-Forwarded-For: 203.0.113.9") == 200
        wait_for(lambda wanted=logged: last_address(machine) == wanted, "the request in the log")
    assert "it works: http://127.0.0.1:8080/" in machine.run("steepctl", "setup", "--behind-proxy", "127.0.0.1").stdout
    assert "it works: http://192.0.2.20:8081/" in done.stdout, done.stdout
    assert "ingest.fcgi is ready." in said
    assert machine.file(LISTEN).read_text() == before
