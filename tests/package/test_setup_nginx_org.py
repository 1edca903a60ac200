"""With the layout of nginx.org's package, which Debian cannot install here."""

import pytest

from layouts import WORKS, kept, refused, status_is_ok
from service import post, query

# nginx.org's nginx.conf, of its package for Debian.
NGINX_ORG = """
user  nginx;
worker_processes  auto;

error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;


events {
    worker_connections  1024;
}


http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;

    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';

    access_log  /var/log/nginx/access.log  main;

    sendfile        on;
    #tcp_nopush     on;

    keepalive_timeout  65;

    #gzip  on;

    include /etc/nginx/conf.d/*.conf;
}
"""


def groups_of_the_sockets(machine):
    return set(machine.shell("stat -c %G /run/steep/*.sock").split())


@pytest.fixture(scope="module")
def nginx_org(machine, monitor, token):
    """The layout of nginx.org's package: another user, conf.d, and no folder of sites."""
    machine.run("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", "nginx")
    with kept(machine, "/etc/nginx"):
        machine.run("rm", "-r", "/etc/nginx/sites-enabled")
        machine.file("/etc/nginx/nginx.conf").write_text(NGINX_ORG)
        machine.run("systemctl", "restart", "nginx")
        yield
    assert groups_of_the_sockets(machine) == {"www-data"}
    assert not machine.file("/etc/systemd/system/steep-.socket.d").exists()


def test_setup_works_with_the_layout_of_nginx_org(machine, nginx_org, monitor, token):
    done = machine.run("steepctl", "setup", check=False)
    assert WORKS in done.stdout and "Warning" not in done.stdout, done.stdout
    assert machine.run("readlink", "-f", "/etc/nginx/conf.d/steep.conf").stdout == "/etc/nginx/sites-available/steep\n"
    assert not machine.file("/etc/nginx/sites-enabled").exists()
    assert groups_of_the_sockets(machine) == {"nginx"}
    assert machine.shell("ps -o user= -C nginx | sort -u").split() == ["nginx", "root"]
    assert post(machine, monitor, [monitor.event()])[0] == 200 and "aggregates" in query(machine, token)
    status_is_ok(machine)


def test_setup_again_restarts_no_socket(machine, nginx_org):
    before = machine.shell("stat -c %i /run/steep/*.sock")
    assert WORKS in machine.run("steepctl", "setup").stdout
    assert machine.shell("stat -c %i /run/steep/*.sock") == before


def test_the_sockets_keep_the_group_when_systemd_makes_them_again(machine, nginx_org):
    machine.shell("systemctl stop 'steep-*.socket' 'steep-ingest.service' 'steep-query.service'; systemctl start"
                  " steep-ingest.socket steep-ingest-health.socket steep-query.socket steep-query-health.socket")
    assert groups_of_the_sockets(machine) == {"nginx"}
    status_is_ok(machine)


def test_status_names_a_user_of_nginx_that_cannot_reach_the_programs(machine, nginx_org):
    """As when a package of nginx replaces the other."""
    conf = machine.file("/etc/nginx/nginx.conf")
    conf.write_text(NGINX_ORG.replace("user  nginx;", "user nobody nogroup;"))
    machine.run("systemctl", "restart", "nginx")
    done = machine.run("steepctl", "status", check=False)
    conf.write_text(NGINX_ORG)
    machine.run("systemctl", "restart", "nginx")
    assert done.returncode == 2
    assert ("CRITICAL: nginx runs as user nobody, which cannot connect to /run/steep/ingest.sock; run steepctl setup.\n"
            in done.stdout), done.stdout


def test_a_user_in_the_group_of_the_sockets_needs_no_other_group(machine, nginx_org):
    machine.run("usermod", "-aG", "www-data", "nginx")
    done = machine.run("steepctl", "setup", check=False)
    groups = groups_of_the_sockets(machine)
    machine.run("gpasswd", "-d", "nginx", "www-data")
    again = machine.run("steepctl", "setup", check=False)
    assert WORKS in done.stdout and groups == {"www-data"}, done.stdout
    assert WORKS in again.stdout and groups_of_the_sockets(machine) == {"nginx"}, again.stdout


@pytest.mark.parametrize("old, new, sentence", [
    ("include /etc/nginx/conf.d/*.conf;", "# include /etc/nginx/conf.d/*.conf;",
     'nginx reads neither sites-enabled nor conf.d; add "include /etc/nginx/sites-enabled/*;" to the http block of /etc/nginx/nginx.conf'),
    ("user  nginx;", "user nobody;", "nginx runs as user nobody and group nobody, and there is no such group;"
                                     " correct the user in /etc/nginx/nginx.conf")])
def test_a_configuration_that_cannot_work_is_named(machine, nginx_org, old, new, sentence):
    conf = machine.file("/etc/nginx/nginx.conf")
    conf.write_text(NGINX_ORG.replace(old, new))
    said = refused(machine)
    conf.write_text(NGINX_ORG)
    assert said == f"steep: {sentence}\n"


def test_a_folder_of_sites_that_nginx_reads_is_used_or_made(machine, nginx_org):
    conf = machine.file("/etc/nginx/nginx.conf")
    for include, link in (("include sites-enabled/*;", "sites-enabled/steep"),
                          ('include "/etc/nginx/sites-enabled/*.conf";', "sites-enabled/steep.conf")):
        machine.run("rm", "-f", "/etc/nginx/conf.d/steep.conf")
        conf.write_text(NGINX_ORG.replace("include /etc/nginx/conf.d/*.conf;", include))
        done = machine.run("steepctl", "setup", check=False)
        linked = machine.file(f"/etc/nginx/{link}").is_symlink()
        machine.run("rm", "-rf", "/etc/nginx/sites-enabled")
        conf.write_text(NGINX_ORG)
        assert WORKS in done.stdout and linked, done.stdout
    assert WORKS in machine.run("steepctl", "setup").stdout
