"""Removal keeps the data and the settings; purge asks nothing and keeps the database."""

from conftest import NEXT_VERSION
from service import configuration

UNITS = ["steep-ingest.socket", "steep-ingest-health.socket", "steep-query.socket", "steep-query-health.socket",
         "steep-ingest.service", "steep-query.service", "steep-prune.timer"]


def events(machine):
    return int(machine.sql("SELECT count(*) FROM events"))


def test_removal_stops_it_and_leaves_data_and_settings(machine):
    before = events(machine)
    for link in ("sites-enabled/counts.test", "conf.d/steep.conf"):
        machine.run("ln", "-s", "/etc/nginx/sites-available/steep", f"/etc/nginx/{link}")
    machine.run("apt-get", "-qq", "-y", "remove", "steep")
    assert not machine.shell("find /etc/nginx/sites-enabled /etc/nginx/conf.d -lname '*steep*'")
    assert set(machine.run("systemctl", "is-active", *UNITS, check=False).stdout.split()) == {"inactive"}
    machine.run("nginx", "-t")
    assert machine.show("nginx", "ActiveState") == "active"
    assert events(machine) == before > 0
    assert machine.file("/etc/steep/ingest.env").exists() and machine.file("/etc/steep/tls/server.key").exists()
    assert not machine.file("/usr/lib/steep").exists() and not machine.file("/usr/share/steep").exists()


def test_a_second_installation_has_the_data_of_the_first(machine):
    before = events(machine)
    machine.run("apt-get", "-qq", "-y", "install", "/root/next.deb")
    assert "it works" in machine.run("steepctl", "setup").stdout
    assert NEXT_VERSION in machine.run("/usr/lib/steep/ingest.fcgi", "-V").stdout
    assert events(machine) == before


def test_purge_asks_nothing_and_keeps_the_database(machine):
    before = events(machine)
    files = configuration(machine)
    texts = [machine.file(name).read_text() for name in files]
    assert machine.file("/var/log/nginx/steep-access.log").exists()
    # As setup leaves them behind a proxy, and with nginx.org's package.
    machine.shell("touch /etc/nginx/snippets/steep/listen.conf.old; mkdir /etc/systemd/system/steep-.socket.d;"
                  " printf '[Socket]\\nSocketGroup=www-data\\n' >/etc/systemd/system/steep-.socket.d/nginx.conf")
    # Without a terminal and standard input: a question would abort it.
    machine.run("apt-get", "-qq", "-y", "purge", "steep", env={"DEBIAN_FRONTEND": "readline"})
    assert machine.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "steep", check=False).stdout in ("not-installed", "") \
        or "no packages found" in machine.run("dpkg-query", "-W", "steep", check=False).stdout
    left = machine.shell("find /etc /lib/systemd /usr/lib /usr/share /run /var/log/nginx -xdev -name '*steep*' ! -path '*/postgresql/*'"
                         " ! -path '*/systemd/propagate*'")
    assert left.split() == [], left
    machine.run("nginx", "-t")
    assert machine.show("nginx", "ActiveState") == "active"
    assert events(machine) == before > 0
    assert [machine.file(name).read_text() for name in files] == texts
    assert machine.run("systemctl", "is-system-running", check=False).stdout.strip() == "running"
