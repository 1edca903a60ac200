"""An installation under trial: its clients, the faults, and the violations found."""

import collections
import contextlib
import threading
import time

import httpx
import psycopg

from monitors import UNAVAILABLE, Dashboard, FieldMonitor
from faults import COST, PART, sentence
from fastcgi import ingest_params
from scene import Scene
from stack import SLOWNESS, wait_for
from wire import header

# Waits are bounded by the deadline; this margin is for a busy machine.
MARGIN_SECONDS = 5 * SLOWNESS

# How long after a fault a program may still discover that its session has ended.
ECHO_SECONDS = 5 * SLOWNESS

# Parts whose faults leave no program to take a request, which may wait for that time.
PROGRAM_PARTS = ("ingest", "query", "front end", "nginx")

MONITORS = 6
WORKERS = 20  # more than there are requests, abandoned ones included: no request waits for a worker


class Gate:
    """Lets all clients take turns or none, and knows when none is in a turn."""

    def __init__(self):
        self.changed = threading.Condition()
        self.closed = False
        self.inside = 0

    @contextlib.contextmanager
    def passed(self):
        with self.changed:
            self.changed.wait_for(lambda: not self.closed)
            self.inside += 1
        try:
            yield
        finally:
            with self.changed:
                self.inside -= 1
                self.changed.notify_all()

    def close(self, seconds):
        """True when all clients have finished their turns."""
        with self.changed:
            self.closed = True
            return self.changed.wait_for(lambda: self.inside == 0, seconds)

    def open(self):
        with self.changed:
            self.closed = False
            self.changed.notify_all()


def is_anyone(_source):
    return True


class Happening:
    def __init__(self, fault):
        self.part = PART[fault]
        self.cost = COST[fault]
        self.name = sentence(fault)
        self.began = time.monotonic()
        self.ended = None

    def overlap(self, began, ended):
        """How many of its seconds lie between two moments."""
        return max(0, min(ended, self.ended or ended) - max(began, self.began))


class Violation(Exception):
    """A violation; it ends the run."""


class Trial(Scene):
    def __init__(self, stack, seed, deadline, disk, sizes, checks, programs=("ingest", "query"), tables=None, dashboard=Dashboard,
                 front_ends=()):
        super().__init__(stack, seed, deadline, "127.0.1.102")
        self.seed, self.disk = seed, disk
        self.programs = programs  # the names of their logs
        self.tables = tables or [stack.connect]  # how to connect to where the events are
        self.front_ends = front_ends  # each learns of a key by itself
        self.concerned = is_anyone  # whether the faults of a round concern a source; they may change it
        self.sizes, self.checks, self.margin = sizes, checks, MARGIN_SECONDS
        self.run_id = f"{seed % 16**8:08x}"
        self.gate = Gate()
        self.noting = threading.Lock()
        self.locks = collections.defaultdict(threading.Lock)
        self.happenings = []
        self.violations = []
        self.counts = collections.Counter()
        self.figures = collections.Counter()  # the longest of each, in seconds
        self.finished = False
        self.round_began = time.monotonic()
        self.log_places = collections.Counter()
        self.monitors = [FieldMonitor(self, n, f"127.0.1.{n + 1}") for n in range(MONITORS)]
        self.dashboard = dashboard(self, "dashboard", "127.0.1.100")
        self.observer = dashboard(self, "observer", "127.0.1.101")

    # Called by the clients.

    def goes_on(self):
        return not self.finished and not self.violations

    def count(self, what, number=1):
        with self.noting:
            self.counts[what] += number

    def note_most(self, what, value):
        with self.noting:
            self.figures[what] = max(self.figures[what], value)

    def note_outage(self, seconds):
        self.note_most("outage", seconds)

    def note_wait(self, client, answer, began, ended):
        """Record how long a request took: at most the deadline and the time in which no program could take it."""
        absent = self.absent(began, ended)
        self.note_most("wait", ended - began)
        self.note_most("wait for a program that is there", ended - began - absent)
        if ended - began > self.deadline + self.margin + absent:
            self.violated(f"{client.name} waited {ended - began:.1f} s, of which a program was away {absent:.1f} s",
                          answer, began)

    def absent(self, began, ended):
        """For how many seconds between two moments a fault left no program to take a request."""
        return sum(each.overlap(began, ended) for each in list(self.happenings) if each.part in PROGRAM_PARTS)

    def happened(self, began, ended):
        """The faults between two moments or just before; after a round there is none."""
        began = max(began - ECHO_SECONDS, self.round_began)
        return [each for each in list(self.happenings) if each.overlap(began, ended) > 0]

    def was_disturbed(self, part, began, ended):
        return any(each.part == part for each in self.happened(began, ended))

    def may_cost(self, cost, began, ended):
        return any(each.cost == cost for each in self.happened(began, ended))

    def may_be_refused(self, source, began, ended):
        """Whether a fault of the round may cost an answer about a source, or about all where it is None."""
        return self.concerned(source) and self.may_cost(UNAVAILABLE, began, ended)

    def violated(self, what, answer=None, began=None):
        now = time.monotonic()
        if answer is not None:
            request_id = header(answer, "X-Request-ID") or "no X-Request-ID"
            what += f"\n  the answer: {answer.status_code} {answer.text[:400]}\n  its request: {request_id}"
            for name in ("access", *self.programs):
                what += "".join(f"\n  {name}.log: {line}" for line in self.stack.log_text(name).splitlines() if request_id in line)
        begun = [each.name for each in self.happened(began or now, now)]
        with self.noting:
            self.violations.append(f"{what}\n  what happened then: {'; '.join(begun) or 'nothing'}")

    def stand(self):
        """End the run after a violation."""
        if self.violations:
            raise Violation(self.violations[0])

    # Called by the faults.

    @contextlib.contextmanager
    def database_away(self):
        """A database that returns when the block ends; the outage lasts until the waiting monitors are served."""
        yield
        now = time.monotonic()
        for monitor in self.monitors:
            if monitor.signing.locked() or monitor.begun > monitor.acknowledged:
                monitor.back_since = now

    def wait_for_progress(self, monitors):
        """Wait until batches that these begin from now on are acknowledged."""
        targets = {monitor: monitor.begun + 1 for monitor in monitors}
        wait_for(lambda: not self.goes_on() or all(monitor.acknowledged >= target for monitor, target in targets.items()),
                 f"events of {', '.join(monitor.name for monitor in monitors)} to be acknowledged", self.deadline + 40)

    def administer(self, action, name, key):
        """Run steepctl as an operator does: again if the database was away, and "already done" is success."""
        def done():
            said = self.stack.steepctl("monitor", action, name, key, check=False)
            return said.returncode == 0 or "already has this key" in said.stderr or "key in the database" in said.stderr

        wait_for(done, f"steepctl monitor {action}", 60, every=0.5)

    def wait_until_known(self, signer):
        """Wait until a key takes effect. How soon that is, is measured elsewhere."""
        began = time.monotonic()

        def known():
            with contextlib.suppress(httpx.TransportError, OSError), self.stack.client(self.address) as client:
                return signer.post(client, "[]").status_code == 400 and all(
                    each.programs["ingest"].ask(ingest_params(b"[]", signer), b"[]").status_code == 400 for each in self.front_ends)

        wait_for(known, "a key to be known", self.deadline + 40)
        self.note_most("key", time.monotonic() - began)

    def switch_log(self):
        """Fill PostgreSQL's existing WAL segments until it needs another."""
        with contextlib.suppress(psycopg.Error), self.stack.connect() as connection:
            for _ in range(64):
                connection.execute("SELECT pg_logical_emit_message(false, 'fault', ''), pg_switch_wal()")

    # A round of faults.

    def start(self):
        for monitor in self.monitors:
            self.administer("add", monitor.name, monitor.signer.public_base64)
        for monitor in self.monitors:
            self.wait_until_known(monitor.signer)
        for client in [*self.monitors, self.dashboard]:
            client.start()

    def stop(self):
        self.finished = True
        self.gate.open()
        for client in [*self.monitors, self.dashboard]:
            if client.ident is not None:
                client.join(self.deadline + 60)

    def happen(self, delay, fault):
        time.sleep(delay)
        with self.locks[PART[fault]]:
            if not self.goes_on():
                return
            happening = Happening(fault)
            self.happenings.append(happening)
            try:
                fault(self)
            except Exception as error:  # whatever it was, the round has failed
                self.violated(f"{happening.name}: {error!r}")
            happening.ended = time.monotonic()
        self.count("faults")

    def round(self, faults):
        """Run faults, each after so many seconds; then wait for all clients, and check."""
        before = self.counts["faults"]
        self.concerned = is_anyone
        self.round_began = time.monotonic()
        self.gate.open()
        threads = [threading.Thread(target=self.happen, args=each, daemon=True) for each in faults]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        self.stand()
        if self.counts["faults"] != before + len(faults):
            raise Violation(f"{self.counts['faults'] - before} of {len(faults)} faults happened")
        self.settle()

    def settle(self):
        """Afterwards no client sends anything before the next round."""
        if not self.gate.close(self.deadline + 30 * SLOWNESS):
            self.violated(f"{self.gate.inside} clients still wait, though nothing is broken any more")
        self.stand()
        for check in self.checks:
            check(self)
        self.stand()

    def summary(self):
        counts, figures = self.counts, self.figures
        sent = sum(monitor.begun for monitor in self.monitors)
        attempts = ", ".join(f"{number} {what}" for what, number in sorted(counts.items())
                             if what.startswith(("answers", "connections")))
        return [f"{sent} events sent, {counts['faults']} faults, {counts['events acknowledged']} events acknowledged,"
                f" {counts['lost']} lost, {counts['doubled']} doubled",
                f"longest wait for an answer {figures['wait']:.1f} s, {figures['wait for a program that is there']:.1f} s while there"
                f" was a program to give it, {figures['request']:.1f} s by the programs' logs (the deadline is {self.deadline} s)",
                f"longest outage after the database was back {figures['outage']:.1f} s; a new key was known after"
                f" {figures['key']:.1f} s at most",
                attempts]
