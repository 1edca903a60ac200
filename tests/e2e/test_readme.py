"""README.md's examples do what it says, as they are printed."""

import re
import subprocess
from pathlib import Path

from stack import ROOT, SLOWNESS, reachable_folder


def section(title):
    """A section's text, up to its first subsection."""
    text = (ROOT / "README.md").read_text()
    return re.search(rf"^## {re.escape(title)}$(.*?)^##", text, re.MULTILINE | re.DOTALL).group(1)


def examples(title):
    """The shell blocks of a section."""
    return re.findall(r"^```sh\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)


def run_in_a_clone(stack, script):
    """Run it where deploy/ is the checkout's and var/ the stack's."""
    clone = reachable_folder("readme")
    (clone / "deploy").symlink_to(ROOT / "deploy")
    (clone / "var").symlink_to(stack.state)
    environment = stack.environment(STEEP_STATE=str(stack.state), STEEP_BUILD=str(stack.program("ingest").parent))
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
    assert left == {"deploy", "var"}
    assert "laptop" not in stack.steepctl("monitor", "list").stdout


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
