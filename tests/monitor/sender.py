"""steep-monitor as a process: its folder, its input, its log, and what it rejected."""

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

from stack import ROOT, SLOWNESS, alive, wait_for
from wire import MARKER

PROGRAM = Path(os.environ.get("STEEP_BUILD") or ROOT / "build").resolve() / "steep-monitor"

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^" ]*)(?: |$)')


def clean_environment(**more):
    """This process's environment without the variables that steep-monitor or libcurl read."""
    dropped = ("STEEP_", "VIBETEA_", "XDG_", "STATE_DIRECTORY")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped) and not k.lower().endswith("_proxy")}
    return kept | more


def parse_log(text):
    """The lines of a log as dictionaries; a line of another format is an error."""
    records = []
    for line in text.splitlines():
        fields = FIELD.findall(line)
        assert fields and fields[0][0] == "time", f"not a line of the log: {line!r}"
        records.append({name: unquoted(value) for name, value in fields})
    return records


def unquoted(value):
    if not value.startswith('"'):
        return value
    return re.sub(r"\\(x[0-9a-f]{2}|.)", lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 3 else m[1], value[1:-1])


class Sender:
    """One state folder, and the processes that use it one after the other."""

    def __init__(self, folder, identity, url, authority):
        self.folder = folder
        self.identity = identity
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        (self.state / "key.priv").write_bytes(bytes(identity.key))
        (self.state / "key.priv").chmod(0o600)
        self.environment = clean_environment(
            STEEP_MONITOR_STATE=str(self.state), STEEP_URL=url, STEEP_CA=str(authority), STEEP_SOURCE=identity.source,
            STEEP_BATCH_INTERVAL_SECS="1")
        self.stderr = folder / "monitor.log"
        self.stderr.touch()
        self.process = None
        self.numbers = 0

    # Events.

    def event(self, **changes):
        """A numbered event with every field, some of them changed."""
        self.numbers += 1
        return self.identity.event(type="tool", payload={"number": self.numbers, "note": MARKER}) | changes

    def lines(self, count):
        return [json.dumps(self.event()) for _ in range(count)]

    # The process.

    def start(self, *arguments, prefix=(), stdin=subprocess.PIPE, **changes):
        """Run it until the next end(); None removes a variable."""
        assert self.process is None
        environment = {k: v for k, v in (self.environment | changes).items() if v is not None}
        with open(self.stderr, "ab") as log:
            self.process = subprocess.Popen([*prefix, str(PROGRAM), *map(str, arguments)], stdin=stdin, env=environment,
                                            stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
        self.wait_for("started")
        return self

    def run_with(self, prefix):
        """Its exit status if it ends at once, or None if it runs."""
        with contextlib.suppress(AssertionError):
            self.start(prefix=prefix)
            return None
        status = self.process.wait(20 * SLOWNESS)
        self.process = None
        return status

    def feed(self, *lines):
        """Lines on standard input: text, or bytes as they are."""
        for line in lines:
            self.process.stdin.write(line if isinstance(line, bytes) else f"{line}\n".encode())
        self.process.stdin.flush()

    def send_signal(self, number):
        self.process.send_signal(number)

    def send_now(self):
        self.send_signal(signal.SIGUSR1)

    def end(self, number=signal.SIGTERM, seconds=20):
        """Signal it, unless number is None, and return its exit status."""
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(seconds * SLOWNESS)
        if self.process.stdin:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        self.process = None
        self.log_place = len(self.stderr.read_bytes())
        return status

    log_place = 0
    prefix = ()  # of commands

    def kill(self):
        if self.process is not None and alive(self.process.pid):
            self.process.kill()
            self.process.wait()

    def run(self, *arguments, **changes):
        """Run it as a command that ends by itself."""
        environment = {k: v for k, v in (self.environment | changes).items() if v is not None}
        return subprocess.run([*self.prefix, str(PROGRAM), *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=60 * SLOWNESS, cwd=self.folder)

    # Its output.

    def log(self, event=None, **fields):
        """The log lines of this event and with these fields, of the running process or else of all."""
        data = self.stderr.read_bytes()[self.log_place if self.process else 0:]
        whole = data[:data.rfind(b"\n") + 1].decode(errors="replace")
        wanted = {name: str(value) for name, value in fields.items()} | ({"event": event} if event else {})
        return [record for record in parse_log(whole) if all(record.get(name) == value for name, value in wanted.items())]

    def wait_for(self, event, seconds=20, **fields):
        """Wait for such a line, and return the newest."""
        def found():
            assert self.process is None or self.process.poll() is None or self.log(event, **fields), (
                f"ended with {self.process.returncode}: {self.stderr.read_text(errors='replace')[-2000:]}")
            return self.log(event, **fields)

        return wait_for(found, f"a line {event} {fields}", seconds)[-1]

    def peak_mib(self):
        """Its peak memory; 0 with a sanitizer, which needs more."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 0 if os.environ.get("SANITIZE") else int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def rejected(self):
        """The rejected events and lines, oldest first, as `steep-monitor rejected list` prints them."""
        done = self.run("rejected", "list")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def held(self):
        """The bytes of the files of the spool."""
        return sum(path.stat().st_size for path in self.state.glob("spool.db*"))

    @property
    def database(self):
        return self.state / "spool.db"

    def status(self):
        done = self.run("status")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_until_settled(self, total, seconds=20):
        """Wait until so many events were sent or rejected, over the life of the state folder, and none is pending."""
        def settled():
            return self.pending() == 0 and self.counted("sent") + len(self.rejected()) >= total

        wait_for(settled, f"{total} events to be settled", seconds)

    def pending(self):
        """The number of pending events, by `steep-monitor status`."""
        return self.counted("pending")

    def counted(self, what):
        found = re.search(rf"^{what}\W+(\d+)", self.status(), re.MULTILINE | re.IGNORECASE)
        assert found, self.status()
        return int(found[1])
