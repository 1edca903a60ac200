"""bash and zsh complete the lines of steepctl and steep-monitor, in a terminal."""

import os
import pty
import re
import secrets
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from database import made_database
from stack import ROOT, SLOWNESS
from test_steepctl import SUBCOMMANDS

COMPLETION = ROOT / "deploy" / "completion"
MONITOR = Path(os.environ.get("STEEP_BUILD") or ROOT / "build").resolve() / "steep-monitor"
# Each shell appends its line to $RECORD when it is ready, and when ^X^D is typed; ^X^A inserts all that TAB would offer.
START = {
    "bash": """
        . {completion}/steepctl.bash
        . {completion}/steep-monitor.bash
        record() {{ printf '%s\\0' "${{READLINE_LINE-}}" >>"$RECORD"; }}
        bind '"\\C-x\\C-a": insert-completions'
        bind -x '"\\C-x\\C-d": record'
        PROMPT_COMMAND=record PS1='> '
    """,
    "zsh": """
        fpath=({functions} $fpath)
        autoload -U compinit
        compinit -u -D
        record() {{ print -rn -- "$BUFFER"$'\\0' >>$RECORD }}
        all() {{ _main_complete; compstate[insert]=all }}
        zle -C all complete-word all
        zle -N record
        zle -N zle-line-init record
        bindkey -e
        PS1='> '
        bindkey '^X^A' all
        bindkey '^X^D' record
    """,
}
COMMANDS = {"bash": ["bash", "--noprofile", "--rcfile", "start", "-i"], "zsh": ["zsh", "-d", "-i"]}


class Shell:
    """An interactive shell in a terminal, in a folder of its own with two files and a folder."""

    def __init__(self, name, folder, environment):
        self.record, self.screen, self.count = folder / "record", b"", 0
        functions = folder / "functions"
        for made in (functions, folder / "bin", folder / "here", folder / "here" / "folder"):
            made.mkdir()
        for program, path in (("steepctl", ROOT / "deploy" / "steepctl"), ("steep-monitor", MONITOR)):
            (folder / "bin" / program).symlink_to(path)
            (functions / f"_{program}").symlink_to(COMPLETION / f"{program}.zsh")
        for file in ("laptop.key", "two words"):
            (folder / "here" / file).touch()
        start = folder / ("start" if name == "bash" else ".zshrc")
        start.write_text(START[name].format(completion=COMPLETION, functions=functions))
        command = [str(start) if word == "start" else word for word in COMMANDS[name]]
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder / "here")
            os.execvpe(command[0], command, environment | {
                "PATH": f"{folder}/bin:{environment['PATH']}", "RECORD": str(self.record), "ZDOTDIR": str(folder),
                "TERM": "xterm", "LC_ALL": "C.UTF-8", "HISTFILE": ""})
        self.read()

    def read(self):
        """Waits for the next record; keeps what the terminal shows meanwhile."""
        self.count += 1
        deadline = time.monotonic() + 30 * SLOWNESS
        while not self.record.exists() or self.record.read_bytes().count(b"\0") < self.count:
            assert time.monotonic() < deadline, self.screen
            if select.select([self.terminal], [], [], 0.01)[0]:
                self.screen += os.read(self.terminal, 65536)
        return self.record.read_bytes().split(b"\0")[self.count - 1].decode()

    def type(self, keys):
        """The line after some keys."""
        self.screen = b""
        os.write(self.terminal, f"\x15{keys}\x18\x04".encode())
        return self.read()

    def words(self, line):
        """What can follow a line."""
        before = shlex.split(line + ("." if line[-1] != " " else ""))
        return set(shlex.split(self.type(line + "\x18\x01"))[len(shlex.split(line)) if line[-1] == " " else len(before) - 1:])

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture(params=["bash", "zsh"])
def shell(request, stack, tmp_path):
    opened = []

    def start(**more):
        (tmp_path / str(len(opened))).mkdir()
        opened.append(Shell(request.param, tmp_path / str(len(opened)), stack.environment(**more)))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def options_of(usage):
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", usage))


def test_every_command_and_option_of_steepctl_is_completed(shell, stack):
    opened = shell()
    assert opened.words("steepctl ") == {command.split()[0] for command in SUBCOMMANDS}
    assert opened.words("steepctl --") == {"--help", "--json"}
    for group in {command.split()[0] for command in SUBCOMMANDS if " " in command}:
        assert opened.words(f"steepctl {group} ") == {command.split()[1] for command in SUBCOMMANDS if command.startswith(f"{group} ")}
    seen = set()
    for command in SUBCOMMANDS:
        usage = "\n".join(line for line in stack.steepctl(*command.split(), "--help").stdout.splitlines() if line.startswith("  "))
        offered = opened.words(f"steepctl {command} -")
        assert offered == options_of(usage) | {"--help"}, command
        seen |= offered
    assert seen == options_of(stack.steepctl("--help").stdout)


def test_commands_and_options_follow_json(shell):
    opened = shell()
    assert opened.words("steepctl --json ") == {command.split()[0] for command in SUBCOMMANDS}
    assert opened.words("steepctl --json token ") == {"add", "scope", "list", "remove"}
    assert opened.type("steepctl --json st\t") == "steepctl --json status "
    assert opened.type("steepctl roles nonsense \t").strip() == "steepctl roles nonsense --help"
    assert opened.words("steepctl nonsense ") == {"--help"}


MONITORS = {"desk", "desk-2", "my laptop", "host@a:1", "host@a:2", "it's \\ $HOME"}


@pytest.fixture(scope="module")
def filled(stack):
    """A database with monitors, tokens, and a source that is no monitor."""
    cluster = {"host": stack.pg["PGHOST"], "port": stack.pg["PGPORT"], "user": stack.pg["PGUSER"]}
    with made_database(cluster) as database, database.connect() as connection:
        database.migrate()
        for name in MONITORS:
            connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (name, secrets.token_bytes(32)))
        for label in ("wall", "phone"):
            connection.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES (%s, %s)", (label, secrets.token_bytes(32)))
        connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                           " VALUES ('evt_1', 'unregistered', now(), 'tool', '{}')")
        yield database


SOURCES = MONITORS | {"unregistered"}
# What can follow a line, if not options.
VALUES = {
    "steepctl token remove ": {"wall", "phone"}, "steepctl token scope p": {"phone"}, "steepctl token add ": set(),
    "steepctl monitor remove ": MONITORS, "steepctl monitor add d": {"desk", "desk-2"}, "steepctl source erase ": SOURCES,
    "steepctl source rename ": SOURCES, "steepctl source rename desk ": set(), "steepctl events export --source ": SOURCES,
    "steepctl events remove --future --source u": {"unregistered"}, "steepctl token add x --source u": {"unregistered"},
    "steepctl events export --from ": set(), "steepctl prune ": set(), "steepctl setup --name ": set(),
}


def test_labels_and_names_are_completed_from_the_database(shell, filled):
    opened = shell(PGDATABASE=filled.name)
    for line, wanted in VALUES.items():
        assert opened.words(line) == wanted, line


def test_a_completed_name_is_one_word_of_the_shell(shell, filled):
    opened = shell(PGDATABASE=filled.name)
    for typed, name in (("m", "my laptop"), ("my\\ l", "my laptop"), ("host@a:2", "host@a:2"), ("i", "it's \\ $HOME")):
        assert shlex.split(opened.type(f"steepctl source erase {typed}\t")) == ["steepctl", "source", "erase", name]
    assert opened.type("steepctl monitor remove ho\t") == "steepctl monitor remove host@a:"


def test_files_are_completed_where_one_can_be(shell):
    opened = shell()
    for line in ("steepctl setup --certificate ", "steepctl setup --key ", "steepctl monitor add x ", "steepctl monitor remove x "):
        assert shlex.split(opened.type(f"{line}la\t"))[-1] == "laptop.key", line
        assert shlex.split(opened.type(f"{line}two\t"))[-1] == "two words", line


def test_nothing_is_completed_or_shown_without_a_database(shell):
    opened = shell(PGHOST="/nonexistent")
    for line in ("steepctl token remove ", "steepctl source erase ", "steepctl monitor remove x"):
        assert opened.type(f"{line}\t") == line
        assert not re.search(rb"steepctl: |connection|psql", opened.screen), opened.screen


def test_a_database_that_asks_for_a_password_or_does_not_answer_does_not_hang_the_shell(shell, new_cluster):
    cluster = new_cluster()
    (cluster.data / "pg_hba.conf").write_text("local all all scram-sha-256\n")
    server = cluster.start()
    opened = shell(PGHOST=str(cluster.folder))
    assert opened.type("steepctl token remove \t") == "steepctl token remove "
    os.kill(server, signal.SIGSTOP)
    try:
        assert opened.type("steepctl token remove \t") == "steepctl token remove "
    finally:
        os.kill(server, signal.SIGCONT)
    assert b"assword" not in opened.screen


@pytest.fixture
def options():
    """Those of steep-monitor's usage."""
    return options_of(subprocess.run([MONITOR, "--help"], text=True, capture_output=True, check=True).stdout)


def test_the_manual_page_of_steep_monitor_has_the_options_of_its_usage(options):
    manual = (ROOT / "deploy" / "man" / "steep-monitor.1").read_text()
    section = manual[manual.index(".Ss Options"):manual.index(".Ss Commands")]
    described = " ".join(re.findall(r"^\.It Fl (.*)$", section, re.MULTILINE))
    assert {f"-{name}" for name in re.findall(r"(?<!\S)-?[a-zA-Z][a-z-]*", re.sub(r"Ar [A-Z]+", "", described))} == options


def test_every_command_and_option_of_steep_monitor_is_completed(shell, options):
    assert {"-t", "-V", "--url", "--rotate-wait", "--help"} <= options
    opened = shell()
    assert opened.words("steep-monitor -") == options
    files = {"laptop.key", "two words", "folder"}
    assert opened.words("steep-monitor ") == {"keygen", "status", "rejected"} | files
    assert opened.words("steep-monitor --block -") == options
    assert opened.words("steep-monitor rejected ") == {"list", "retry", "discard"}
    assert opened.type("steep-monitor --source x k\t") == "steep-monitor --source x keygen "
    for line in ("steep-monitor --key ", "steep-monitor --block --ca ", "steep-monitor --url https://steep.example "):
        assert shlex.split(opened.type(f"{line}la\t"))[-1] == "laptop.key", line
        assert shlex.split(opened.type(f"{line}two\t"))[-1] == "two words", line
    for line in ("steep-monitor --state ", "steep-monitor keygen "):
        assert opened.type(f"{line}\t").rstrip("/ ") == f"{line}folder"
    for line in ("steep-monitor --url ", "steep-monitor --spool-size "):
        assert opened.words(line) == set()
