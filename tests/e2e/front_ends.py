"""Front ends of an installation: its two programs again, as on machines of their own, behind the installation's nginx."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading

from fastcgi import ask, handing_over
from stack import ROOT, SLOWNESS, free_port, reachable_folder, wait_for

PROGRAMS = ("ingest", "query")
PORTS = {"ingest": 9101, "ingest-health": 9102, "query": 9103, "query-health": 9104}


def documented():
    """The upstreams of two front ends in deploy/SCALING.md: on 192.0.2.11 and 192.0.2.12, with PORTS."""
    section = re.search(r"^## Several front ends$(.*?)^## ", (ROOT / "deploy" / "SCALING.md").read_text(), re.M | re.S)[1]
    return re.search(r"^```nginx\n(upstream .*?)^```$", section, re.M | re.S)[1]


def listening(address, backlog=4096):
    """A listening socket at a path, or at a pair of an address and a port."""
    made = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    if isinstance(address, tuple):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    else:
        made.bind(str(address))
        os.chmod(address, 0o666)
    made.listen(backlog)
    return made


class Served:
    """One program of a front end, and its two listeners, which stay open while it is restarted, as systemd's do."""

    def __init__(self, front_end, name):
        self.front_end, self.name = front_end, name
        self.address = front_end.address_of(name)
        self.health_address = front_end.address_of(f"{name}-health")
        self.environment = dict(front_end.environment)
        self.listeners = []
        self.process = None

    def open(self):
        self.listeners = [listening(self.address), listening(self.health_address)]

    def start(self):
        stack = self.front_end.stack
        given = {k: v for k, v in stack.program_environment(self.name).items() if k.startswith(("PG", "STEEP_"))}
        kept = {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS") or k in ("PATH", "LANG")}
        listed = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "requests:health"}
        with open(self.front_end.log(self.name), "ab") as log:
            self.process = subprocess.Popen(["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0"', str(stack.program(self.name))],
                                            env=kept | given | self.environment | listed, stdout=subprocess.DEVNULL,
                                            stderr=log, **handing_over(self.listeners), **stack.program_user(self.name))

    def wait_until_ready(self):
        wait_for(lambda: self.ask_health(f"/readyz/{self.name}").status_code == 200, f"{self.front_end.name} to be ready", 40)

    def ask(self, params, body=b""):
        return ask(self.address, params, body)

    def ask_health(self, path):
        return ask(self.health_address, {"REQUEST_METHOD": "GET", "SCRIPT_NAME": path})

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        """As where the machine is gone: nothing listens any more."""
        for each in self.listeners:
            each.close()
        if not isinstance(self.address, tuple):
            for path in (self.address, self.health_address):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def end(self):
        self.close()
        if self.process is not None and self.process.poll() is None:
            # Also one that was frozen.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(40 * SLOWNESS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


class FrontEnd:
    """An ingest.fcgi and a query.fcgi in a folder of their own: on Unix sockets there, or on the one address given."""

    def __init__(self, stack, name, address=None, **environment):
        self.stack, self.name, self.address, self.environment = stack, name, address, environment
        self.folder = reachable_folder(name)
        self.ports = {} if address is None else {each: free_port() for each in PORTS}
        self.programs = {each: Served(self, each) for each in PROGRAMS}

    def address_of(self, listener):
        return self.folder / f"{listener}.sock" if self.address is None else (self.address, self.ports[listener])

    def log(self, name):
        """Among the stack's, so that what looks for reports and secrets there reads it too."""
        return self.stack.log(f"{self.name}-{name}")

    def in_nginx(self, listener):
        """What a server line of nginx says."""
        address = self.address_of(listener)
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"

    def start(self):
        for each in self.programs.values():
            each.open()
            each.start()
        for each in self.programs.values():
            each.wait_until_ready()

    def restart(self, name):
        self.programs[name].start()
        self.programs[name].wait_until_ready()

    def stop(self):
        try:
            for each in self.programs.values():
                each.end()
        finally:
            if not os.environ.get("SANITIZE"):
                subprocess.run(["rm", "-rf", str(self.folder)], check=False)


class Cable:
    """What leads to a listener, of a front end or of PostgreSQL, at an address of its own: while it is cut, nothing arrives and nothing is refused.

    A new connection then gets no answer to its SYN, as the listener's queue, which Linux makes as short as one, is full.
    """

    def __init__(self, address, target):
        self.address, self.target = (address, free_port()), target
        self.listener = listening(self.address)
        self.whole = threading.Event()
        self.whole.set()
        self.fillers = []
        self.ended = False
        self.pairs = {}
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def run(self):
        while not self.ended:
            self.whole.wait(0.2)
            if not self.whole.is_set():
                continue
            ready, _, _ = select.select([self.listener, *self.pairs], [], [], 0.05)
            for each in ready:
                if self.ended or not self.whole.is_set():
                    break
                self.connect() if each is self.listener else self.pass_on(each)

    def connect(self):
        near, _ = self.listener.accept()
        far = socket.socket(socket.AF_INET if isinstance(self.target, tuple) else socket.AF_UNIX)
        try:
            far.connect(self.target if isinstance(self.target, tuple) else str(self.target))
        except OSError:
            near.close()
            far.close()
            return
        for each, other in ((near, far), (far, near)):
            if each.family == socket.AF_INET:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.pairs[each] = other

    def pass_on(self, source):
        if source not in self.pairs:
            return
        try:
            data = source.recv(1 << 16)
            if data:
                self.pairs[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            other = self.pairs.pop(source)
            self.pairs.pop(other)
            source.close()
            other.close()

    def cut(self):
        self.whole.clear()
        self.listener.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.address)
            self.fillers.append(filler)

    def mend(self):
        for each in self.fillers:
            each.close()
        self.fillers = []
        self.listener.listen(4096)
        self.whole.set()

    def stop(self):
        self.ended = True
        self.whole.set()
        self.thread.join()
        for each in [self.listener, *self.pairs]:
            each.close()


def settle(front_ends, name, params, body, status):
    """Wait until all front ends answer a request so: each takes up a change of keys and tokens by itself."""
    wait_for(lambda: all(each.programs[name].ask(params, body).status_code == status for each in front_ends), "all front ends to know")


def upstreams(front_ends, addresses=None):
    """The documented upstreams with the addresses of two front ends; addresses are those that lead to them instead."""
    text = documented()
    for host, front_end in zip(("192.0.2.11", "192.0.2.12"), front_ends):
        for listener, port in PORTS.items():
            place = (addresses or {}).get((front_end.name, listener)) or front_end.in_nginx(listener)
            assert f"server {host}:{port}" in text, f"deploy/SCALING.md has no server {host}:{port}"
            text = text.replace(f"server {host}:{port}", f"server {place}")
    assert "192.0.2." not in text
    return text


@contextlib.contextmanager
def behind_nginx(stack, front_ends, addresses=None):
    """The stack's nginx with two front ends in place of its own programs, until the end of the context."""
    with stack.changed_snippet("upstream.conf", r"(?s).*\S.*", lambda _: upstreams(front_ends, addresses)):
        yield
