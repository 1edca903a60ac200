"""From the package to the first event, in two commands."""

import re
import time

import pytest

from conftest import TOP
from service import configuration, drop_in

SOCKETS = ["steep-ingest.socket", "steep-ingest-health.socket", "steep-query.socket", "steep-query-health.socket"]
SERVICES = ["steep-ingest.service", "steep-query.service"]


def nothing_is_left(machine):
    states = machine.run("systemctl", "is-active", *SOCKETS, *SERVICES, "steep-prune.timer", check=False).stdout.split()
    assert set(states) == {"inactive"}
    enabled = machine.run("systemctl", "is-enabled", *SOCKETS, *SERVICES, check=False).stdout.split()
    assert set(enabled) == {"disabled"}
    assert not machine.file("/etc/nginx/sites-enabled/steep").is_symlink()


@pytest.fixture(scope="module")
def times():
    return {}


def test_readme_has_these_commands():
    section = re.search(r"^## In production$(.*?)^## ", (TOP / "README.md").read_text(), re.M | re.S)[1]
    assert re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S) == ["make deb\napt install ./build/steep_*_amd64.deb\nsteepctl setup\n"]


def test_one_command_installs_it_and_starts_nothing(machine, package, times):
    begun = time.monotonic()
    machine.run("apt-get", "-qq", "-y", "install", f"/root/{package.name}", timeout=600)
    times["apt install"] = time.monotonic() - begun
    nothing_is_left(machine)
    assert machine.shell("ls -A /etc/steep").split() == ["ingest.env", "prune.env", "query.env"]


def test_systemd_finds_no_error_in_the_units(machine):
    units = machine.shell("ls /lib/systemd/system/steep-*").split()
    assert len(units) == 8
    assert machine.run("systemd-analyze", "verify", "--man=no", *units).stdout == ""


def test_setup_reports_that_postgresql_does_not_run_and_leaves_nothing(machine):
    machine.run("systemctl", "stop", "postgresql")
    done = machine.run("steepctl", "setup", check=False)
    machine.run("systemctl", "start", "postgresql")
    assert done.returncode == 1
    assert re.fullmatch(r"steep: cannot connect to PostgreSQL at /run/postgresql, port 5432 .*; run systemctl start postgresql\n",
                        done.stdout)
    nothing_is_left(machine)


def test_setup_reports_that_the_port_is_in_use_and_leaves_nothing(machine):
    machine.run("systemd-run", "--quiet", "--unit=squatter", "systemd-socket-activate", "--accept", "-l", "443", "true")
    machine.shell("until grep -q ':01BB .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done")
    done = machine.run("steepctl", "setup", check=False)
    machine.run("systemctl", "stop", "squatter")
    assert done.returncode == 1
    assert "port 443 is in use by a program other than nginx" in done.stdout
    nothing_is_left(machine)


def test_setup_refuses_a_certificate_of_another_key(machine):
    machine.shell("cd /root; for name in a b; do openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout $name.key -out $name.crt; done 2>&1")
    done = machine.run("steepctl", "setup", "--certificate", "/root/a.crt", "--key", "/root/b.key", check=False)
    assert done.returncode == 1
    assert done.stdout == "steep: /root/a.crt does not match the key /root/b.key\n"
    nothing_is_left(machine)


def test_setup_refuses_an_invalid_setting(machine):
    for name, line, sentence in (("ingest", "STEEP_WORKERS 4", "is not NAME=VALUE"), ("ingest", "STEEP_WORKERS=many", "STEEP_WORKERS"),
                                 ("prune", "STEEP_RETENTION_DAYS 30", "is not NAME=VALUE"),
                                 ("prune", "STEEP_RETENTION_DAYS=3 months", "must be a whole number from 1 to 36500")):
        file = machine.file(f"/etc/steep/{name}.env")
        before = file.read_text()
        file.write_text(before + line + "\n")
        done = machine.run("steepctl", "setup", check=False)
        file.write_text(before)
        assert done.returncode == 1 and f"/etc/steep/{name}.env" in done.stdout and sentence in done.stdout, done.stdout
        nothing_is_left(machine)


def test_settings_are_read_as_systemd_reads_them(machine):
    """White space around an assignment is ignored, and the last line needs no newline."""
    file = machine.file("/etc/steep/ingest.env")
    before = file.read_text()
    file.write_text(before + "  PGPORT='5439' \t")
    done = machine.run("steepctl", "setup", check=False)
    file.write_text(before)
    assert done.returncode == 1 and "cannot connect to PostgreSQL at /run/postgresql, port 5439 " in done.stdout, done.stdout
    nothing_is_left(machine)


def test_another_default_site_is_reported_and_kept(machine):
    machine.shell("printf 'server { listen 443 default_server; return 204; }' >/etc/nginx/sites-enabled/other")
    done = machine.run("steepctl", "setup", check=False)
    machine.run("rm", "/etc/nginx/sites-enabled/other")
    assert done.returncode == 1 and "a duplicate default server for 0.0.0.0:443" in done.stdout, done.stdout
    assert "its addresses are in /etc/nginx/snippets/steep/listen.conf" in done.stdout
    nothing_is_left(machine)


def test_a_service_that_does_not_start_leaves_nothing(machine):
    """Even though its sockets had been started."""
    drop_in(machine, "steep-query.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    done = machine.run("steepctl", "setup", check=False)
    drop_in(machine, "steep-query.service", "")
    assert done.returncode == 1
    assert "steep-query.service failed to start; see its journal above" in done.stdout
    assert "stopped everything that this run started" in done.stdout
    nothing_is_left(machine)


def test_setup_prints_what_the_administrator_of_a_remote_database_has_to_do(machine):
    file = machine.file("/etc/steep/ingest.env")
    before = file.read_text()
    file.write_text(before.replace("PGHOST=/run/postgresql", "PGHOST=db.example"))
    done = machine.run("steepctl", "setup", check=False)
    file.write_text(before)
    assert done.returncode == 1
    for words in ("the database is on another machine, db.example", "createdb ", "steepctl migrate", "\\password steep_ingest",
                  "hostssl steep steep_ingest,steep_query,steep_prune"):
        assert words in done.stdout
    nothing_is_left(machine)


def test_the_second_command_ends_by_reporting_success(machine, times):
    begun = time.monotonic()
    done = machine.run("steepctl", "setup", timeout=600)
    times["steepctl setup"] = time.monotonic() - begun
    assert "steep: it works: https://steep.test/ stores events and answers queries\n" in done.stdout
    print(times)
    # On a busy machine, a minute may become two.
    assert sum(times.values()) < 120, times


def test_setup_removes_its_test_data_from_the_database(machine):
    assert machine.sql("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM monitor_keys)"
                       " + (SELECT count(*) FROM access_tokens)") == "0"
    machine.run("steepctl", "counts", "check")


def test_every_connection_to_the_database_is_authenticated(machine):
    rules = machine.sql("SELECT type, database, user_name, auth_method, options FROM pg_hba_file_rules ORDER BY line_number LIMIT 2")
    assert rules.splitlines() == ["local|{steep}|{steep_ingest,steep_query,steep_prune}|peer|{map=steep}",
                                  "local|{steep}|{postgres,steep_backup}|peer|{map=steep}"]
    for user in ("steep-ingest", "steep-query", "steep-prune"):
        machine.run("runuser", "-u", user, "--", "psql", "-XAt", "-d", "steep", "-U", user.replace("-", "_"), "-c", "SELECT 1")
        for role in {"steep_ingest", "steep_query", "steep_prune", "postgres"} - {user.replace("-", "_")}:
            done = machine.run("runuser", "-u", user, "--", "psql", "-XAt", "-d", "steep", "-U", role, "-c", "SELECT 1", check=False)
            assert done.returncode != 0 and "Peer authentication failed" in done.stdout


def test_setup_again_changes_nothing(machine):
    files = [*configuration(machine), "/etc/steep/tls/server.crt",
             "/etc/steep/ingest.env"]
    before = [(machine.file(name).read_bytes(), machine.file(name).stat().st_ino) for name in files]
    assert "it works" in machine.run("steepctl", "setup").stdout
    assert [(machine.file(name).read_bytes(), machine.file(name).stat().st_ino) for name in files] == before


def test_setup_and_status_warn_of_more_connections_than_the_server_allows(machine):
    files = [machine.file(f"/etc/steep/{name}.env") for name in ("ingest", "query")]
    before = [file.read_text() for file in files]
    for file, text in zip(files, before):
        file.write_text(text + "STEEP_CONNECTIONS=60\n")
    done = machine.run("steepctl", "setup", check=False)
    status = machine.run("steepctl", "status", check=False)
    # The connections to another server are not this one's.
    files[1].write_text(before[1] + "STEEP_CONNECTIONS=60\nPGHOST=db.example\n")
    elsewhere = machine.run("steepctl", "status", check=False)
    for file, text in zip(files, before):
        file.write_text(text)
    assert "warning" not in machine.run("steepctl", "setup").stdout
    sentence = ("The programs may open 124 connections, but the server has 97 for them;"
                " raise max_connections to at least 127, or lower STEEP_CONNECTIONS.")
    assert f"steep: warning: {sentence}\n" in done.stdout and "it works" in done.stdout, done.stdout
    assert status.returncode == 1 and f"WARNING: {sentence}\n" in status.stdout, status.stdout
    assert "may open" not in elsewhere.stdout, elsewhere.stdout


def test_the_page_is_served(machine):
    done = machine.run("curl", "-sS", "--cacert", "/etc/steep/tls/server.crt", "https://localhost/")
    assert "<title>" in done.stdout


def test_a_given_certificate_is_linked_to_and_kept(machine):
    machine.shell("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=given -addext subjectAltName=DNS:given.test"
                  " -keyout /root/given.key -out /root/given.crt 2>&1")
    machine.run("cp", "-a", "/etc/steep/tls", "/root/tls-before")
    for arguments in (["--certificate", "/root/given.crt", "--key", "/root/given.key"], []):
        assert "it works: https://given.test/" in machine.run("steepctl", "setup", *arguments).stdout
        assert machine.run("readlink", "-f", "/etc/steep/tls/server.crt").stdout == "/root/given.crt\n"
    machine.shell("rm -r /etc/steep/tls; mv /root/tls-before /etc/steep/tls")
    assert "it works: https://steep.test/" in machine.run("steepctl", "setup").stdout


def test_a_certificate_of_certbot_is_found_and_its_renewal_noticed(machine):
    machine.shell("mkdir -p /etc/letsencrypt/live/bot.test; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=bot"
                  " -addext subjectAltName=DNS:bot.test -keyout /etc/letsencrypt/live/bot.test/privkey.pem"
                  " -out /etc/letsencrypt/live/bot.test/fullchain.pem 2>&1; cp -a /etc/steep/tls /root/tls-before")
    assert "it works: https://bot.test/" in machine.run("steepctl", "setup", "--name", "bot.test").stdout
    machine.run("/etc/letsencrypt/renewal-hooks/deploy/steep")
    machine.shell("rm -r /etc/steep/tls /etc/letsencrypt; mv /root/tls-before /etc/steep/tls")
    assert "it works: https://steep.test/" in machine.run("steepctl", "setup").stdout


def test_a_given_certificate_of_certbot_is_linked_to_by_its_permanent_name(machine):
    """Otherwise nginx would keep the file from before the renewal."""
    live, archive = "/etc/letsencrypt/live/given.test", "/etc/letsencrypt/archive/given.test"
    machine.shell(f"mkdir -p {live} {archive}; openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=bot -addext subjectAltName=DNS:given.test"
                  f" -keyout {archive}/privkey1.pem -out {archive}/fullchain1.pem 2>&1; ln -s {archive}/privkey1.pem {live}/privkey.pem;"
                  f" ln -s {archive}/fullchain1.pem {live}/fullchain.pem; cp -a /etc/steep/tls /root/tls-before")
    done = machine.run("steepctl", "setup", "--certificate", f"{live}/fullchain.pem", "--key", f"{live}/privkey.pem")
    linked = machine.shell("readlink /etc/steep/tls/server.crt /etc/steep/tls/server.key").split()
    hook = machine.file("/etc/letsencrypt/renewal-hooks/deploy/steep").exists()
    machine.shell("rm -r /etc/steep/tls /etc/letsencrypt; mv /root/tls-before /etc/steep/tls")
    assert "it works: https://given.test/" in done.stdout
    assert linked == [f"{live}/fullchain.pem", f"{live}/privkey.pem"] and hook


def test_a_certificate_of_the_operator_is_never_overwritten(machine):
    """Whatever its names and its validity."""
    machine.shell("cp -a /etc/steep/tls /root/tls-before; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mine"
                  " -addext subjectAltName=DNS:mine.test -keyout /etc/steep/tls/server.key -out /etc/steep/tls/server.crt 2>&1")
    before = machine.shell("cat /etc/steep/tls/*")
    for arguments in ([], ["--certificate", "/etc/steep/tls/server.crt", "--key", "/etc/steep/tls/server.key"]):
        assert "it works: https://mine.test/" in machine.run("steepctl", "setup", *arguments).stdout
        assert machine.shell("cat /etc/steep/tls/*") == before
    machine.shell("echo >/etc/steep/tls/server.crt")
    done = machine.run("steepctl", "setup", check=False)
    assert done.returncode == 1 and "/etc/steep/tls/server.crt is not a certificate in PEM format" in done.stdout
    machine.shell("rm -r /etc/steep/tls; mv /root/tls-before /etc/steep/tls")


def test_a_machine_without_a_name_is_reached_by_its_address(machine):
    machine.run("cp", "-a", "/etc/steep/tls", "/root/tls-before")
    for name, url in (("192.0.2.7", "https://192.0.2.7/"), ("2001:db8::7", "https://[2001:DB8:0:0:0:0:0:7]/")):
        assert f"it works: {url}" in machine.run("steepctl", "setup", "--name", name).stdout
        digest = machine.shell("cat /etc/steep/tls/*")
        assert f"it works: {url}" in machine.run("steepctl", "setup", "--name", name).stdout
        assert machine.shell("cat /etc/steep/tls/*") == digest
    for name in ("two words", "x,DNS:other.test", "../x", "-x"):
        done = machine.run("steepctl", "setup", "--name", name, check=False)
        assert done.returncode == 1 and f"cannot create a certificate for {name}; set another name with --name" in done.stdout, done.stdout
    machine.shell("rm -r /etc/steep/tls; mv /root/tls-before /etc/steep/tls")
    assert "it works: https://steep.test/" in machine.run("steepctl", "setup").stdout


def test_another_address_and_port_are_found_by_setup_and_status(machine):
    file = machine.file("/etc/nginx/snippets/steep/listen.conf")
    before = file.read_text()
    file.write_text(re.sub(r"(?m)^(listen|http2) .*\n", "", before) + "listen 127.0.0.2:8443 ssl http2 default_server;\n")
    done = machine.run("steepctl", "setup", check=False)
    status = machine.run("steepctl", "status", check=False)
    file.write_text(before)
    assert "it works: https://steep.test/" in machine.run("steepctl", "setup").stdout
    assert "it works: https://steep.test:8443/" in done.stdout, done.stdout
    # A warning: no monitor is registered yet.
    assert status.returncode == 1 and "ingest.fcgi is ready." in status.stdout, status.stdout


def test_nginx_starts_without_a_warning(machine):
    machine.run("systemctl", "restart", "nginx")
    assert machine.run("nginx", "-t", "-q").stdout == ""
    assert "[warn]" not in machine.shell("journalctl --no-pager -u nginx")


@pytest.mark.parametrize("form", ["listen 443 ssl http2 default_server;\n", "http2 on;\nlisten 443 ssl default_server;\n"])
def test_setup_writes_the_form_of_http2_that_nginx_has(form, machine):
    """As after an upgrade of nginx."""
    file = machine.file("/etc/nginx/snippets/steep/listen.conf")
    before = file.read_text()
    file.write_text(re.sub(r"(?m)^(listen|http2) .*\n", "", before) + form)
    done = machine.run("steepctl", "setup", check=False)
    nginx = machine.run("nginx", "-t", "-q", check=False)
    version = machine.run("curl", "-s", "-o", "/dev/null", "-k", "-w", "%{http_version}", "https://localhost/", check=False)
    file.write_text(before)
    assert "it works: https://steep.test/" in machine.run("steepctl", "setup").stdout
    assert "it works: https://steep.test/" in done.stdout, done.stdout
    assert (nginx.returncode, nginx.stdout, version.stdout) == (0, "", "2")


def test_warnings_of_the_database_server_are_no_obstacle(machine):
    """As after an upgrade of Debian, when the versions of the databases' collations differ."""
    machine.sql("UPDATE pg_database SET datcollversion = '0' WHERE datname = 'postgres'")
    done = machine.run("steepctl", "setup", check=False)
    machine.sql("UPDATE pg_database SET datcollversion = NULL WHERE datname = 'postgres'")
    assert "WARNING" in done.stdout and "it works" in done.stdout, done.stdout


def test_another_cluster_is_set_up_and_the_first_kept(machine):
    main = configuration(machine)
    untouched = [machine.file(name).read_text() for name in main]
    files = {program: machine.file(f"/etc/steep/{program}.env") for program in ("ingest", "query", "prune")}
    before = {program: file.read_text() for program, file in files.items()}
    machine.run("pg_createcluster", "--start", "--port", "5439", machine.postgresql, "other")
    files["ingest"].write_text(before["ingest"] + "PGPORT=5439\n")
    files["query"].write_text(before["query"] + "PGPORT=5439\n")
    warned = machine.run("steepctl", "setup", check=False).stdout
    files["prune"].write_text(before["prune"] + "PGPORT=5439\n")
    done = machine.run("steepctl", "setup", check=False).stdout
    status = machine.run("steepctl", "status", check=False)
    pruned = machine.run("systemctl", "start", "steep-prune", check=False)
    for program, file in files.items():
        file.write_text(before[program])
    assert "it works" in machine.run("steepctl", "setup").stdout
    machine.run("pg_dropcluster", "--stop", machine.postgresql, "other")
    assert "PGPORT differs between /etc/steep/prune.env and ingest.env" in warned and "it works" in warned, warned
    assert "PGPORT" not in done and "it works" in done, done
    assert status.returncode == 1 and "ingest.fcgi is ready." in status.stdout, status.stdout
    assert pruned.returncode == 0
    assert [machine.file(name).read_text() for name in main] == untouched


def test_lines_after_an_unterminated_block_are_kept(machine):
    hba = configuration(machine)[0]
    file = machine.file(hba)
    before = file.read_text()
    broken = before.replace("# steepctl setup: end\n", "")
    file.write_text(broken)
    done = machine.run("steepctl", "setup", check=False)
    after = file.read_text()
    file.write_text(before)
    assert done.returncode == 1 and f'{hba} has one of the lines "# steepctl setup: begin" and "# steepctl setup: end"' in done.stdout
    assert after == broken


def test_a_linked_configuration_is_written_only_where_postgres_could_write_it(machine):
    hba = configuration(machine)[0]
    file = machine.file(hba)
    changed = file.read_text().replace("peer map=steep", "peer  map=steep")
    machine.run("mv", hba, f"{hba}.real")
    machine.run("ln", "-s", f"{hba}.real", hba)
    machine.file(f"{hba}.real").write_text(changed)
    done = machine.run("steepctl", "setup")
    real = machine.run("readlink", "-f", hba).stdout.strip()
    written = machine.file(f"{hba}.real").read_text()
    owner = machine.run("stat", "-c", "%U:%G %a", f"{hba}.real").stdout.strip()
    # A file that postgres could not write.
    machine.run("ln", "-sfn", "/root/pg_hba.conf", hba)
    machine.file("/root/pg_hba.conf").write_text(changed)
    refused = machine.run("steepctl", "setup", check=False)
    machine.run("mv", f"{hba}.real", hba)
    assert "it works" in done.stdout and real == f"{hba}.real" and "peer  map" not in written
    assert owner == "postgres:postgres 640"
    assert refused.returncode == 1 and "put these lines at its beginning:\nlocal " in refused.stdout, refused.stdout
    assert machine.file("/root/pg_hba.conf").read_text() == changed
    assert "it works" in machine.run("steepctl", "setup").stdout


def test_root_administers_without_naming_a_database(machine):
    assert machine.run("steepctl", "monitor", "list").stdout == ""
    assert machine.run("steepctl", "migrate").stdout == "nothing to do: steep has every migration\n"


def test_a_remote_database_is_set_up_with_the_printed_commands(machine):
    """The same PostgreSQL over TCP stands in for a remote one: the steps are the printed ones, in order."""
    programs = ("ingest", "query", "prune")
    files = {program: machine.file(f"/etc/steep/{program}.env") for program in programs}
    before = {program: file.read_text() for program, file in files.items()}
    example = machine.file("/usr/share/doc/steep/examples/remote-database.conf").read_text()
    administrator = {"PGHOST": "127.0.0.1", "PGDATABASE": "elsewhere", "PGUSER": "postgres", "PGPASSWORD": "for-this-test"}

    def settings(program, *lines):
        text = before[program].replace("PGHOST=/run/postgresql", "PGHOST=127.0.0.1").replace("PGDATABASE=steep", "PGDATABASE=elsewhere")
        files[program].write_text(text + "".join(f"{line}\n" for line in lines))

    for program in programs:
        settings(program)
    printed = machine.run("steepctl", "setup", check=False)
    assert printed.returncode == 1
    machine.sql("ALTER ROLE postgres PASSWORD 'for-this-test'")
    createdb = next(line for line in printed.stdout.splitlines() if line.startswith("  createdb "))
    machine.run("runuser", "-u", "postgres", "--", *createdb.split())
    machine.run("steepctl", "migrate", env=administrator)
    for program in programs:
        machine.sql(f"ALTER ROLE steep_{program} PASSWORD 'for-this-test'")
        settings(program, "PGPASSWORD=for-this-test")
        drop_in(machine, f"steep-{program}.service", example.replace("192.0.2.1", "127.0.0.1"))
    done = machine.run("steepctl", "setup", check=False, env=administrator)
    pruned = machine.run("systemctl", "start", "steep-prune", check=False)

    for program in programs:
        files[program].write_text(before[program])
        drop_in(machine, f"steep-{program}.service", "")
        machine.sql(f"ALTER ROLE steep_{program} PASSWORD NULL")
    machine.sql("ALTER ROLE postgres PASSWORD NULL")
    assert "it works" in machine.run("steepctl", "setup").stdout
    assert done.returncode == 0 and "it works" in done.stdout, done.stdout
    assert pruned.returncode == 0
    assert machine.sql("SELECT count(*) FROM schema_migrations", "elsewhere") == machine.sql("SELECT count(*) FROM schema_migrations")
    # Once the drop-in was gone, the ends of the sessions were filtered too: PostgreSQL still has them.
    machine.run("runuser", "-u", "postgres", "--", "dropdb", "--force", "elsewhere")
