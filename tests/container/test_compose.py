"""compose.yaml: docker compose up, and what an operator does then."""

import json
import re
import shlex
import ssl
import subprocess

import pytest
import stack
import yaml

from compose import PATIENCE
from conftest import COMPOSE
from monitor import Monitor

OURS = ("migrate", "ingest", "query", "nginx", "demonstration", "steepctl")


def curl(compose, path, *arguments, port=8443, scheme="https", **options):
    """From outside: the status and the body."""
    certificate = compose.folder / "volumes/tls/ca.crt"
    done = subprocess.run(compose.network("curl", "-q", "-sS", "--noproxy", "*", "--max-time", "60", "--cacert", str(certificate),
                                          "-w", "\\n%{http_code}", *arguments, f"{scheme}://localhost:{port}{path}"),
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          **(options or {"stdin": subprocess.DEVNULL}))
    body, _, status = done.stdout.rpartition("\n")
    return status, body


def query(compose, token, source=""):
    status, body = curl(compose, "/query?days=30" + (source and f"&source={source}"), "-H", f"Authorization: Bearer {token}")
    assert status == "200", body
    return sum(row["eventCount"] for row in json.loads(body)["aggregates"])


def post(compose, monitor, events):
    body = json.dumps(events)
    headers = [part for name, value in monitor.headers(body.encode()).items() for part in ("-H", f"{name}: {value}")]
    return curl(compose, "/ingest", *headers, "--data-binary", "@-", input=body)


def token_in(output):
    return re.search(r"^  token   (steep_[A-Za-z0-9_-]{43})$", output, re.MULTILINE)[1]


@pytest.fixture(scope="session")
def token(compose):
    """The printed one."""
    demonstration = compose.running["demonstration"]
    assert demonstration.wait() == 0, demonstration.output()
    return token_in(demonstration.output())


@pytest.fixture(scope="session")
def monitor(compose, token):
    made = Monitor("laptop")
    status, output = compose.run("steepctl", "monitor", "add", made.source, made.public_base64)
    assert status == 0, output
    stack.wait_for(lambda: post(compose, made, [])[0] == "400", "its key to be known", seconds=PATIENCE)
    return made


def test_compose_itself_accepts_the_file(compose):
    done = subprocess.run(["docker-compose", "-f", str(compose.file), "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    assert done.returncode == 0 and "WARN" not in done.stderr, done.stderr
    read = yaml.safe_load(done.stdout)
    assert set(read["volumes"]) == set(compose.model["volumes"])
    for name in read["services"]:
        assert read["services"][name].get("command") == compose.services[name].get("command"), name


def test_only_nginx_publishes_a_port_and_only_to_this_machine(compose):
    assert {name: service["ports"] for name, service in compose.services.items() if "ports" in service} == {
        "nginx": ["127.0.0.1:8443:8443"]}
    assert "network_mode" not in compose.text and "privileged" not in compose.text


def test_the_published_address_and_port_are_settings(new_compose):
    services = new_compose(STEEP_ADDRESS="0.0.0.0", STEEP_PORT="443").services
    assert services["nginx"]["ports"] == ["0.0.0.0:443:8443"]
    assert services["demonstration"]["environment"]["STEEP_PORT"] == "443"


def test_nginx_has_no_network_with_the_database_and_the_programs_have_no_other(compose):
    assert compose.services["nginx"]["networks"] == ["site"]
    assert compose.model["networks"]["database"]["internal"] is True
    for name in ("db", "ingest", "query", "migrate", "steepctl"):
        assert compose.services[name]["networks"] == ["database"], name


def test_each_service_gets_only_the_secrets_that_it_needs(compose):
    assert {name: service.get("secrets", []) for name, service in compose.services.items()} == {
        "db": ["postgres"], "migrate": ["postgres", "steep_ingest", "steep_query"], "ingest": ["steep_ingest"],
        "query": ["steep_query"], "nginx": [], "demonstration": ["postgres"], "steepctl": ["postgres"]}


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_a_read_only_root_and_no_privileges(compose, name):
    service = compose.services[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and "user" not in service


def test_up_prints_the_address_and_a_token_that_works(compose, token):
    output = compose.running["demonstration"].output()
    assert "steep: serving https://localhost:8443/\n" in output
    assert 100 < query(compose, token, "demo") < 1001


def test_the_printed_commands_work(compose, token):
    output = compose.running["demonstration"].output()
    assert re.search("^  ca.crt  docker compose exec -T nginx cat tls/ca.crt >ca.crt$", output, re.MULTILINE)
    certificate = compose.running["nginx"].execute("cat", "tls/ca.crt").stdout
    (compose.folder / "ca.crt").write_text(certificate)
    command = re.search("^  query   (curl .*)$", output, re.MULTILINE)[1]
    answer = subprocess.run(compose.network(*shlex.split(command)), cwd=compose.folder, stdout=subprocess.PIPE, check=True).stdout
    assert json.loads(answer)["meta"]["daysRequested"] == 7
    assert "docker compose run --rm steepctl status" in output
    status, output = compose.run("steepctl", "status")
    assert (status, output.splitlines()[0]) == (0, "STEEP OK: all is well."), output


def test_the_page_is_served_as_everywhere(compose):
    status, body = curl(compose, "/")
    assert status == "200" and body.strip().endswith("</html>")
    assert json.loads(curl(compose, "/config.json")[1]) == {"baseUrl": "/", "webSocketUrl": ""}


def test_http_2_is_spoken(compose):
    assert curl(compose, "/", "--http2", "-o", "/dev/null", "-w", "\\n%{http_version}")[0] == "2"


def test_a_signed_batch_goes_through_the_four_and_is_counted(compose, token, monitor):
    before = query(compose, token, monitor.source)
    assert post(compose, monitor, [monitor.event(), monitor.event()]) == (
        "200", '{"inserted":2,"duplicates":0,"message":"Stored 2 of 2 events; 0 were already stored."}')
    assert query(compose, token, monitor.source) == before + 2


def test_the_services_run_as_the_images_user_without_a_capability(compose):
    for name in ("ingest", "query", "nginx"):
        status = compose.running[name].execute("cat", "/proc/1/status").stdout
        assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", status, re.MULTILINE), status
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE) and re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)


def test_the_programs_can_write_nothing_but_what_must_be_written(compose):
    for name in ("ingest", "query", "nginx"):
        found = compose.running[name].execute("sh", "-c", "find / -path /proc -prune -o -type d -writable -print 2>/dev/null").stdout
        assert set(found.split()) - {"/tmp/body", "/tmp/fastcgi", "/tmp/proxy", "/tmp/scgi", "/tmp/uwsgi"} == {
            "/dev/shm", "/tmp", "/var/lib/steep/tls" if name == "nginx" else "/run/steep"}, name


def test_the_programs_pass_requests_over_sockets_and_open_no_port(compose, token):
    listening = subprocess.run(compose.network("ss", "-Hltn"), stdout=subprocess.PIPE, text=True, check=True).stdout
    assert {line.split()[3].rsplit(":", 1)[1] for line in listening.splitlines()} == {"5432", "8443", "9180"}
    sockets = {path.name for path in (compose.folder / "volumes/sockets").iterdir()}
    assert sockets == {"ingest.sock", "ingest-health.sock", "query.sock", "query-health.sock"}


def test_metrics_are_on_a_port_that_is_not_published(compose, token):
    assert curl(compose, "/metrics/ingest")[0] == "404"
    status, body = curl(compose, "/metrics/ingest", port=9180, scheme="http")
    assert status == "200" and "steep_requests_total" in body
    assert "9180" not in compose.text


def test_no_password_is_in_an_argument_an_environment_or_a_log(compose, token):
    for secret in (compose.file.parent / "secrets").iterdir():
        password = secret.read_text()
        assert re.fullmatch("[0-9a-f]{64}", password)
        for container in compose.running.values():
            assert password not in container.output(), container.name
        for name in ("ingest", "query", "nginx"):
            for what in ("cmdline", "environ"):
                assert password not in compose.running[name].execute("cat", f"/proc/1/{what}").stdout


def test_the_database_asks_the_programs_for_their_password(compose, token):
    status, output = compose.run("steepctl", "status", PGUSER="steep_query")
    assert (status, output) == (78, "steep: there is no password of steep_query: the secret /run/secrets/steep_query is missing or empty\n")
    refused = subprocess.run(compose.network("psql", "-w", "-h", compose.address("db"), "-U", "steep_query", "steep", "-c", "SELECT"),
                             stderr=subprocess.PIPE, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert "no password supplied" in refused.stderr


def test_a_new_password_is_set_when_the_services_start_again(compose, token):
    secret = compose.file.parent / "secrets/steep_query"
    secret.write_text("it's: a \\ new one\n")
    status, output = compose.run("migrate")
    assert status == 0, output
    compose.restart("query")
    compose.wait_for_health("query")
    assert query(compose, token) > 0


def test_a_token_and_a_monitor_are_added_with_steepctl(compose, token, monitor):
    status, output = compose.run("steepctl", "token", "add", "dashboard")
    assert status == 0, output
    added = output.split()[-1]
    stack.wait_for(lambda: curl(compose, "/query", "-H", f"Authorization: Bearer {added}")[0] == "200", "the token", seconds=PATIENCE)
    assert f"laptop\t{monitor.public_base64}" in compose.run("steepctl", "monitor", "list")[1]


def test_a_key_is_read_from_standard_input(compose, token):
    made = Monitor("other")
    (compose.folder / "key.pub").write_text(made.spki_base64)
    with (compose.folder / "key.pub").open() as key:
        status, output = compose.run("steepctl", "monitor", "add", "other", stdin=key)
    assert (status, output) == (0, f"added key of monitor other: {made.public_base64}\n")


def test_a_second_up_keeps_the_data_and_prints_the_same_token(compose, token, monitor):
    before = query(compose, token)
    assert compose.run("migrate") == (0, "nothing to do: steep has every migration\n")
    for name in ("ingest", "query", "nginx"):
        compose.restart(name)
        compose.wait_for_health(name)
    status, output = compose.run("demonstration")
    assert status == 0 and token_in(output) == token
    assert query(compose, token) == before


def test_nginx_ends_by_the_signal_that_lets_requests_end(compose, token):
    nginx = compose.running["nginx"]
    assert nginx.configuration.stop_signal.name == "SIGQUIT"
    assert nginx.stop() == 0
    compose.restart("nginx")
    compose.wait_for_health("nginx")


def test_the_logs_have_no_warning(compose, token):
    for name in ("ingest", "query", "nginx", "migrate"):
        assert not re.search(r"\[(?:warn|error|alert|emerg)\]|level=(?:warning|error)|WARNING|ERROR", compose.running[name].output()), name


def pipe(compose, name, command, text):
    """Run a command of the README in a service, with text as its standard input: its output."""
    assert command in (COMPOSE.parent / "README.md").read_text()
    (compose.folder / "input").write_bytes(text)
    with (compose.folder / "input").open("rb") as given:
        done = compose.running[name].execute(*shlex.split(command), stdin=given, text=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_dump_is_restored_into_new_containers(compose, token, new_compose):
    dump = pipe(compose, "db", "pg_dump -U postgres -Fc steep", b"")
    count = query_count(compose)
    restored = new_compose()
    restored.up("db")
    restored.wait_for_health("db")
    status, roles = restored.run("steepctl", "roles")
    assert status == 0
    pipe(restored, "db", "psql -q -U postgres", roles.encode())
    pipe(restored, "db", "pg_restore -U postgres --exit-on-error --create -d postgres", dump)
    restored.up("nginx")
    restored.wait_for_health("nginx")
    assert query_count(restored) == count > 0
    assert query(restored, token) == query(compose, token)
    status, output = restored.run("steepctl", "status")
    assert (status, output.splitlines()[0]) == (0, "STEEP OK: all is well."), output


def query_count(compose):
    """The stored events."""
    return int(compose.running["db"].execute("psql", "-XAtq", "-U", "postgres", "steep", "-c", "SELECT count(*) FROM events").stdout)


def certificate_of(compose):
    return subprocess.run(compose.network("openssl", "s_client", "-connect", "127.0.0.1:8443"), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout


def make_certificate(folder, name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")],
                   check=True, stderr=subprocess.DEVNULL)
    return (folder / f"{name}.crt").read_text(), (folder / f"{name}.key").read_text()


def take(compose, text):
    (compose.folder / "given.pem").write_text(text)
    with (compose.folder / "given.pem").open() as given:
        return compose.run("nginx", "certificate", stdin=given)


def test_a_certificate_without_its_key_is_refused_and_the_present_one_stays(compose, token):
    first, _ = make_certificate(compose.folder, "first.example")
    _, other_key = make_certificate(compose.folder, "other.example")
    for text in ("", first, other_key, first + other_key, "nonsense\n"):
        status, output = take(compose, text)
        assert status == 78 and output.startswith("steep: standard input must contain a certificate"), output
    assert curl(compose, "/")[0] == "200"
    assert not [path.name for path in (compose.folder / "volumes/tls").iterdir() if "given" in path.name or "new" in path.name]


def test_an_operators_certificate_is_served_and_kept(compose, token):
    certificate, key = make_certificate(compose.folder, "steep.example")
    assert take(compose, certificate + key)[0] == 0
    compose.restart("nginx")
    compose.wait_for_health("nginx")
    served = re.search("-----BEGIN.*END CERTIFICATE-----\n", certificate_of(compose), re.DOTALL)[0]
    assert ssl.PEM_cert_to_DER_cert(served) == ssl.PEM_cert_to_DER_cert(certificate)
    assert compose.run("demonstration") == (0, "steep: no demonstration: the site has a certificate of its own\n")


def test_programs_without_their_database_wait_and_say_so(compose, token):
    compose.running["db"].stop()
    try:
        for name in ("ingest", "query"):
            compose.restart(name)
            stack.wait_for(lambda: "database" in compose.running[name].output(), f"{name} to say so", seconds=PATIENCE)
            assert not compose.is_healthy(name)
            assert compose.running[name].process.poll() is None
        status, output = compose.run("migrate")
        assert status != 0 and "Connection refused" in output
        status, output = compose.run("steepctl", "status")
        assert status == 2 and "no connection to the database" in output
    finally:
        compose.running["db"] = compose.start("db")
        for name in ("db", "ingest", "query"):
            compose.wait_for_health(name)


def test_without_its_secrets_nothing_starts(new_compose):
    compose = new_compose(secrets=False)
    with pytest.raises(AssertionError, match="bind source path does not exist"):
        compose.up()


def test_services_without_secrets_say_which_they_miss(new_compose):
    compose = new_compose(lambda text: re.sub(r"^    secrets: .*\n", "", text, flags=re.MULTILINE))
    for name, role in (("migrate", "postgres"), ("ingest", "steep_ingest"), ("query", "steep_query"), ("demonstration", "postgres")):
        status, output = compose.run(name)
        assert (status, output) == (78, f"steep: there is no password of {role}: the secret /run/secrets/{role} is missing or empty\n")
    status, output = compose.run("db")
    assert status != 0 and "password" in output


def test_new_secrets_are_closed_to_others_and_old_ones_are_kept(new_compose):
    folder = new_compose().file.parent
    assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    before = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert set(before) == {"postgres", "steep_ingest", "steep_query"} and len(set(before.values())) == 3
    (folder / "secrets/steep_query").unlink()
    subprocess.run([folder / "new-secrets"], check=True)
    after = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert after["postgres"] == before["postgres"] and after["steep_ingest"] == before["steep_ingest"]
    assert re.fullmatch("[0-9a-f]{64}", after["steep_query"]) and after["steep_query"] != before["steep_query"]


def test_the_secrets_are_not_part_of_the_repository():
    assert "/secrets/" in (COMPOSE.parent / ".gitignore").read_text().splitlines()
