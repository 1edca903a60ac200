"""The examples of README.md and deploy/monitor/README.md do what they say, as they are printed."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from stack import ROOT, SLOWNESS, reachable_folder


def section(title, file="README.md"):
    """A section's text, up to its first subsection."""
    text = (ROOT / file).read_text()
    return re.search(rf"^## {re.escape(title)}$(.*?)^##", text, re.MULTILINE | re.DOTALL).group(1)


def examples(title, file="README.md"):
    """The shell blocks of a section."""
    return re.findall(r"^```sh\n(.*?)^```$", section(title, file), re.MULTILINE | re.DOTALL)


def run_in_a_clone(stack, script, **more):
    """Run it where deploy/ is the checkout's, var/ the stack's, and build/ what is tested."""
    clone = reachable_folder("readme")
    (clone / "deploy").symlink_to(ROOT / "deploy")
    (clone / "var").symlink_to(stack.state)
    (clone / "build").symlink_to(Path(os.environ.get("STEEP_BUILD") or ROOT / "build").resolve())
    environment = stack.environment(STEEP_STATE=str(stack.state), STEEP_BUILD=str(stack.program("ingest").parent), **more)
    for name in stack.pg:
        del environment[name]
    done = subprocess.run(["sh", "-eu"], input=script, text=True, capture_output=True, cwd=clone, env=environment,
                          timeout=60 * SLOWNESS)
    assert done.returncode == 0, done.stderr
    left = {entry.name for entry in Path(clone).iterdir()}
    subprocess.run(["rm", "-rf", str(clone)], check=True)
    return done.stdout, left


def test_the_api_by_example_stores_an_event_counts_it_and_cleans_up(stack, db):
    db.execute("DELETE FROM public.events WHERE source = 'laptop'")
    blocks = examples("The API, by example")
    # The keyring takes a key up within a second; a reader needs longer than that to type.
    output, left = run_in_a_clone(stack, "\nsleep 2\n".join(blocks))
    assert '"inserted":1,"duplicates":0' in output
    assert re.search(r'"aggregates":\[\{"source":"laptop","date":"[-0-9]{10}","hour":[0-9]+,"eventCount":1\}\]', output)
    assert left == {"deploy", "var", "build"}
    assert "laptop" not in stack.steepctl("monitor", "list").stdout


def on_this_port(stack, script):
    assert "https://localhost:8443" in script
    return script.replace("https://localhost:8443", f"https://localhost:{stack.port}")


def test_the_three_commands_of_a_monitor_lead_from_a_key_to_its_first_event(stack, db, tmp_path):
    name = os.uname().nodename
    db.execute("DELETE FROM public.events WHERE source = %s", (name,))
    stack.steepctl("monitor", "remove", name, check=False)
    commands = examples("Run it from a checkout", "deploy/monitor/README.md")[0].splitlines()
    assert len(commands) == 3
    # The key is known within a second; whoever types needs longer than that.
    script = on_this_port(stack, "\n".join([*commands[:2], "sleep 2", commands[2], "build/steep-monitor status"]))
    output, _ = run_in_a_clone(stack, script, HOME=str(tmp_path))
    assert "steepctl monitor add" in output
    (event_id, payload), = db.execute("SELECT id, payload FROM public.events WHERE source = %s", (name,)).fetchall()
    assert re.fullmatch("evt_[a-z0-9]{20}", event_id) and payload == {"tool": "Read"}


def test_the_shells_line_feeds_a_monitor(stack, db, tmp_path):
    name = os.uname().nodename
    stack.steepctl("monitor", "remove", name, check=False)
    commands, line = examples("Run it from a checkout", "deploy/monitor/README.md")
    assert "sleep 60" in line
    db.execute("DELETE FROM public.events WHERE source = %s", (name,))
    # The loop has no end of its own, and its first event goes out a minute after it began.
    script = "\n".join([*commands.splitlines()[:2], "sleep 2", f"timeout 8 sh -c {shlex.quote(on_this_port(stack, line))} || [ $? -eq 124 ]"])
    run_in_a_clone(stack, script.replace("sleep 60", "sleep 1"), HOME=str(tmp_path), STEEP_BATCH_INTERVAL_SECS="1")
    payloads = [payload for payload, in db.execute("SELECT payload FROM public.events WHERE source = %s", (name,))]
    assert len(payloads) > 1 and all(set(payload) == {"load"} and payload["load"] >= 0 for payload in payloads)


def test_the_two_commands_are_there_to_be_run():
    commands = examples("Two commands")
    assert commands == ["deploy/run\n", "tests/run\n"]
    for command in commands:
        assert (ROOT / command.strip()).stat().st_mode & 0o111


def test_every_promise_of_security_names_tests_that_are_there():
    rows = [line for line in section("Security").splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.split("|")[3])
        assert named, row
        assert all((ROOT / "tests" / name).is_file() for name in named), row
