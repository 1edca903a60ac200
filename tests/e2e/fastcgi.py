"""Sends single requests as nginx does, to program instances of the tests."""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from stack import SLOWNESS, reachable_folder
from wire import RawAnswer, check_nothing_quoted

BEGIN, END, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
RESPONDER, KEEP = 1, 1


def record(kind, content=b""):
    return struct.pack("!BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def stream(kind, data):
    return b"".join(record(kind, data[at:at + 65000]) for at in range(0, len(data), 65000))


def pair(name, value):
    name, value = name.encode(), value.encode("latin-1")

    def length(data):
        return bytes([len(data)]) if len(data) < 128 else struct.pack("!I", len(data) | 0x80000000)

    return length(name) + length(value) + name + value


class Headers:
    def __init__(self, lines):
        self.lines = lines

    def get_list(self, name):
        return [value for key, value in self.lines if key.lower() == name.lower()]


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the program closed the connection before its answer was whole")
        data += more
    return data


def read_records(connection):
    """The kind and the content of each record of an answer, up to its end."""
    kind = None
    while kind != END:
        _, kind, _, size, padding, _ = struct.unpack("!BBHHBB", read_exactly(connection, 8))
        yield kind, read_exactly(connection, size + padding)[:size]


def read_answer(connection):
    output = b"".join(content for kind, content in read_records(connection) if kind == STDOUT)
    head, _, body = output.partition(b"\r\n\r\n")
    lines = [tuple(part.strip() for part in line.split(":", 1)) for line in head.decode("latin-1").split("\r\n")]
    headers = Headers(lines)
    status = headers.get_list("Status")
    return RawAnswer(int(status[0].split()[0]) if status else 200, headers, body)


def connect(path, timeout=40):
    """A connection to the Unix socket at path, or to a pair of an address and a port."""
    connection = socket.socket(socket.AF_INET if isinstance(path, tuple) else socket.AF_UNIX)
    connection.settimeout(timeout * SLOWNESS)
    connection.connect(path if isinstance(path, tuple) else str(path))
    return connection


def head(params, keep=False):
    """A request without its body; with keep, the program leaves the connection open for another one."""
    return (record(BEGIN, struct.pack("!HB5x", RESPONDER, KEEP if keep else 0)) +
            record(PARAMS, b"".join(pair(*item) for item in params.items())) + record(PARAMS))


def begin(path, params, body=b"", end_of_body=True, timeout=40):
    """Send one request over the socket at path; the connection, ready for read_answer."""
    connection = connect(path, timeout)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head(params))
        connection.sendall(stream(STDIN, body))
        if end_of_body:
            connection.sendall(record(STDIN))
    return connection


def ask_again(connection, params, body=b""):
    """Send a request over a connection that the program is to keep, and read the answer."""
    connection.sendall(head(params, keep=True) + stream(STDIN, body) + record(STDIN))
    return read_answer(connection)


def ask(path, params, body=b"", **more):
    with begin(path, params, body, **more) as connection:
        return read_answer(connection)


def ingest_params(body, monitor=None, **changes):
    params = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "QUERY_STRING": "",
              "REQUEST_ID": os.urandom(16).hex()}
    if monitor:
        params |= {"HTTP_X_SOURCE_ID": monitor.source, "HTTP_X_SIGNATURE": monitor.sign(body)}
    return params | changes


def query_params(token=None, query="", **changes):
    params = {"REQUEST_METHOD": "GET", "CONTENT_LENGTH": "", "QUERY_STRING": query,
              "REQUEST_ID": os.urandom(16).hex()}
    if token is not None:
        params["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return params | changes


def handing_over(listeners):
    """What subprocess needs to start a process with these as its descriptors from 3 on."""
    numbers = range(3, 3 + len(listeners))

    def hand_over():
        # Copies first, so that none overwrites another.
        copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in listeners]
        for copy, number in zip(copies, numbers):
            os.dup2(copy, number)

    return {"stdin": subprocess.DEVNULL, "pass_fds": numbers, "preexec_fn": hand_over}


class Program:
    """An ingest.fcgi or query.fcgi beside the stack's, on sockets of its own.

    Without passed its listener is standard input; with it, sockets of those names are handed over in that order, as
    systemd does, and called so unless names says otherwise. A None among them is a socket that does not listen.
    """

    def __init__(self, stack, name, environment, passed=(), names=None):
        self.folder = reachable_folder(name)
        self.errors = self.folder / "stderr"
        listeners = [self.listener(each or "deaf", listens=each is not None) for each in passed or ["requests"]]
        self.path, self.health_path = self.folder / "requests", self.folder / "health"
        kept = {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS") or k in ("PATH", "LANG")}
        command = [str(stack.program(name))]
        how = {"stdin": listeners[0]}
        if passed:
            names = ":".join(map(str, passed)) if names is None else names
            environment = environment | {"LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": names}
            command, how = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0"', *command], handing_over(listeners)
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(command, env=kept | environment, stdout=subprocess.DEVNULL, stderr=errors,
                                            **how, **stack.program_user(name))
        for each in listeners:
            each.close()

    def listener(self, name, listens):
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(self.folder / name))
        (self.folder / name).chmod(0o666)
        if listens:
            made.listen(64)
        return made

    def ask(self, params, body=b"", **more):
        return ask(self.path, params, body, **more)

    def ask_health(self, path, method="GET", **more):
        return ask(self.health_path, {"REQUEST_METHOD": method, "SCRIPT_NAME": path}, **more)

    def is_at_rest(self):
        """Whether the program does nothing but wait, for half a second."""
        before = self.cpu_time()
        time.sleep(0.5)
        return before == self.cpu_time()

    def cpu_time(self):
        return Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(40 * SLOWNESS)


@contextlib.contextmanager
def program(stack, name, passed=(), names=None, database=True, **environment):
    """Run a program instance for a block; without database, PGHOST names no server."""
    given = stack.program_environment(name) if database else {"PGHOST": "/nonexistent", "PGDATABASE": "steep"}
    given = {k: v for k, v in given.items() if k.startswith(("PG", "STEEP_"))} | environment
    instance = Program(stack, name, given, passed, names)
    try:
        yield instance
    finally:
        if instance.process.poll() is None:
            instance.process.send_signal(signal.SIGTERM)
            try:
                instance.process.wait(30 * SLOWNESS)
            except subprocess.TimeoutExpired:
                instance.process.kill()
                instance.process.wait()
                raise
        # The last tests search the stack's logs only.
        check_nothing_quoted(instance.errors.read_text(errors="replace"))
        if not os.environ.get("SANITIZE"):
            subprocess.run(["rm", "-rf", str(instance.folder)], check=False)
