"""steepctl --json: lists and status as JSON documents for scripts."""

import base64
import json
import secrets

import pytest

from test_steepctl import SUBCOMMANDS

# With what JSON escapes, what a terminal obeys, and what is no ASCII. Older versions took any of it.
NAMES = ['a"b', "back\\slash", "c\tt\n\x01\x1b[31m\x7f", "dé日本😀\u2028", "e' $(id) </script>"]
COMMANDS = ["monitor list", "token list", "source list", "events remove --dry-run --from 2020-01-01", "counts check", "status"]
FILL = ("INSERT INTO public.events (id, source, timestamp, event_type, payload) SELECT 'evt_' || md5(%(source)s) || n, %(source)s,"
        " timestamptz '2026-02-03 23:59:59.999999Z' + n * interval '1 second', 'tool', '{}' FROM generate_series(0, %(last)s) AS n")


@pytest.fixture
def connection(database):
    with database.connect() as connected:
        yield connected


@pytest.fixture
def document(stack, database):
    """What a command prints with --json, which is the same before and after it; and its exit status."""
    def ask(command, **more):
        runs = [stack.steepctl(*words, check=False, PGDATABASE=database.name, PGTZ="Asia/Tokyo", **more)
                for words in (["--json", *command.split()], [*command.split(), "--json"])]
        assert runs[0].returncode == runs[1].returncode and runs[0].stderr == runs[1].stderr
        documents = [json.loads(run.stdout) for run in runs]
        assert command == "status" or documents[0] == documents[1]
        # As without --json, but for the summary in words.
        plain = stack.steepctl(*command.split(), check=False, PGDATABASE=database.name, **more)
        assert (plain.returncode, plain.stderr) == (runs[0].returncode, runs[0].stderr)
        ask.text = plain.stdout
        return documents[0], runs[0].returncode
    return ask


def test_a_list_of_nothing_is_an_empty_array(document):
    for command, member in zip(COMMANDS, ["monitors", "tokens", "sources", "days", "differences"]):
        assert document(command) == ({member: []}, 0)


def test_each_monitor_has_its_keys(document, connection):
    keys = [secrets.token_bytes(32) for _ in range(3)]
    for name, key, time in (("z \"\\'", keys[0], "2026-02-03 14:00:00.5Z"), ("a", keys[1], "2026-02-03 15:00:00Z"), ("a", keys[2], "2026-02-03 14:00:00Z")):
        connection.execute("INSERT INTO public.monitor_keys (source, public_key, created_at) VALUES (%s, %s, %s)", (name, key, time))
    text = [base64.b64encode(key).decode() for key in keys]
    assert document("monitor list") == ({"monitors": [
        {"source": "a", "keys": [{"publicKey": text[2], "createdAt": "2026-02-03T14:00:00Z"}, {"publicKey": text[1], "createdAt": "2026-02-03T15:00:00Z"}]},
        {"source": "z \"\\'", "keys": [{"publicKey": text[0], "createdAt": "2026-02-03T14:00:00Z"}]}]}, 0)


def test_each_token_has_its_times_state_and_sources(document, connection):
    for label, expires, sources in (("wall", None, None), ("old", "2026-02-04 00:00Z", ['q"\\', "lab-*"]), ("next", "9999-12-31 23:59:59Z", ["x"])):
        connection.execute("INSERT INTO public.access_tokens (label, token_sha256, created_at, expires_at, sources)"
                           " VALUES (%s, %s, '2026-02-03 14:00Z', %s, %s)", (label, secrets.token_bytes(32), expires, sources))
    created = {"createdAt": "2026-02-03T14:00:00Z"}
    assert document("token list") == ({"tokens": [
        {"label": "next", "expiresAt": "9999-12-31T23:59:59Z", "state": "live", "sources": ["x"]} | created,
        {"label": "old", "expiresAt": "2026-02-04T00:00:00Z", "state": "expired", "sources": ['q"\\', "lab-*"]} | created,
        {"label": "wall", "expiresAt": None, "state": "live", "sources": None} | created]}, 0)


def test_each_source_has_its_times_and_numbers(document, connection):
    connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES ('keys only', %s)", (secrets.token_bytes(32),))
    for number, name in enumerate(NAMES):
        connection.execute(FILL, {"source": name, "last": number})
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_x', 'z', 'infinity', 'tool', '{}')")
    size = connection.execute("SELECT pg_total_relation_size('public.events')").fetchone()[0]
    total = sum(range(len(NAMES) + 1)) + 1
    later = ["2026-02-03T23:59:59Z", *(f"2026-02-04T00:00:0{number}Z" for number in range(4))]
    rows = [{"source": name, "firstEventAt": later[0], "newestEventAt": later[number], "eventCount": number + 1, "keyCount": 0,
             "bytes": round(size * (number + 1) / total)} for number, name in enumerate(NAMES)]
    rows += [{"source": "keys only", "firstEventAt": None, "newestEventAt": None, "eventCount": 0, "keyCount": 1, "bytes": 0},
             {"source": "z", "firstEventAt": None, "newestEventAt": None, "eventCount": 1, "keyCount": 0, "bytes": round(size / total)}]
    assert document("source list") == ({"sources": rows}, 0)


def test_a_dry_run_counts_by_source_and_day(document, connection):
    for name in NAMES:
        connection.execute(FILL, {"source": name, "last": 2})
    days = [{"source": name, "date": date, "eventCount": count} for name in NAMES for date, count in (("2026-02-03", 1), ("2026-02-04", 2))]
    assert document(COMMANDS[3]) == ({"days": days}, 0)
    assert connection.execute("SELECT count(*) FROM public.events").fetchone() == (3 * len(NAMES),)


def test_counts_that_differ_are_listed_and_are_a_failure(document, connection, stack, database):
    for name in NAMES:
        connection.execute(FILL, {"source": name, "last": 1})
    assert document("counts check") == ({"differences": []}, 0)
    connection.execute("UPDATE public.hourly_counts SET event_count = 7 WHERE hour = '2026-02-04 00:00Z'")
    assert document("counts check") == (
        {"differences": [{"source": name, "hour": "2026-02-04T00:00:00Z", "stored": 1, "counted": 7} for name in NAMES]}, 1)
    done = stack.steepctl("counts", "check", "--json", check=False, PGDATABASE=database.name)
    assert done.stderr == "steepctl: the counts of these hours differ from the stored events; run steepctl counts rebuild\n"


def test_status_has_the_checks_of_its_text(document, connection, stack):
    site = {"STEEP_URL": stack.values["STEEP_URL"], "STEEP_CA": stack.ca}
    connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", ('a"b\\c', secrets.token_bytes(32)))
    for name in NAMES:
        connection.execute(FILL, {"source": name, "last": 1})

    def compare(exit_status):
        found, code = document("status", **site)
        lines = document.text[:-1].split("\n")
        assert code == exit_status and set(found) == {"status", "message", "checks"}
        assert f"STEEP {found['status']}: {found['message']}" == lines[0]
        as_text = ["" if check["status"] == "OK" else f"{check['status']}: " for check in found["checks"]]
        as_text = [word + check["message"] for word, check in zip(as_text, found["checks"])]
        # Connections come and go.
        assert [line for line in as_text if "onnections" not in line] == [line for line in lines[1:] if "onnections" not in line]
        return found

    found = compare(1)
    assert (found["status"], found["message"]) == (
        "WARNING", "There is no valid token; run steepctl token add, unless the token is in VIBETEA_SUBSCRIBER_TOKEN.")
    messages = [check["message"] for check in found["checks"]]
    assert 'Monitor a"b\\c: no events yet, 1 key.' in messages
    assert "Monitor c?t???[31m?: newest event 2026-02-04T00:00:00Z, not registered." in messages
    connection.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES ('wall', %s)", (secrets.token_bytes(32),))
    assert compare(0)["status"] == "OK"
    connection.execute("DROP FUNCTION public.list_monitor_keys")
    assert compare(2)["status"] == "CRITICAL"


def test_status_is_json_whatever_a_setting_contains(stack):
    url = b'http://a"\\\x01\t\xff\xc3\xa9:1'.decode(errors="surrogateescape")
    done = stack.steepctl("--json", "status", check=False, PGHOST="/nonexistent", STEEP_URL=url)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["status"]) == (2, "", "CRITICAL")
    assert any('http://a"\\??é:1' in check["message"] for check in found["checks"]), found


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_an_error_is_a_sentence_and_no_document(command, stack):
    done = stack.steepctl("--json", *command.split(), check=False, PGHOST="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("steepctl: no connection to the database")


@pytest.mark.parametrize("command", [
    *(command for command in SUBCOMMANDS if command not in ("monitor list", "token list", "source list", "counts check", "status")),
    "monitor add x", "monitor add x y", "monitor remove x", "token add x", "token scope x --all", "token remove x", "source rename x y",
    "source rename -- x y", "source erase x", "source erase --yes -- x", "events export --source x", "events remove --future", "prune 30",
    "prune 30 --force", ""])
def test_a_command_without_json_is_wrong_usage_with_it(command, stack, db):
    contents = "SELECT (SELECT count(*) FROM public.events), (SELECT count(*) FROM public.monitor_keys), (SELECT count(*) FROM public.access_tokens)"
    before = db.execute(contents).fetchone()
    words = command.split()
    for arguments in (["--json", *words], *([[*words, "--json"]] if words and "--" not in words else [])):
        done = stack.steepctl(*arguments, check=False)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("usage: steepctl "), arguments
    assert db.execute(contents).fetchone() == before


def test_a_name_of_an_older_version_may_look_like_the_option(stack, db):
    db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES ('--json', %s)", (secrets.token_bytes(32),))
    assert stack.steepctl("monitor", "remove", "--", "--json").stdout == "removed keys of monitor --json: 1\n"


def test_the_help_names_the_option_where_it_can_be(stack):
    for command in SUBCOMMANDS:
        usage = stack.steepctl(*command.split(), "--help").stdout.split("\n\n")[1]
        assert ("[--json]" in usage) == any(each.startswith(command) for each in COMMANDS), command
