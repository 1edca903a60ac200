"""Events on their way from a file into the database, their writer, and the faults meanwhile."""

import collections
import contextlib
import json
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg

import checks
import faults
from monitor import Monitor, now, rfc3339
from proxy import Proxy
from scene import Scene
from sender import Sender
from stack import SLOWNESS, alive, wait_for

NUMBER_DIGITS = 12
TEXT = "the quick brown fox jumps over the lazy dog " * 20

# The longest shutdown: 5 s, and more on a busy machine.
STOP_SECONDS = 5 + 5 * SLOWNESS

# How long the last events may take after the last fault; a backoff takes up to 5 minutes.
RECOVERY_SECONDS = 420


class Violation(Exception):
    pass


class Writer(threading.Thread):
    """Appends numbered lines at an even rate, in bursts, some of them in pieces; every second event has an id."""

    def __init__(self, path, run_id, source, total, seconds, chooser):
        super().__init__(daemon=True)
        self.path, self.run_id, self.source = path, run_id, source
        self.total, self.seconds, self.random = total, seconds, chooser
        self.written = 0

    def run(self):
        began = time.monotonic()
        with open(self.path, "ab", buffering=0) as file:
            while self.written < self.total:
                due = min(self.total, int(self.total * (time.monotonic() - began) / self.seconds) + 1)
                data = b"".join(self.line(number) for number in range(self.written, due))
                cut = self.random.randrange(len(data) + 1)
                file.write(data[:cut])
                time.sleep(self.random.uniform(0, 0.02))
                file.write(data[cut:])
                self.written = due
                time.sleep(self.random.uniform(0.01, 0.1))

    def line(self, number):
        event = {"type": "tool", "timestamp": rfc3339(now()),
                 "payload": {"number": number, "text": TEXT[:self.random.randrange(len(TEXT) if number % 20 == 0 else 150)]}}
        if number % 2 == 0:
            event |= {"id": f"evt_{self.run_id}{number:0{NUMBER_DIGITS}d}", "source": self.source}
        return json.dumps(event).encode() + b"\n"


class Journey(Scene):
    def __init__(self, stack, seed, total, seconds, folder):
        super().__init__(stack, seed, int(stack.program_environment("ingest")["STEEP_DEADLINE"]), "127.0.1.103")
        self.seed, self.total, self.seconds, self.folder = seed, total, seconds, folder
        self.run_id = f"{seed % 16**8:08x}"
        self.identity = Monitor(f"soak-{self.run_id}")
        self.proxy = Proxy(stack.port)
        self.file = folder / "events.ndjson"
        self.file.touch()
        self.killer = folder / "killer.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", self.killer, Path(__file__).with_name("killer.c")], check=True)
        self.sender = Sender(folder, self.identity, f"https://127.0.0.1:{self.proxy.port}/functions/v1", stack.ca)
        self.writer = Writer(self.file, self.run_id, self.identity.source, total, seconds, random.Random(f"{seed} writer"))
        self.counts = collections.Counter()
        self.peak_kib = 0
        self.processes = 0
        self.violations = []
        self.took = 0.0
        self.slowest = None
        self.stored = ()

    # The monitor.

    def start_sender(self, **changes):
        # More batches offer more moments for a kill; a small spool is copied from its journal more often.
        self.sender.start(self.file, STEEP_MAX_BATCH_SIZE=str(self.random.choice([100, 100, 1000])), STEEP_BLOCK="1",
                          STEEP_SPOOL_MIB=self.random.choice(["1", "4", "256"]), **changes)
        self.processes += 1

    def end_sender(self, number):
        with contextlib.suppress(FileNotFoundError):
            status = Path(f"/proc/{self.sender.process.pid}/status").read_text()
            self.peak_kib = max(self.peak_kib, int(status.split("VmHWM:")[1].split()[0]))
        if not alive(self.sender.process.pid):
            self.violated(f"steep-monitor ended by itself: {self.sender.stderr.read_text(errors='replace')[-800:]}")
        began = time.monotonic()
        status = self.sender.end(number, 60)
        if number == signal.SIGTERM and (status != 0 or time.monotonic() - began > STOP_SECONDS):
            self.violated(f"steep-monitor took {time.monotonic() - began:.1f} s to end with status {status}")

    def violated(self, what):
        self.violations.append(what)

    # The faults of each part on the way; a part has one fault at a time.

    def faults(self):
        return {
            "monitor": ((0.1, 1.5), [self.the_monitor_is_killed] * 3 + [self.the_monitor_is_stopped, self.the_monitor_is_frozen,
                                     self.the_monitor_is_killed_while_it_writes]),
            "network": ((0.5, 3), [self.the_network_is_cut, self.the_network_is_frozen, self.the_network_is_torn,
                                   self.the_network_is_gone]),
            "nginx": ((2, 9), [self.nginx_is_killed, faults.nginx_is_reloaded, faults.nginx_is_restarted,
                               faults.a_worker_of_nginx_is_killed]),
            "ingest": ((2, 9), [faults.ingest_is_killed, faults.ingest_is_stopped_under_load]),
            "database": ((3, 12), [faults.the_postmaster_is_killed_and_started_again,
                                   faults.all_of_the_database_is_killed_at_one_blow, self.sessions_are_terminated]
                         + [faults.the_database_is_stopped_for_20_seconds] * (self.seconds >= 300)),
        }

    def the_monitor_is_killed(self, _):
        self.end_sender(signal.SIGKILL)
        time.sleep(self.random.choice([0, 0, 0.5]))
        self.start_sender()

    def the_monitor_is_killed_while_it_writes(self, _):
        """In the middle of a commit, or of a checkpoint, which alone writes to the database's own file."""
        self.end_sender(signal.SIGKILL)
        name, most = self.random.choice([("/spool.db", 60), ("/spool.db", 300), ("/spool.db-wal", 300)])
        with contextlib.suppress(AssertionError):
            self.start_sender(LD_PRELOAD=str(self.killer), KILL_FILE=name, KILL_AT=str(self.random.randrange(1, most)),
                              ASAN_OPTIONS="verify_asan_link_order=0")
        deadline = time.monotonic() + 3
        while alive(self.sender.process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.sender.process.poll() == -signal.SIGKILL:
            self.counts["writes cut short by a kill"] += 1
        self.sender.end(signal.SIGKILL, 60)
        self.start_sender()

    def the_monitor_is_stopped(self, _):
        self.end_sender(signal.SIGTERM)
        self.start_sender()

    def the_monitor_is_frozen(self, _):
        self.sender.send_signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.5, 2))
        self.sender.send_signal(signal.SIGCONT)

    def the_network_is_cut(self, _):
        self.proxy.cut()

    def the_network_is_frozen(self, _):
        self.proxy.freeze()
        time.sleep(self.random.uniform(0.5, 4))
        self.proxy.thaw()

    def the_network_is_torn(self, _):
        self.proxy.tear(self.random)

    def the_network_is_gone(self, _):
        self.proxy.leave()
        time.sleep(self.random.uniform(0.5, 3))
        self.proxy.come_back()

    def nginx_is_killed(self, _):
        faults.end_program(self, "nginx", signal.SIGKILL)

    def sessions_are_terminated(self, _):
        with contextlib.suppress(psycopg.Error), self.stack.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'steep\\_%'")

    def break_things(self, part, pauses, kinds):
        """Break one thing after the other until everything is written; each kind as often as any other."""
        chooser = random.Random(f"{self.seed} {part}")
        drawn = []
        while self.writer.is_alive() and not self.violations:
            time.sleep(chooser.uniform(*pauses))
            drawn = drawn or chooser.sample(kinds, len(kinds))
            fault = drawn.pop()
            try:
                fault(self)
            except Exception as error:  # or a part without faults would go unnoticed
                self.violated(f"{fault.__name__}: {error!r}")
                return
            self.counts[faults.sentence(fault)] += 1

    # The run.

    def go(self):
        self.stack.steepctl("monitor", "add", self.identity.source, self.identity.public_base64)
        began = time.monotonic()
        self.start_sender()
        self.writer.start()
        breaking = [threading.Thread(target=self.break_things, args=[part, *how], daemon=True)
                    for part, how in self.faults().items()]
        for each in breaking:
            each.start()
        for each in breaking:
            each.join()
        self.writer.join()
        self.raise_violations()
        self.sender.send_now()
        healed = time.monotonic()
        wait_for(lambda: self.stored_rows() >= self.total, "every event to be stored", RECOVERY_SECONDS, every=0.5)
        self.counts["seconds after the last fault"] = round(time.monotonic() - healed)
        wait_for(lambda: self.sender.pending() == 0, "nothing to be pending")
        self.took = time.monotonic() - began
        self.end_sender(signal.SIGTERM)
        self.raise_violations()

    def raise_violations(self):
        if self.violations:
            raise Violation("\n".join(self.violations))

    def stored_rows(self):
        assert alive(self.sender.process.pid), "steep-monitor ended by itself"
        with self.stack.connect() as connection:
            return connection.execute("SELECT count(*) FROM public.events WHERE source = %s", (self.identity.source,)).fetchone()[0]

    def stop(self):
        self.proxy.thaw()
        self.sender.kill()
        self.proxy.leave()

    def results(self):
        """Each claim, and whether it is true."""
        with self.stack.connect() as connection:
            count, ids, numbers, least, most, given, self.slowest = connection.execute(
                "SELECT count(*), count(DISTINCT id), count(DISTINCT payload->>'number'), min((payload->>'number')::int),"
                " max((payload->>'number')::int), count(*) FILTER (WHERE id = 'evt_' || %(run)s ||"
                f" lpad(payload->>'number', {NUMBER_DIGITS}, '0')), max(extract(epoch FROM created_at - timestamp))"
                " FROM public.events WHERE source = %(source)s",
                {"run": self.run_id, "source": self.identity.source}).fetchone()
        self.stored = count, ids, numbers
        yield count == ids == numbers == self.total and (least, most) == (0, self.total - 1), (
            f"{self.total} events were written; {count} are stored, with {ids} ids and {numbers} numbers from {least} to {most}")
        yield given == (self.total + 1) // 2, f"{given} of {(self.total + 1) // 2} have the id that they were written with"
        aside, rejected = self.sender.rejected(), self.sender.log("input_rejected") + self.sender.log("rejected")
        yield not aside and not rejected, f"{len(aside)} were rejected, and {len(rejected)} logged as rejected"
        yield not self.sender.log("spool_dropped"), "none was dropped"
        damaged = self.sender.log("spool_damaged")
        yield not damaged, f"the spool was not damaged by a kill {damaged[:1] or ''}"
        checks.the_hourly_counts_are_those_of_the_events(self)
        yield not self.violations, "the hourly counts are those of the events"

    def summary(self):
        answers = collections.Counter(record["status"] for record in self.sender.log("batch"))
        statuses = ", ".join(f"{number} of status {status}" for status, number in sorted(answers.items()))
        broken = {what: number for what, number in self.counts.items() if not what.startswith("seconds")}
        yield f"{self.writer.written} events in {self.took:.0f} s, {sum(broken.values())} faults; everything stored" \
              f" {self.counts['seconds after the last fault']} s after the last of them"
        yield ", ".join(f"{what}: {number}" for what, number in sorted(broken.items()))
        yield f"{self.processes} processes of steep-monitor, at most {self.peak_kib / 1024:.1f} MiB; {self.proxy.connections}" \
              f" connections; requests: {statuses}"
