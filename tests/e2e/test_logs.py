"""After all other tests: no log contains a payload, a token, a signature or a key."""

import json
import re

import pytest

from wire import MARKER, SECRETS, secrets_in

pytestmark = [pytest.mark.last(5), pytest.mark.everywhere]

LOGS = ["postgresql", "nginx-error", "access", "ingest", "query"]
SEPARATOR = re.compile(r'[\s",:{}\[\]]+')
SANITIZER = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error:")


def text(stack, name):
    assert stack.log(name).exists(), f"there is no log/{name}.log"
    return stack.log_text(name)


@pytest.fixture(params=["stack", "second_stack"])
def logs(request):
    """The contents of all logs of an installation."""
    installation = request.getfixturevalue(request.param)
    found = {path.stem: path.read_text(errors="replace") for path in (installation.state / "log").iterdir()}
    assert set(found) >= set(LOGS)
    return found


def test_no_payload_is_in_a_log(logs):
    lines = [line for content in logs.values() for line in content.splitlines() if MARKER in line]
    assert lines == []


def test_no_token_signature_or_key_is_in_a_log(logs):
    # That they are many is checked in test_whole_run.py.
    assert SECRETS
    assert not any(SEPARATOR.search(secret) for secret in SECRETS)
    # Logs repeat most of their words: each is searched once.
    words = {name: "\n".join(set(SEPARATOR.split(content))) for name, content in logs.items()}
    assert {name: found for name, content in words.items() if (found := secrets_in(content))} == {}


@pytest.mark.parametrize("name", ["access", "ingest", "query", "postgresql"])
def test_the_log_was_written(name, stack):
    assert text(stack, name).strip()


@pytest.mark.parametrize("name", LOGS)
def test_nothing_a_client_sent_begins_a_new_line(name, stack):
    # PostgreSQL starts the further lines of an entry with a tab, and an administrator's SQL has tabs of its own.
    content = re.sub(r"\n\t+", "\n", text(stack, name))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", content)


@pytest.mark.parametrize("name", ["ingest", "query"])
def test_no_program_logged_a_sanitizer_report(name, stack):
    assert not SANITIZER.search(text(stack, name))


@pytest.mark.parametrize("name", ["ingest", "query"])
def test_every_line_of_a_program_has_keys_and_values(name, stack):
    # The shell that restarts a program reports those that a test killed.
    odd = [line for line in text(stack, name).splitlines() if not re.match(r"[a-z_]+=", line) and line != "Killed"]
    assert odd == []


def test_every_line_of_the_access_log_is_json(stack):
    for line in text(stack, "access").splitlines():
        assert json.loads(line)["request_id"]


def test_nginx_warned_of_nothing_when_it_read_its_configuration(logs):
    # Its sites log what is critical only.
    assert [line for line in logs["nginx-error"].splitlines() if "[warn]" in line] == []


def test_postgresql_did_not_panic_and_no_program_crashed(stack):
    assert "PANIC" not in text(stack, "postgresql")
    for name in ("ingest", "query"):
        assert "Segmentation" not in text(stack, name) and "Aborted" not in text(stack, name)
