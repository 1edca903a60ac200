"""The administrator's command: what it does, and what it refuses with a message."""

import hashlib
import os
import re
import secrets
import subprocess
from pathlib import Path

import pytest

from conftest import query_with
from monitor import SPKI_PREFIX, Monitor, base64_text, new_id
from stack import ROOT, wait_for
from wire import SECRETS

GOOD = Monitor("good").public
BAD_KEYS = {
    "nothing": "", "not base64": "!" * 44, "trailing line": base64_text(GOOD) + "\nA", "zeros": base64_text(bytes(32)),
    "SPKI of X25519": base64_text(bytes.fromhex("302a300506032b656e032100") + GOOD), "very long": "A" * 100000,
}


def refuses(stack, *arguments, **more):
    """Exit status 1 and a sentence; the sentence."""
    done = stack.steepctl(*arguments, check=False, **more)
    assert done.returncode == 1, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert " " in done.stderr.strip()
    assert not re.search(r"\b(ERROR|LINE 1|psql):", done.stderr), done.stderr
    return done.stderr


@pytest.fixture
def name():
    return f"ctl-{secrets.token_hex(6)}"


def openssh_line(public):
    """As ssh-keygen writes it, with a comment."""
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", public))
    return f"ssh-ed25519 {base64_text(blob)} me@laptop"


def pem(public):
    return f"-----BEGIN PUBLIC KEY-----\n{base64_text(SPKI_PREFIX + public)}\n-----END PUBLIC KEY-----\n"


# How people have a key, from its 32 bytes.
FORMS = {
    "base64": base64_text,
    "base64 of SPKI": lambda public: base64_text(SPKI_PREFIX + public),
    "base64 with CR": lambda public: base64_text(public) + "\r\n",
    "white space": lambda public: f" \t\r\n\v\f{base64_text(public)}\n\n \t",
    "byte order mark": lambda public: f"\ufeff{base64_text(public)}\r\n",
    "PEM": pem,
    "PEM with CR": lambda public: "\r\n" + pem(public).replace("\n", "\r\n"),
    "PEM on one line": lambda public: pem(public).replace("\n", " "),
    "PEM behind text": lambda public: "key of laptop\n" + pem(public),
    "OpenSSH": lambda public: openssh_line(public) + "\n",
    "OpenSSH with CR": lambda public: openssh_line(public) + "\r\n",
    "OpenSSH without comment": lambda public: openssh_line(public).rsplit(" ", 1)[0],
    "OpenSSH with tabs and more words": lambda public: openssh_line(public).replace(" ", " \t") + " * [a-z]*",
}


def given_as(way, text, folder):
    """The arguments and the standard input of a command that gets a key in some way."""
    if way == "file":
        (folder / "key.pub").write_bytes(text.encode())
        return [str(folder / "key.pub")], ""
    return {"argument": ([text], ""), "input": (["-"], text), "input alone": ([], text)}[way]


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_taken_in_each_form_and_from_everywhere(form, stack, db, name, tmp_path):
    for number, way in enumerate(("argument", "file", "input", "input alone")):
        sender = Monitor(f"{name}{number}")
        arguments, text = given_as(way, FORMS[form](sender.public), tmp_path)
        stack.steepctl("monitor", "add", sender.source, *arguments, input=text)
        rows = db.execute("SELECT public_key FROM public.monitor_keys WHERE source = %s", (sender.source,)).fetchall()
        assert rows == [(sender.public,)], way
        if arguments:
            stack.steepctl("monitor", "remove", sender.source, *arguments, input=text)
            assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (sender.source,)).fetchone() == (0,)


def test_the_keys_that_openssl_and_ssh_keygen_write_are_taken(stack, db, name, tmp_path):
    for program, *commands in (
            ("openssl", f"openssl genpkey -algorithm ed25519 -out {tmp_path}/a", f"openssl pkey -in {tmp_path}/a -pubout -out {tmp_path}/a.pub"),
            ("ssh-keygen", f"ssh-keygen -q -t ed25519 -N '' -C 'me at home' -f {tmp_path}/b")):
        for command in commands:
            subprocess.run(["sh", "-c", command], check=True)
        public = next(tmp_path.glob("*.pub"))
        stack.steepctl("monitor", "add", f"{name}-{program}", str(public))
        assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (f"{name}-{program}",)).fetchone() == (1,)
        # The same files without .pub are private keys.
        sentence = refuses(stack, "monitor", "add", f"{name}-{program}", str(public.with_suffix("")))
        assert sentence == "steepctl: this is a private key, which nobody but the monitor should have; use its public key\n"
        public.unlink()


BAD_TEXTS = {
    "two PEM": pem(GOOD) * 2, "PEM of nothing": pem(b"")[:27] + "\n-----END PUBLIC KEY-----\n", "PEM of X25519":
        pem(GOOD).replace("MCowBQYDK2Vw", "MCowBQYDK2Vu"), "PEM without end": pem(GOOD)[:90], "two OpenSSH": f"{openssh_line(GOOD)}\n" * 2,
    "OpenSSH of 31 bytes": openssh_line(GOOD[:31]), "OpenSSH of 33 bytes": openssh_line(GOOD + b"\0"), "OpenSSH of nothing": "ssh-ed25519 ",
    "OpenSSH of another type": openssh_line(GOOD).replace("AAAAC3NzaC1lZDI1NTE5", "AAAAC3NzaC1lZDI1NTE6"),
    "OpenSSH with junk": openssh_line(GOOD).replace(" me", "! me"), "ssh-rsa": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== me@laptop",
    "two keys": f"{base64_text(GOOD)}\n{base64_text(GOOD)}\n", "NUL in it": base64_text(GOOD)[:20] + "\0" + base64_text(GOOD)[20:],
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_a_bad_file_is_refused_and_not_quoted(kind, stack, db, name, tmp_path):
    for way in ("file", "input", *(["argument"] if "\0" not in BAD_TEXTS[kind] else [])):
        arguments, text = given_as(way, BAD_TEXTS[kind], tmp_path)
        sentence = refuses(stack, "monitor", "add", name, *arguments, input=text)
        assert "not an Ed25519 public key" in sentence and not any(word in sentence for word in BAD_TEXTS[kind].split() if len(word) > 11)
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (name,)).fetchone() == (0,)


PRIVATE_TEXTS = {
    "PKCS #8": base64_text(bytes.fromhex("302e020100300506032b657004220420") + GOOD),
    "PEM": f"-----BEGIN PRIVATE KEY-----\n{base64_text(GOOD)}\n-----END PRIVATE KEY-----\n",
    "PuTTY": f"PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\n{base64_text(GOOD)}\n",
    "base64 of 64 bytes": base64_text(GOOD * 2),
}


@pytest.mark.parametrize("kind", PRIVATE_TEXTS)
def test_a_private_key_in_a_file_is_never_an_argument(kind, stack, name, tmp_path):
    """Others on the machine can read the arguments of a program."""
    given = tmp_path / "given"
    (tmp_path / "ingest.fcgi").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{given}\n')
    (tmp_path / "ingest.fcgi").chmod(0o755)
    (tmp_path / "key").write_text(PRIVATE_TEXTS[kind])
    sentence = refuses(stack, "monitor", "add", name, str(tmp_path / "key"), STEEP_LIBEXEC=str(tmp_path))
    assert not given.exists()
    assert kind not in ("PKCS #8", "PEM") or "this is a private key" in sentence


def test_a_missing_file_and_a_folder_are_not_keys(stack, name, tmp_path):
    for path in (tmp_path / "missing.pub", tmp_path, Path("/dev/null")):
        assert "and not a file with one" in refuses(stack, "monitor", "add", name, str(path))


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_a_bad_key_is_refused_and_not_quoted(kind, stack, db, name):
    sentence = refuses(stack, "monitor", "add", name, BAD_KEYS[kind])
    assert len(BAD_KEYS[kind]) < 5 or BAD_KEYS[kind] not in sentence
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (name,)).fetchone() == (0,)


@pytest.mark.parametrize("bad", ["", " ", " a", "a ", "a\tb", "a\nb", "a\n", "é", "日本", "\x7f", "\x01", "x" * 256, "x" * 5000,
                                 "-", "-n", "--", "--force"],
                         ids=lambda value: ascii(value)[:20])
def test_a_bad_name_is_refused(bad, stack, db):
    refuses(stack, "monitor", "add", bad, Monitor("x").public_base64)
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (bad,)).fetchone() == (0,)


def test_a_name_may_be_any_printable_ascii(stack, db, client):
    every_character = "".join(map(chr, range(ord("!"), ord("~")))) + " ~"
    names = [every_character, "\\", "*", "~", "{}", "$(id)", "`id`", "n-", "a--help", "a -n", "%s", "x" * 255,
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


@pytest.mark.parametrize("old", ["-n", "--", "--help", "-h", "--expires"])
def test_what_older_versions_registered_with_a_hyphen_can_be_removed(old, stack, db):
    key, digest = Monitor("x").public, secrets.token_bytes(32)
    db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (old, key))
    db.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES (%s, %s)", (old, digest))
    stack.steepctl("token", "remove", "--", old)
    stack.steepctl("monitor", "remove", "--", old)
    assert db.execute("SELECT count(*) FROM public.monitor_keys WHERE source = %s", (old,)).fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM public.access_tokens WHERE label = %s", (old,)).fetchone() == (0,)


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


@pytest.mark.parametrize("label", ["", " ", "a b", "ä", "x" * 65, "a/b", "a'b", "a\n", "a\nb", "a*", "a:b", "$(id)", "%",
                                   "-", "-n", "--", "--force"],
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


# What dashboards have may be shorter, longer, or of other characters than what steepctl makes.
TOKENS = {"words": "our-own_token.2024~+/=", "one": "x", "symbols": "".join(map(chr, range(ord("!"), 127))), "long": "0123456789abcdef" * 64}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_dashboards_have_is_registered(kind, stack, db, client, name):
    for text, options in ((TOKENS[kind], ["--stdin"]), (f" \t{TOKENS[kind]}\r\n", ["--stdin", "--expires", "3"])):
        done = stack.steepctl("token", "add", name, *options, input=text)
        assert done.stdout == f"added token {name}\n"
        digest, expires = db.execute("SELECT token_sha256, expires_at IS NOT NULL FROM public.access_tokens WHERE label = %s", (name,)).fetchone()
        assert (digest, expires) == (hashlib.sha256(TOKENS[kind].encode()).digest(), len(options) > 1)
        wait_for(lambda: query_with(client, TOKENS[kind]).status_code == 200, "the token to be taken up")
        sentence = refuses(stack, "token", "add", f"{name}.2", "--stdin", input=TOKENS[kind])
        assert sentence == f"steepctl: this token is registered already, with the label {name}\n"
        assert refuses(stack, "token", "add", name, "--stdin", input="another") == \
            f"steepctl: token {name} already exists; remove it first, or choose another label\n"
        stack.steepctl("token", "remove", name)


@pytest.mark.parametrize("text", ["", "\n", " \t\r\n", "two words", "two\nlines", "Bearer abcdefgh", "ümlaut", "a\0b", "a\x7fb", "x" * 4097,
                                  "x" * 100000], ids=lambda value: ascii(value)[:20])
def test_a_bad_token_is_refused_and_not_quoted(text, stack, db, name):
    sentence = refuses(stack, "token", "add", name, "--stdin", input=text)
    assert sentence.startswith("steepctl: the token must ") and (len(text) < 5 or text not in sentence)
    assert db.execute("SELECT count(*) FROM public.access_tokens WHERE label = %s", (name,)).fetchone() == (0,)


def test_options_may_come_before_the_label(stack, db, name):
    stack.steepctl("token", "add", "--expires", "3", "--stdin", name, input=secrets.token_hex())
    assert db.execute("SELECT expires_at > now() FROM public.access_tokens WHERE label = %s", (name,)).fetchone() == (True,)


SUBCOMMANDS = ["setup", "migrate", "monitor add", "monitor list", "monitor remove", "token add", "token scope", "token list", "token remove",
               "source list", "source rename", "source erase", "events export", "events import", "events remove", "counts check",
               "counts rebuild", "prune", "shards init", "shards add", "shards list", "shards check", "roles", "status"]


def test_usage_and_manual_page_have_every_subcommand(stack):
    usage = stack.steepctl("--help").stdout
    assert re.findall(r"^  ([a-z]+(?: [a-z]+)?)(?= {2,}| [A-Z[]|$)", usage, re.MULTILINE) == SUBCOMMANDS
    # A terminal's width, and no more than fits on a tall one.
    assert max(map(len, usage.splitlines())) <= 80 and len(usage.splitlines()) <= 60
    manual = (ROOT / "deploy/man/steepctl.8").read_text()
    synopsis, items = manual[manual.index(".Sh SYNOPSIS"):manual.index(".Sh DESCRIPTION")], manual[manual.index(".Sh DESCRIPTION"):manual.index(".Sh JSON")]
    described = re.findall(rf"^\.It (?:Xo )?Cm ({'|'.join(SUBCOMMANDS)})\b", items, re.MULTILINE)
    assert list(dict.fromkeys(described)) == SUBCOMMANDS
    assert list(dict.fromkeys(re.findall(r"^\.Cm ([a-z]+(?: [a-z]+)?)", synopsis, re.MULTILINE))) == SUBCOMMANDS


def test_usage_and_manual_page_have_the_same_options(stack):
    manual = (ROOT / "deploy/man/steepctl.8").read_text()
    for command in SUBCOMMANDS:
        usage = "".join(line for line in stack.steepctl(*command.split(), "--help").stdout.splitlines() if line.startswith("  "))
        options = set(re.findall(r"--[a-z-]+", usage))
        lines = [re.findall(rf"^\.(?:Nm\n\.)?{start}{command}\b(?:.*\n)(?:\.(?:Op|Fl|Ar).*\n)*", manual, re.MULTILINE)
                 for start in ("Cm ", "It (?:Xo )?Cm ")]
        for found in lines:
            assert set(re.findall(r"\bFl (-[a-z-]+)", "".join(found))) == {option[1:] for option in options}, (command, found)


def test_the_manual_page_has_every_environment_variable():
    scripts = [ROOT / "deploy" / "steepctl", ROOT / "sql" / "migrate", *(ROOT / "deploy" / "admin").iterdir()]
    read = set(re.findall(r"\$\{?((?:STEEP|PG)_?[A-Z]+)\b", "".join(path.read_text() for path in scripts)))
    manual = (ROOT / "deploy/man/steepctl.8").read_text()
    environment = manual[manual.index(".Sh ENVIRONMENT"):manual.index(".Sh FILES")]
    assert {"PGHOST", "STEEP_URL", "STEEP_MIGRATIONS"} <= read
    # steepctl adds to PGOPTIONS, which is psql's.
    assert read - set(re.findall(r"\b(?:STEEP|PG)_?[A-Z]+\b", environment)) == {"PGOPTIONS"}


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", [*SUBCOMMANDS, "monitor", "token", "source", "events", "counts", "shards"])
def test_each_subcommand_has_help_and_does_nothing_then(command, option, stack, db):
    credentials = ("SELECT (SELECT count(*) FROM public.access_tokens), (SELECT count(*) FROM public.monitor_keys),"
                   " (SELECT count(*) FROM public.events)")
    before = db.execute(credentials).fetchone()
    for arguments in ([], *([["x", "--expires", "9"]] if command in SUBCOMMANDS[1:] else [])):
        done = stack.steepctl(*command.split(), *arguments, option, PGHOST="/nonexistent")
        assert done.stderr == "" and done.stdout.startswith("usage: steepctl ")
        described = set(re.findall(r"^(?:  |usage: steepctl )([a-z]+ ?[a-z]*)", done.stdout, re.MULTILINE)) - {""}
        wanted = {each for each in SUBCOMMANDS if each.startswith(command)}
        assert {each.strip() for each in described} == wanted, done.stdout
    assert db.execute(credentials).fetchone() == before


@pytest.mark.parametrize("command", ["", "nonsense", "monitor nonsense", "token nonsense"])
def test_help_for_no_command_is_refused(command, stack):
    done = stack.steepctl(*(command.split() or [""]), "--help", check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("usage: steepctl ")


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


@pytest.mark.parametrize("option", ["--name", "--behind-proxy", "--listen", "--certificate", "--key"])
def test_an_empty_value_is_not_the_default_of_setup(option, stack):
    done = stack.steepctl("setup", option, "", check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("usage: steepctl setup ")


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


@pytest.mark.parametrize("command", ["monitor list", "token list --json", "source list", "events export"])
def test_a_list_that_cannot_be_printed_is_reported(command, stack):
    command = [str(ROOT / "deploy" / "steepctl"), *command.split()]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=stack.environment(), timeout=60)
    assert (done.returncode, done.stderr) == (1, "steepctl: the output is incomplete: No space left on device\n")
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], capture_output=True, text=True, env=stack.environment(), timeout=60)
    assert (done.returncode, done.stderr) == (1, "steepctl: the standard output is closed\n")


def test_an_unreachable_database_is_reported():
    done = subprocess.run([str(ROOT / "deploy" / "steepctl"), "monitor", "list"], text=True, capture_output=True,
                          env=os.environ | {"PGHOST": "/nonexistent", "PGUSER": "nobody", "PGDATABASE": "steep"}, timeout=60)
    assert done.returncode != 0 and done.stderr.strip() and not done.stdout.strip()
