"""The clients during the faults: monitors that send numbered events, and a dashboard that counts them."""

import contextlib
import datetime
import http.client
import random
import select
import socket
import struct
import threading
import time

from monitor import Monitor
from wire import check_error, check_json, exchange, header, request_bytes

# How long existing monitors wait for an answer.
PATIENCE_SECONDS = 30

# They retry within a second or so; ours retries until the batch is acknowledged.
BACK_OFF_SECONDS = [0.3, 0.6, 1.0]

# What a client may get instead of a successful answer.
UNAVAILABLE, BROKEN = "unavailable", "a broken connection"

# Between two batches.
PAUSE_SECONDS = 0.05, 0.15

NUMBER_DIGITS = 12
TEXT = "the quick brown fox jumps over the lazy dog " * 50


def reset(connection):
    """Reset a connection, as a network failure does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Batch:
    """The bytes of a batch, the same in every attempt."""

    def __init__(self, body, new, repeated):
        self.body = body
        self.new = new
        self.repeated = repeated
        self.attempts = 0


class Client(threading.Thread):
    """Sends requests and checks that each answer is valid and in time, or that the connection broke."""

    def __init__(self, trial, name, address):
        super().__init__(name=name, daemon=True)
        self.trial = trial
        self.address = address
        self.random = random.Random(f"{trial.seed} {name}")
        self.connection = None
        self.source = None  # whose events it sends or asks for; None where it asks for all

    def run(self):
        while self.trial.goes_on():
            with self.trial.gate.passed():
                try:
                    self.turn()
                except Exception as error:  # otherwise a failed client would go unnoticed
                    self.trial.violated(f"{self.name} met {error!r}")
            if not self.hurries():
                time.sleep(self.random.uniform(*PAUSE_SECONDS))

    def hurries(self):
        return False

    def ask(self, request, method, judge):
        """The result of judge; None where the connection broke or the answer was 503."""
        began = time.monotonic()
        answer = None
        # Do not use a connection that was closed meanwhile.
        if self.connection is not None and select.select([self.connection], [], [], 0)[0]:
            self.hang_up()
        try:
            if self.connection is None:
                self.connection = self.trial.stack.socket(self.address, timeout=PATIENCE_SECONDS)
            answer = exchange(self.connection, request, method)
            if header(answer, "Connection") == "close":
                self.hang_up()
        except http.client.RemoteDisconnected:
            self.hang_up()
        except http.client.BadStatusLine as error:
            self.trial.violated(f"{self.name} got something that is no answer: {error!r}")
        except (OSError, http.client.HTTPException):
            self.hang_up()
        ended = time.monotonic()
        self.trial.note_wait(self, answer, began, ended)
        if answer is None:
            self.trial.count("connections that broke")
            if not self.trial.may_cost(BROKEN, began, ended):
                self.trial.violated(f"{self.name} lost its connection though nothing happened to it", began=began)
            return None
        self.trial.count(f"answers {answer.status_code}")
        try:
            if answer.status_code == 200:
                return judge(answer, began, ended)
            check_error(answer, 503, "unavailable")
            assert self.trial.may_be_refused(self.source, began, ended), f"{answer.text}, though nothing stood in the way"
        except AssertionError as error:
            self.trial.violated(f"{self.name} got an answer that it should not: {error or answer.text[:400]}", answer, began)
        return None

    def hang_up(self):
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.close()
        self.connection = None


class FieldMonitor(Client):
    """Sends batch after batch, each until it is acknowledged."""

    def __init__(self, trial, number, address):
        super().__init__(trial, f"fault-{trial.run_id}-{number:02d}", address)
        self.source = self.name
        self.prefix = f"evt_{trial.run_id}{number:02d}"
        self.signer = Monitor(self.name)
        self.signing = threading.Lock()  # held during a request
        self.begun = 0  # the events 0 to begun - 1 have been sent
        self.acknowledged = 0  # the events 0 to acknowledged - 1 have been acknowledged
        self.times = []  # each time at which that number grew, and the number
        self.cuts = []  # how the next connections are to be cut
        self.back_since = None  # when the database returned, for which it waits

    def turn(self):
        if not self.trial.goes_on():
            return
        batch = self.new_batch()
        back_off = list(BACK_OFF_SECONDS)
        while self.trial.goes_on() and not self.deliver(batch):
            time.sleep(back_off.pop(0) if len(back_off) > 1 else back_off[0])

    def hurries(self):
        return self.trial.hurries > 0

    def event(self, number, payload):
        at = datetime.datetime.now(datetime.timezone.utc).isoformat()
        return (f'{{"id":"{self.prefix}{number:0{NUMBER_DIGITS}d}","source":"{self.name}","timestamp":"{at}",'
                f'"type":"tool","payload":{payload}}}')

    def new_batch(self):
        """The next events, now and then with some that were acknowledged long ago, or with one twice."""
        size = max(self.trial.sizes) if self.hurries() else self.random.choice(self.trial.sizes)
        longest = len(TEXT) if self.random.random() < 0.05 else 150
        events = [self.event(n, f'{{"number":{n},"text":"{TEXT[:self.random.randrange(longest)]}"}}')
                  for n in range(self.begun, self.begun + size)]
        again = []
        if self.acknowledged and self.random.random() < 0.3:
            again = [self.random.randrange(self.acknowledged) for _ in range(self.random.randint(1, 5))]
        if self.random.random() < 0.1:
            again.append(self.begun + size - 1)
        again = again[:1000 - size]
        for number in again:
            # The event stored first is kept: this payload must never be stored.
            place = self.random.randint(0, len(events)) if number < self.begun else len(events)
            events.insert(place, self.event(number, '{"number":-1}'))
        self.begun += size
        return Batch(f"[{','.join(events)}]".encode(), size, len(again))

    def deliver(self, batch):
        """One attempt; true when the batch is acknowledged."""
        batch.attempts += 1
        with self.signing:
            request = request_bytes("POST", "/functions/v1/ingest", [
                ("Host", "localhost"), ("Content-Length", len(batch.body)), *self.signer.headers(batch.body).items()],
                batch.body)
            if self.cuts:
                self.cuts.pop(0)(self, request, len(batch.body))
                return False
            told = self.ask(request, "POST", lambda *answer: self.judge(batch, *answer))
        if told:
            self.acknowledged = self.begun
            self.times.append((datetime.datetime.now(datetime.timezone.utc), self.acknowledged))
            self.trial.count("events acknowledged", batch.new)
            if self.back_since is not None:
                self.trial.note_outage(time.monotonic() - self.back_since)
                self.back_since = None
        return told

    def judge(self, batch, answer, began, ended):
        body = check_json(answer)
        assert set(body) == {"inserted", "duplicates", "message"}, body
        assert body["inserted"] + body["duplicates"] == batch.new + batch.repeated, body
        # Whole, or not at all if an earlier attempt of the program or of ours was stored.
        stored_before = batch.attempts > 1 or self.trial.was_disturbed("database", began, ended)
        assert body["inserted"] == batch.new or (body["inserted"] == 0 and stored_before), body
        return True

    def cut_in_mid_body(self, request, body_length):
        """Send the head and a part of the body."""
        self.send_and_reset(request[:self.random.randrange(len(request) - body_length, len(request))], 0)

    def cut_in_mid_reply(self, request, _body_length):
        """Send it all, and disconnect before the reply or after a part of it."""
        self.send_and_reset(request, self.random.choice([0, self.random.randint(1, 600)]))

    def send_and_reset(self, data, read):
        with contextlib.suppress(OSError):
            connection = self.trial.stack.socket(self.address, timeout=self.trial.deadline)
            with contextlib.suppress(OSError):
                connection.sendall(data)
                if read:
                    connection.recv(read)
                else:
                    time.sleep(self.random.uniform(0, 0.03))
            reset(connection)
        self.trial.count("connections cut")


class Dashboard(Client):
    """Queries the counts all the time: events acknowledged before a query are in its answer."""

    def turn(self):
        self.check_counts()

    def least(self, before, _meta):
        """Of how many events of each monitor an answer must be, when so many had been acknowledged before the question."""
        return before

    def check_counts(self, source=None):
        """Each monitor's number of events, or a source's, by the counts of 7 days; None where there was no answer."""
        asked = [monitor for monitor in self.trial.monitors if source in (None, monitor.name)]
        before = {monitor: monitor.acknowledged for monitor in asked}

        def judge(answer, *_):
            body = check_json(answer)
            rows = body["aggregates"]
            assert body["meta"]["totalCount"] == len(rows) and body["meta"]["daysRequested"] == 7, body["meta"]
            counted = {monitor.name: 0 for monitor in asked}
            for row in rows:
                if source is None and row["source"] not in counted:
                    continue
                counted[row["source"]] += row["eventCount"]
            for monitor, least in self.least(before, body["meta"]).items():
                assert least <= counted[monitor.name] <= monitor.begun, (
                    f"{counted[monitor.name]} events of {monitor.name} are counted; it has sent {monitor.begun}, and"
                    f" {least} had been acknowledged before the time of the data, {body['meta']['fetchedAt']}")
            return counted

        self.source = source
        request = request_bytes("GET", f"/query?days=7{f'&source={source}' if source else ''}", [
            ("Host", "localhost"), ("Authorization", f"Bearer {self.trial.stack.token}")])
        return self.ask(request, "GET", judge)
