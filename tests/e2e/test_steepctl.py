"""The administrator's command: what it does, and what it refuses with a message."""

import hashlib
import os
import re
import secrets
import subprocess

import pytest

from conftest import query_with
from monitor import Monitor, base64_text, new_id
from stack import ROOT, wait_for
from wire import SECRETS

GOOD = Monitor("good").public
BAD_KEYS = {
    "nothing": "", "not base64": "!" * 44, "trailing line": base64_text(GOOD) + "\nA", "zeros": base64_text(bytes(32)),
    "SPKI of X25519": base64_text(bytes.fromhex("302a300506032b656e032100") + GOOD), "very long": "A" * 100000,
}


def refuses(stack, *arguments):
    """Exit status 1 and a sentence; the sentence."""
    done = stack.steepctl(*arguments, check=False)
    assert done.returncode == 1, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert " " in done.stderr.strip()
    assert not re.search(r"\b(ERROR|LINE 1|psql):", done.stderr), done.stderr
    return done.stderr


@pytest.fixture
def name():
    return f"ctl-{secrets.token_hex(6)}"


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_a_bad_key_is_refused_and_not_quoted(kind, stack, db, name):
    sentence = refuses(stack, "monitor", "add", name, BAD_KEYS[kind])
    assert len(BAD_KEYS[kind]) < 5 or BAD_KEYS[kind] not in sentence
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (name,)).fetchone() == (0,)


@pytest.mark.parametrize("bad", ["", " ", " a", "a ", "a\tb", "a\nb", "a\n", "é", "日本", "\x7f", "\x01", "x" * 256, "x" * 5000],
                         ids=lambda value: ascii(value)[:20])
def test_a_bad_name_is_refused(bad, stack, db):
    refuses(stack, "monitor", "add", bad, Monitor("x").public_base64)
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (bad,)).fetchone() == (0,)


def test_a_name_may_be_any_printable_ascii(stack, db, client):
    every_character = "".join(map(chr, range(ord("!"), ord("~")))) + " ~"
    names = [every_character, "\\", "*", "~", "{}", "$(id)", "`id`", "-n", "--", "--help", "%s", "x" * 255,
             "'; DROP TABLE events; --", ":name", ":'name'"]
    senders = [Monitor(name) for name in names]

    def stored():
        rows = db.execute("SELECT source, public_key FROM public.monitor_keys WHERE source = ANY(%s)", (names,))
        return sorted(rows.fetchall())

    for sender in senders:
        stack.steepctl("monitor", "add", sender.source, sender.public_base64)
    assert stored() == sorted((sender.source, sender.public) for sender in senders)
    for sender in senders:
        wait_for(lambda: sender.post(client, [sender.event()]).status_code == 200, f"the key of {sender.source}")
    listed = stack.steepctl("monitor", "list").stdout
    assert all(f"{name}\t" in listed for name in names)
    for name in names:
        stack.steepctl("monitor", "remove", name)
    assert stored() == []


def test_adding_a_key_twice_leaves_one(stack, db, name):
    sender = Monitor(name)
    stack.steepctl("monitor", "add", name, sender.public_base64)
    # Whether the second time is an error is unspecified.
    stack.steepctl("monitor", "add", name, sender.spki_base64, check=False)
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (name,)).fetchone() == (1,)


def test_removing_one_key_keeps_the_others(stack, db, name):
    first, second = Monitor(name), Monitor(name)
    for sender in (first, second):
        stack.steepctl("monitor", "add", name, sender.public_base64)
    stack.steepctl("monitor", "remove", name, first.spki_base64)
    left = db.execute("SELECT public_key FROM public.monitor_keys WHERE source = %s", (name,)).fetchall()
    assert left == [(second.public,)]


def test_an_unknown_monitor_key_or_token_cannot_be_removed(stack, name):
    refuses(stack, "monitor", "remove", name)
    refuses(stack, "token", "remove", name)
    sender = Monitor(name)
    stack.steepctl("monitor", "add", name, sender.public_base64)
    refuses(stack, "monitor", "remove", name, Monitor(name).public_base64)


def test_a_token_is_32_random_bytes_behind_a_fixed_prefix_and_kept_as_its_hash(stack, db, name):
    made = []
    for label in (f"{name}.1", f"{name}.2"):
        made.append(stack.steepctl("token", "add", label).stdout.split()[-1])
        SECRETS.add(made[-1])
        stored = db.execute("SELECT token_sha256, expires_at FROM public.access_tokens WHERE label = %s", (label,))
        assert stored.fetchone() == (hashlib.sha256(made[-1].encode()).digest(), None)
    assert made[0] != made[1]
    prefix = made[0][:-43]
    assert prefix and made[1][:-43] == prefix
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token[-43:]) for token in made)
    listed = stack.steepctl("token", "list").stdout
    assert f"{name}.1" in listed and not any(token in listed for token in made)


def test_a_token_may_expire(stack, db, name):
    SECRETS.add(stack.steepctl("token", "add", name, "--expires", "3").stdout.split()[-1])
    days = db.execute("SELECT expires_at - now() BETWEEN interval '71 hours' AND interval '73 hours'"
                      " FROM public.access_tokens WHERE label = %s", (name,))
    assert days.fetchone() == (True,)


@pytest.mark.parametrize("days", ["", "x", "-1", "1.5", "1 day", "1e3", "99999999999999999999", "0x10", "1'"])
def test_a_bad_expiry_is_refused(days, stack, db, name):
    refuses(stack, "token", "add", name, "--expires", days)
    assert db.execute("SELECT count(*) FROM public.access_tokens WHERE label = %s", (name,)).fetchone() == (0,)


@pytest.mark.parametrize("label", ["", " ", "a b", "ä", "x" * 65, "a/b", "a'b", "a\n", "a\nb", "a*", "a:b", "$(id)", "%"],
                         ids=lambda value: ascii(value)[:20])
def test_a_bad_label_is_refused(label, stack, db):
    before = db.execute("SELECT count(*) FROM public.access_tokens").fetchone()
    done = refuses(stack, "token", "add", label)
    assert done and db.execute("SELECT count(*) FROM public.access_tokens").fetchone() == before


def test_a_label_may_have_letters_digits_dots_dashes_and_underscores(stack, client):
    labels = ["A-z.0_9", "x" * 64, ".", "..", "0", "_"]
    tokens = [stack.steepctl("token", "add", label).stdout.split()[-1] for label in labels]
    SECRETS.update(tokens)
    for token in tokens:
        wait_for(lambda: query_with(client, token).status_code == 200, "the token to be taken up")
    for label in labels:
        stack.steepctl("token", "remove", label)


def test_a_label_can_be_used_once(stack, db, name):
    SECRETS.add(stack.steepctl("token", "add", name).stdout.split()[-1])
    refuses(stack, "token", "add", name)
    assert db.execute("SELECT count(*) FROM public.access_tokens WHERE label = %s", (name,)).fetchone() == (1,)


@pytest.mark.parametrize("arguments", [
    ["nonsense"], ["monitor"], ["monitor", "nonsense"], ["monitor", "add"], ["monitor", "add", "x"], ["token"], ["token", "add"],
    ["monitor", "add", "x", "y", "z"], ["token", "add", "x", "--nonsense"], ["token", "remove"],
    ["prune"], ["prune", "x"], ["prune", "-1"], ["prune", "1.5"],
], ids=" ".join)
def test_an_invalid_command_is_refused(arguments, stack):
    done = stack.steepctl(*arguments, check=False)
    assert done.returncode in (1, 2) and done.stderr.strip()


def test_migrating_again_changes_nothing(stack, db):
    before = db.execute("SELECT * FROM public.schema_migrations ORDER BY 1").fetchall()
    stack.steepctl("migrate")
    assert before and db.execute("SELECT * FROM public.schema_migrations ORDER BY 1").fetchall() == before


def test_status_prints_no_secret(stack):
    done = stack.steepctl("status", check=False)
    assert done.stdout.strip() and not any(secret in done.stdout for secret in SECRETS if len(secret) > 8)


def test_prune_deletes_events_older_than_so_many_days(stack, db, name):
    for days in (399, 401):
        db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                   " VALUES (%s, %s, now() - make_interval(days => %s), 'tool', '{}')", (new_id(), name, days))
    stack.steepctl("prune", "400")
    left = db.execute("SELECT round(extract(epoch FROM now() - timestamp) / 86400)::int FROM public.events"
                      " WHERE source = %s", (name,))
    assert left.fetchall() == [(399,)]


def test_an_unreachable_database_is_reported():
    done = subprocess.run([str(ROOT / "deploy" / "steepctl"), "monitor", "list"], text=True, capture_output=True,
                          env=os.environ | {"PGHOST": "/nonexistent", "PGUSER": "nobody", "PGDATABASE": "steep"}, timeout=60)
    assert done.returncode != 0 and done.stderr.strip() and not done.stdout.strip()
