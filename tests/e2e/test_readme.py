"""The READMEs: their commands work as they are printed, and what they point to exists."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from stack import ROOT, SLOWNESS, reachable_folder

# Not a file of the tree: made while something runs, or a placeholder.
ELSEWHERE = re.compile(r"var/|build/|log/|.*[A-Z]{4}")

DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [
    *ROOT.glob("*.md"), *ROOT.glob(".github/*.md"),
    *(path for room in ("fcgi", "sql", "nginx", "deploy", "tests") for path in (ROOT / room).rglob("*.md"))])


def section(title, document="README.md"):
    """A section's text, up to the next one."""
    text = (ROOT / document).read_text()
    return re.search(rf"^## {re.escape(title)}$(.*?)(?:^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)


def examples(title, document="README.md"):
    """The shell blocks of a section."""
    return re.findall(r"^```sh\n(.*?)^```$", section(title, document), re.MULTILINE | re.DOTALL)


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


def test_the_first_event_is_stored_and_counted_and_nothing_is_left(stack, db):
    db.execute("DELETE FROM public.events WHERE source = 'laptop'")
    output, left = run_in_a_clone(stack, examples("Try it")[1])
    assert '"inserted":1,"duplicates":0' in output
    assert re.search(r'"aggregates":\[\{"source":"laptop","date":"[-0-9]{10}","hour":[0-9]+,"eventCount":1\}\]', output)
    assert left == {"deploy", "var", "build"}
    assert "laptop" not in stack.steepctl("monitor", "list").stdout


MONITOR = "deploy/monitor/README.md"


def on_this_port(stack, script):
    assert "https://localhost:8443" in script
    return script.replace("https://localhost:8443", f"https://localhost:{stack.port}")


def test_the_commands_of_a_monitor_lead_from_a_key_to_its_first_event(stack, db, tmp_path):
    name = os.uname().nodename
    db.execute("DELETE FROM public.events WHERE source = %s", (name,))
    stack.steepctl("monitor", "remove", name, check=False)
    commands = examples("Run it from a checkout", MONITOR)[0].splitlines()
    assert len(commands) == 4
    script = on_this_port(stack, "\n".join([*commands, "build/steep-monitor status"]))
    output, _ = run_in_a_clone(stack, script, HOME=str(tmp_path))
    assert "steepctl monitor add" in output
    (event_id, payload), = db.execute("SELECT id, payload FROM public.events WHERE source = %s", (name,)).fetchall()
    assert re.fullmatch("evt_[a-z0-9]{20}", event_id) and payload == {"tool": "Read"}


def test_the_shells_line_feeds_a_monitor(stack, db, tmp_path):
    name = os.uname().nodename
    stack.steepctl("monitor", "remove", name, check=False)
    commands, line = examples("Run it from a checkout", MONITOR)
    assert "sleep 60" in line
    db.execute("DELETE FROM public.events WHERE source = %s", (name,))
    # The loop has no end of its own, and its first event goes out a minute after it began.
    script = "\n".join([*commands.splitlines()[:3], f"timeout 8 sh -c {shlex.quote(on_this_port(stack, line))} || [ $? -eq 124 ]"])
    run_in_a_clone(stack, script.replace("sleep 60", "sleep 1"), HOME=str(tmp_path), STEEP_BATCH_INTERVAL_SECS="1")
    payloads = [payload for payload, in db.execute("SELECT payload FROM public.events WHERE source = %s", (name,))]
    assert len(payloads) > 1 and all(set(payload) == {"load"} and payload["load"] >= 0 for payload in payloads)


def test_the_commands_for_a_monitor_and_a_dashboard_register_them(stack, tmp_path):
    script, = examples("Pointing monitors and dashboards at it")
    key = stack.steepctl("monitor", "list").stdout.split("\t")[1]
    (tmp_path / "key.pub").write_text(key + "\n")
    try:
        output, _ = run_in_a_clone(stack, script.replace("key.pub", str(tmp_path / "key.pub")))
        assert re.search(r"steep_[A-Za-z0-9_-]{43}$", output.strip())
        assert re.search(rf"^NAME\t{re.escape(key)}\t", stack.steepctl("monitor", "list").stdout, re.MULTILINE)
    finally:
        stack.steepctl("monitor", "remove", "NAME", check=False)
        stack.steepctl("token", "remove", "dashboard", check=False)


def test_two_commands_do_all_the_set_up():
    commands = [examples("Try it")[0], *examples("The house")]
    assert commands == ["deploy/run\n", "tests/run\n"]
    for command in commands:
        assert (ROOT / command.strip()).stat().st_mode & 0o111


def test_readme_has_at_most_200_lines_and_says_the_essentials_in_60():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    essentials = "\n".join(lines[:60])
    for what in ("nginx/heatmap.png", "deploy/run", "curl", "steepctl setup", "limits", ".github/CONTRIBUTING.md"):
        assert what in essentials, what


def anchors(text):
    """The names that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_somewhere(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_it_names_exists(document):
    """`such/a/name` from the top, fcgi/, tests/ or the document's folder; files of a room may have no suffix."""
    places = (ROOT, ROOT / "fcgi", ROOT / "tests", (ROOT / document).parent)
    for name in re.findall(r"`(\.?[\w-]+(?:/[\w.-]+)+)/?`", (ROOT / document).read_text()):
        if not ELSEWHERE.match(name):
            assert any(list(place.glob(name)) or list(place.glob(f"{name}.[ch]")) for place in places), name


PLAN, RESULTS, SCALING = "tests/bench/plan", "tests/bench/results.json", "deploy/SCALING.md"


def run_plan(*arguments, top=ROOT):
    return subprocess.run([top / PLAN, *arguments], text=True, capture_output=True)


def test_the_plan_has_what_the_results_of_the_bench_give():
    done = run_plan(ROOT / RESULTS)
    assert done.returncode == 0, done.stderr
    assert "1,000,000" in done.stdout and done.stdout in section("The numbers", SCALING)


def test_the_plan_and_its_results_are_renewed_together(tmp_path):
    for name in (PLAN, RESULTS, SCALING):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    bench = json.loads((ROOT / RESULTS).read_text())
    keyring, = (entry for entry in bench["results"] if entry["measure"] == "keyring" and entry["keys"] == 1_000_000)
    keyring["start_s"] = 1234.5
    measured = tmp_path / "bench.json"
    measured.write_text(json.dumps(bench | {"failures": [], "results": [{"measure": "page"}, *bench["results"]]}))
    assert run_plan("--renew", measured, top=tmp_path).returncode == 0
    assert json.loads((tmp_path / RESULTS).read_text()) == bench
    assert "1,200 s |" in (tmp_path / SCALING).read_text()
    # The old results give the old document again.
    assert run_plan("--renew", ROOT / RESULTS, top=tmp_path).returncode == 0
    for name in (RESULTS, SCALING):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


def test_a_plan_is_not_made_of_a_bench_that_failed_or_lacks_something(tmp_path):
    bench = json.loads((ROOT / RESULTS).read_text())
    given = tmp_path / "bench.json"
    for measure in {entry["measure"] for entry in bench["results"]}:
        given.write_text(json.dumps(bench | {"results": [entry for entry in bench["results"] if entry["measure"] != measure]}))
        done = run_plan(given)
        assert done.returncode == 1 and measure in done.stderr and "Traceback" not in done.stderr
    given.write_text(json.dumps(bench | {"failures": ["3 requests failed"]}))
    done = run_plan(given)
    assert done.returncode == 1 and "3 requests failed" in done.stderr


def test_the_plan_says_whether_other_work_was_in_the_way(tmp_path):
    bench = json.loads((ROOT / RESULTS).read_text())
    others = [entry for entry in bench["results"] if entry["measure"] == "others"]
    assert {entry["state"] for entry in others} == {"before", "after"}
    given = tmp_path / "bench.json"
    for percent, said in ((0, "with nothing else to do"), (37, "other work took 37 %")):
        others[1]["percent"], others[0]["percent"] = percent, 0
        given.write_text(json.dumps(bench))
        assert said in run_plan(given).stdout.splitlines()[0]


def test_the_room_of_the_programs_lists_each_of_its_files():
    table = (ROOT / "fcgi" / "README.md").read_text().split("\n## ")[0]
    listed = {name.strip("`") for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split(", ")}
    rooms = {path.stem for path in (ROOT / "fcgi").glob("*/*.[ch]")}
    assert listed == rooms | {"ingest.c", "query.c"}


def test_every_promise_of_security_names_tests_that_are_there():
    rows = [line for line in section("What steep promises", ".github/SECURITY.md").splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.split("|")[3])
        assert named, row
        assert all((ROOT / "tests" / name).is_file() for name in named), row
