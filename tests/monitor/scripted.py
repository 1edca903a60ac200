"""An HTTPS server that answers requests by a script, and checks everything it receives.

An answer is a function of an Exchange; it returns whether the connection may be used again.
"""

import base64
import collections
import contextlib
import json
import socket
import threading
import time

from nacl.exceptions import BadSignatureError

from monitors import reset
from stack import SLOWNESS

MAX_EVENTS = 1000
MAX_BATCH_BYTES = 1 << 20

Request = collections.namedtuple("Request", "method path headers body at")


def events_of(request):
    return json.loads(request.body)


def ids_of(request):
    return [event["id"] for event in events_of(request)]


class Exchange:
    def __init__(self, server, connection, request):
        self.server = server
        self.connection = connection
        self.request = request

    def send(self, data):
        self.connection.sendall(data)


def encoded(status, body=b"", headers=None):
    """A complete reply as bytes; a body that isn't bytes is sent as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + body


def reply(status, body=b"", headers=None):
    def answer(exchange):
        exchange.send(encoded(status, body, headers))
        return True

    return answer


def error(status, code, headers=None, **members):
    return reply(status, {"error": code, "message": "As the script says."} | members, headers)


def stored_bytes(request):
    count = len(events_of(request))
    return encoded(200, {"inserted": count, "duplicates": 0, "message": f"Stored {count} of {count} events."})


def stored(exchange):
    """The answer of a working server."""
    exchange.send(stored_bytes(exchange.request))
    return True


def raw(data):
    """Exactly these bytes, then the connection is closed."""
    def answer(exchange):
        exchange.send(data)
        return False

    return answer


def torn(length):
    """So many bytes of a valid reply, then the connection is reset."""
    def answer(exchange):
        exchange.send(stored_bytes(exchange.request)[:length])
        # TLS sends no close_notify unless it is asked to.
        reset(exchange.connection.tls)
        return False

    return answer


def silence(exchange):
    """No answer at all."""
    exchange.server.released.wait()
    return False


def endless(exchange):
    """A body without an end, until the client closes the connection."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while not exchange.server.released.is_set():
        exchange.send(chunk)
        exchange.server.endless_bytes += 65536
    return False


def early(answer):
    """Answer before the body is read, then close the connection, as nginx does."""
    answer.early = True
    return answer


class Connection:
    """A TLS connection, read by heads and bodies."""

    def __init__(self, tls):
        self.tls = tls
        self.pending = b""

    def fill(self):
        data = self.tls.recv(65536)
        if not data:
            raise ConnectionError("the sender hung up")
        self.pending += data

    def head(self):
        while b"\r\n\r\n" not in self.pending:
            self.fill()
        head, self.pending = self.pending.split(b"\r\n\r\n", 1)
        return head.decode("latin-1").split("\r\n")

    def body(self, length, seconds=0):
        """The whole body, read at a rate that takes so long at least."""
        began = time.monotonic()
        while len(self.pending) < length:
            self.fill()
            time.sleep(max(0, began + seconds * len(self.pending) / length - time.monotonic()))
        body, self.pending = self.pending[:length], self.pending[length:]
        return body

    def sendall(self, data):
        self.tls.sendall(data)


class ScriptedServer:
    """Listens on 127.0.0.1; gives the answers of the script in order, and `always` after them."""

    def __init__(self, context, identity, port=0, base="", always=stored):
        self.context = context
        self.identity = identity
        self.names = {identity.source}  # under which it may receive events
        self.base = base
        self.always = always
        self.script = collections.deque()
        self.requests = []
        self.connections = 0
        self.open = set()
        self.endless_bytes = 0
        self.errors = []
        self.changed = threading.Condition()
        self.released = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}{self.base}"

    def answer(self, *answers):
        with self.changed:
            self.script.extend(answers)

    def accept(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=[plain], daemon=True).start()

    def serve(self, plain):
        plain.settimeout(120 * SLOWNESS)
        self.connections += 1
        self.open.add(plain)
        with contextlib.suppress(OSError, ConnectionError, ValueError):
            tls = self.context.wrap_socket(plain, server_side=True) if self.context else plain
            self.open.add(tls)
            with contextlib.closing(tls):
                connection = Connection(tls)
                while self.converse(connection):
                    pass

    def converse(self, connection):
        first, *lines = connection.head()
        method, path, _ = first.split(" ")
        pairs = [line.split(":", 1) for line in lines]
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        if len(headers) != len(pairs):
            self.report("a repeated header", lines)
        with self.changed:
            answer = self.script.popleft() if self.script else self.always
        at_once = getattr(answer, "early", False)
        body = b"" if at_once else connection.body(int(headers.get("content-length", "0")), getattr(answer, "seconds", 0))
        request = Request(method, path, headers, body, time.monotonic())
        if not at_once:
            self.check(request)
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        return answer(Exchange(self, connection, request)) and not at_once

    def report(self, what, value):
        self.errors.append(f"{what}: {value!r}"[:500])

    def check(self, request):
        """Check what is true of every request in every test."""
        headers, body = request.headers, request.body
        if (request.method, request.path) != ("POST", f"{self.base.rstrip('/')}/ingest"):
            self.report("the request line", (request.method, request.path))
        if headers.get("x-source-id") not in self.names:
            self.report("x-source-id", headers.get("x-source-id"))
        if headers.get("content-type") != "application/json":
            self.report("content-type", headers.get("content-type"))
        if not headers.get("user-agent", "").startswith("steep-monitor/"):
            self.report("user-agent", headers.get("user-agent"))
        try:
            signature = base64.b64decode(headers.get("x-signature", ""), validate=True)
            self.identity.key.verify_key.verify(body, signature)
        except (ValueError, BadSignatureError) as error_:
            self.report("the signature", error_)
        self.check_batch(body, headers.get("x-source-id"))

    def check_batch(self, body, source):
        if len(body) > MAX_BATCH_BYTES:
            self.report("a batch is larger than 1 MiB", len(body))
        try:
            events = json.loads(body)
        except ValueError as error_:
            self.report("the body", error_)
            return
        if not isinstance(events, list) or not 1 <= len(events) <= MAX_EVENTS:
            self.report("not a batch", body[:100])
            return
        for event in events:
            if event["source"] != source or not event["id"].startswith("evt_"):
                self.report("an event", event)

    def wait(self, count, seconds=20):
        """Wait for so many requests, and return them."""
        with self.changed:
            came = self.changed.wait_for(lambda: len(self.requests) >= count, seconds * SLOWNESS)
            assert came, f"{len(self.requests)} of {count} requests arrived within {seconds * SLOWNESS} s"
            return self.requests[:count]

    def wait_for_events(self, count, seconds=30):
        """Wait for events with so many different ids, and return the ids."""
        def ids():
            return {i for request in self.requests for i in ids_of(request)}

        with self.changed:
            came = self.changed.wait_for(lambda: len(ids()) >= count, seconds * SLOWNESS)
            assert came, f"{len(ids())} of {count} events arrived within {seconds * SLOWNESS} s"
        return ids()

    def close(self):
        self.released.set()
        # Only a shutdown wakes the thread in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
