"""deploy/run: its files, several of them side by side, and that it leaves nothing running."""

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import query_with
from monitor import Monitor
from stack import ROOT, SLOWNESS, free_port, reachable_folder, read_run_env, started, wait_for
from wire import check_error

KEYS = ["PGDATABASE", "PGHOST", "PGPORT", "PGUSER", "STEEP_CA", "STEEP_KEY", "STEEP_METRICS_URL", "STEEP_SOURCE", "STEEP_TOKEN",
        "STEEP_URL"]


def run_until_it_ends(**environment):
    return subprocess.run([str(ROOT / "deploy" / "run")], text=True, capture_output=True, timeout=120 * SLOWNESS,
                          env=os.environ | environment, stdin=subprocess.DEVNULL)


def processes_in(state):
    """The processes of any user that work in the state folder or run a program from it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            paths = [os.readlink(process / "cwd"), os.readlink(process / "exe"),
                     (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")]
        except OSError:
            continue
        if any(str(state) in path for path in paths) and process.name != str(os.getpid()):
            found.append((process.name, paths[2]))
    return found


def test_run_env_is_for_its_owner_only_and_has_these_keys(stack):
    path = stack.state / "run.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(read_run_env(path)) == KEYS


def test_the_url_is_localhost_at_the_port(stack):
    values = read_run_env(stack.state / "run.env")
    assert values["STEEP_URL"].rstrip("/") == f"https://localhost:{stack.port}"


def test_no_key_is_readable_by_others(stack):
    for name in (stack.values["STEEP_KEY"], stack.state / "tls" / "server.key"):
        assert stat.S_IMODE(Path(name).stat().st_mode) & 0o077 == 0


def test_the_seed_of_the_demonstration_monitor_is_32_bytes_and_signs(stack, client):
    sender = Monitor(stack.source, stack.seed())
    assert sender.post(client, [sender.event()]).status_code == 200


def test_the_demonstration_token_works_and_the_samples_reach_back_30_days(stack, client):
    answer = query_with(client, stack.token, f"?days=30&source={stack.source}")
    dates = {entry["date"] for entry in answer.json()["aggregates"]}
    assert len(dates) >= 25


def test_it_listens_on_loopback_only(stack):
    listening = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    addresses = {fields[1].split(":")[0] for fields in listening
                 if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == stack.port}
    assert addresses and addresses <= {"0100007F", "00000000000000000000000001000000"}


def test_a_second_run_on_the_same_state_is_refused_and_the_first_goes_on(stack, client):
    done = run_until_it_ends(STEEP_STATE=str(stack.state), STEEP_PORT=str(free_port()))
    assert done.returncode != 0 and done.stderr.strip()
    assert (stack.state / "run.env").exists()
    assert query_with(client, stack.token).status_code == 200


def test_a_port_in_use_is_refused_and_leaves_nothing_running(stack, client):
    folder = reachable_folder("port")
    try:
        done = run_until_it_ends(STEEP_STATE=str(folder / "state"), STEEP_PORT=str(stack.port))
        assert done.returncode != 0
        assert str(stack.port) in done.stderr
        assert not (folder / "state" / "run.env").exists()
        assert processes_in(folder) == []
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert query_with(client, stack.token).status_code == 200


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "99999999999"])
def test_an_invalid_port_is_refused(port):
    folder = reachable_folder("port")
    done = run_until_it_ends(STEEP_STATE=str(folder / "state"), STEEP_PORT=port)
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert done.returncode != 0 and "STEEP_PORT" in done.stderr


def test_a_folder_with_other_files_is_refused_and_left_alone():
    folder = reachable_folder("else")
    (folder / "letter").write_text("dear")
    done = run_until_it_ends(STEEP_STATE=str(folder), STEEP_PORT=str(free_port()))
    assert done.returncode != 0 and done.stderr.strip()
    assert [path.name for path in folder.iterdir()] == ["letter"]
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_a_cluster_of_another_postgresql_is_left_alone_with_what_to_do():
    folder = reachable_folder("major")
    (folder / "lock").touch()
    (folder / "pg").mkdir()
    (folder / "pg" / "PG_VERSION").write_text("9.6\n")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "postgres:", str(folder)], check=True)
    done = run_until_it_ends(STEEP_STATE=str(folder), STEEP_PORT=str(free_port()))
    assert done.returncode == 1
    assert done.stderr.startswith(f"steep: {folder}/pg was created by PostgreSQL 9.6, and PostgreSQL 1")
    assert done.stderr.endswith(f'; to keep its events, see "Another PostgreSQL" in deploy/README.md; to start without them, remove {folder}/pg\n')
    assert "\n## Another PostgreSQL\n" in (ROOT / "deploy" / "README.md").read_text()
    assert [path.name for path in (folder / "pg").iterdir()] == ["PG_VERSION"] and processes_in(folder) == []
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.parametrize("release, name", [
    ('ID=fedora\nVERSION_ID=40\nPRETTY_NAME="Fedora Linux 40"', "Fedora Linux 40"),
    ('ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"', "Debian GNU/Linux 11 (bullseye)"),
], ids=["fedora", "bullseye"])
def test_an_unsupported_system_is_told_what_is_missing(release, name, tmp_path):
    (tmp_path / "os-release").write_text(release + "\n")
    install = [ROOT / "deploy" / "demo" / "install-packages", "libpq5"]
    given = {"text": True, "capture_output": True, "env": os.environ | {"STEEP_OS_RELEASE": str(tmp_path / "os-release")}}
    done = subprocess.run([*install, "steep-of-no-name", "steep-of-none"], **given)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", f"steep: this is {name}, and packages are installed on Debian 12 or newer only; missing here: steep-of-no-name steep-of-none; "
               "to run steep in containers instead, see deploy/container/README.md\n")
    assert subprocess.run(install, **given).returncode == 0


def test_make_names_a_library_that_is_too_old(tmp_path):
    (tmp_path / "json-c.pc").write_text("Name: json-c\nDescription: an old one\nVersion: 0.15\n")
    done = subprocess.run(["make", "-C", str(ROOT), f"BUILD={tmp_path}/build"], text=True, capture_output=True,
                          env=os.environ | {"PKG_CONFIG_PATH": str(tmp_path)})
    assert done.returncode == 2 and not (tmp_path / "build").exists()
    assert done.stderr.splitlines()[0] == "make: json-c 0.16 or newer is required; pkg-config finds 0.15"


def test_two_run_side_by_side_with_keys_and_tokens_of_their_own(stack, second_stack, client):
    with second_stack.client() as second:
        sender = Monitor(second_stack.source, second_stack.seed())
        assert sender.post(second, [sender.event()]).status_code == 200
        assert sender.post(client, "[]").status_code == 401
        check_error(query_with(client, second_stack.token), 401, "invalid_token")
    assert query_with(client, stack.token).status_code == 200


@pytest.mark.last(2)
def test_nothing_is_left_running_after_sigterm(second_stack):
    assert processes_in(second_stack.state)
    assert second_stack.stop() == 0
    assert processes_in(second_stack.state) == []
    assert not (second_stack.state / "run.env").exists()
    assert not [path for path in second_stack.state.glob("**/*") if path.is_socket()]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", second_stack.port)) != 0


@pytest.mark.last(3)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_a_second_start_keeps_keys_and_tokens_and_ends_at_other_signals_too(ending, second_stack):
    with started(second_stack.state, second_stack.port) as again:
        assert again.token == second_stack.token and again.seed() == second_stack.seed()
        with again.client() as client:
            assert query_with(client, again.token, f"?days=30&source={again.source}").json()["aggregates"]
        again.stop(ending)
        assert processes_in(again.state) == [] and not (again.state / "run.env").exists()


@pytest.mark.last(4)
def test_nothing_is_left_running_when_the_first_process_is_killed(second_stack):
    with started(second_stack.state, second_stack.port) as again:
        again.stop(signal.SIGKILL)
        wait_for(lambda: processes_in(again.state) == [], "all of it to end", 40)
