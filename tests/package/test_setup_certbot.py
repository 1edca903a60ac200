"""With a certificate of certbot, from an authority on the machine that checks the name over HTTP."""

import json

import pytest

from front_proxy import documented
from layouts import kept, status_is_ok
from machine import CERTBOT, wait_for


@pytest.fixture(scope="module")
def certbot(machine, monitor, token):
    """certbot, with an authority of its own that checks the name over HTTP. Its settings take the options
    that the documented commands then don't need."""
    machine.run("apt-get", "-qq", "-y", "install", *CERTBOT, timeout=600)
    with kept(machine, "/etc/nginx", "/etc/steep/tls", "/etc/hosts"):
        machine.shell("echo 127.0.0.1 bot.test other.test >>/etc/hosts;"
                      " cp /etc/steep/tls/server.crt /root/authority.crt; cp /etc/steep/tls/server.key /root/authority.key")
        machine.file("/root/pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", "httpPort": 80, "tlsPort": 443,
            "certificate": "/root/authority.crt", "privateKey": "/root/authority.key"}}))
        machine.file("/etc/letsencrypt/cli.ini").write_text(
            "server = https://localhost:14000/dir\nno-verify-ssl = true\nagree-tos = true\nregister-unsafely-without-email = true\n"
            "non-interactive = true\nno-random-sleep-on-renew = true\n")
        machine.run("systemd-run", "--quiet", "--unit=authority", "--setenv=PEBBLE_VA_NOSLEEP=1", "--setenv=PEBBLE_WFE_NONCEREJECT=0",
                    "pebble", "-config", "/root/pebble.json")
        wait_for(lambda: machine.run("curl", "-ks", "https://localhost:14000/dir", check=False).returncode == 0, "the authority")
        yield
        machine.run("systemctl", "stop", "authority")
    machine.run("apt-get", "-qq", "-y", "purge", *CERTBOT)
    machine.run("rm", "-rf", "/etc/letsencrypt")


def served_serial(machine):
    return machine.shell("openssl s_client -connect localhost:443 </dev/null 2>/dev/null | openssl x509 -noout -serial")


def serial(machine, name):
    return machine.run("openssl", "x509", "-noout", "-serial", "-in", f"/etc/letsencrypt/live/{name}/cert.pem").stdout


def test_the_documented_commands_bring_a_certificate_of_certbot(machine, certbot):
    commands = documented("A certificate of certbot", "sh")
    assert len(commands.splitlines()) == 2
    said = machine.shell(commands.replace("HOST", "bot.test"))
    assert "it works: https://bot.test/" in said
    assert served_serial(machine) == serial(machine, "bot.test")
    status_is_ok(machine)


def test_a_renewal_takes_effect_by_itself(machine, certbot):
    before = served_serial(machine)
    machine.run("certbot", "renew", "--force-renewal")
    renewed = serial(machine, "bot.test")
    assert renewed != before
    wait_for(lambda: served_serial(machine) == renewed, "nginx to serve the new certificate")


def test_the_other_way_of_certbot_fails_for_the_documented_reason_and_changes_nothing(machine, certbot):
    before = machine.shell("cat /etc/nginx/sites-available/steep /etc/nginx/snippets/steep/*")
    done = machine.run("certbot", "--nginx", "-d", "other.test", check=False)
    assert done.returncode != 0 and "a duplicate default server for 0.0.0.0:443 in /etc/nginx/snippets/steep/listen.conf" in done.stdout
    assert machine.shell("cat /etc/nginx/sites-available/steep /etc/nginx/snippets/steep/*") == before
    machine.run("nginx", "-t")
    status_is_ok(machine)
    # What it says about the certificate: it is there, for the way that works.
    machine.run("rm", "-r", "/etc/steep/tls")
    assert "it works: https://other.test/" in machine.run("steepctl", "setup", "--name", "other.test").stdout
    assert served_serial(machine) == serial(machine, "other.test")
