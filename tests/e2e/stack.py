"""A running installation: where it listens, how to reach its parts, how to stop one of them."""

import base64
import contextlib
import datetime
import itertools
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import psycopg

import tls

ROOT = Path(__file__).resolve().parents[2]

# Called with each answer that a client of a Stack receives.
ANSWER_HOOKS = []

# A sanitized build is several times slower; deadlines end a hanging test and measure nothing.
SLOWNESS = 4 if os.environ.get("SANITIZE") else 1


def wait_for(condition, what, seconds=20.0, every=0.05):
    """Call condition until it returns something true, and return that."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds * SLOWNESS} s for {what}"
        time.sleep(every)


def call(*command, timeout=900, **options):
    """Run a command; its output, or an exception with it."""
    command = [str(part) for part in command]
    done = subprocess.run(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def free_port():
    """One below those that the kernel gives to outgoing connections, which would take it before it is used."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def without_progress(errors):
    """What steepctl printed as errors, without the lines that it adds every ten seconds."""
    return re.sub(r"^steepctl: \d[^\n]* a second(, \d+ s left)?\n", "", errors, flags=re.MULTILINE)


def reachable_folder(name):
    """A new folder that the unprivileged user of a stack may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix=f"steep-{name}."))
    folder.chmod(0o755)
    return folder


def read_run_env(path):
    pairs = (line.split("=", 1) for line in Path(path).read_text().splitlines() if line)
    return {name: value for name, value in pairs}


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def watch_connecting(request):
    request.extensions["trace"] = send_at_once


def send_at_once(event, details):
    """httpx sends head and body apart; Nagle's algorithm would hold the body back for 40 ms in every test."""
    if event == "connection.connect_tcp.complete":
        details["return_value"].get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Site:
    """An installation as its users know it: where it answers, and steepctl. run.env has the values."""

    # How old the data of an answer may be: where no standby answers, it is that of the moment of the question.
    data_age = datetime.timedelta(0)

    def __init__(self, values):
        self.values = values
        self.token = values["STEEP_TOKEN"]
        self.ca = values["STEEP_CA"]
        self.url = values["STEEP_URL"]
        self.port = httpx.URL(self.url).port or 443
        self.pg = {name: value for name, value in values.items() if name.startswith("PG")}
        self.tls = tls.trusting(self.ca)

    def environment(self, **more):
        """This process's environment with the installation's PG* in place of any other."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "VIBETEA_", "STEEP_"))}
        return kept | self.pg | more

    def steepctl(self, *arguments, check=True, input="", **more):
        given = {"STEEP_BUILD": self.values["STEEP_BUILD"]} if "STEEP_BUILD" in self.values else {}
        done = subprocess.run([str(ROOT / "deploy" / "steepctl"), *arguments], text=True, capture_output=True,
                              env=self.environment(**(given | more)), input=input, timeout=60 * SLOWNESS)
        if check:
            assert done.returncode == 0, f"steepctl {' '.join(arguments)}: {done.stderr}"
        return done

    def settle(self, _name, _params, _body, _status):
        """Called when one answer shows that a change of keys or tokens took effect; several front ends may take up to 5 s."""
        time.sleep(5)

    def client(self, address="127.0.0.1", **more):
        """A client with an address of its own: nginx counts requests by address."""
        http2 = more.pop("http2", False)
        # A context of its own: httpx sets the protocols that it offers, while another thread may be connecting.
        transport = httpx.HTTPTransport(verify=tls.trusting(self.ca), local_address=address, trust_env=False, http2=http2)
        return httpx.Client(base_url=self.url, transport=transport, trust_env=False,
                            event_hooks={"request": [watch_connecting], "response": [*ANSWER_HOOKS]},
                            timeout=more.pop("timeout", 40 * SLOWNESS), **more)

    def socket(self, address="127.0.0.1", server_name="localhost", timeout=40, context=None):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout * SLOWNESS, (address, 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return (context or self.tls).wrap_socket(plain, server_hostname=server_name)


class Stack(Site):
    """An installation of deploy/run, all of whose parts are within reach."""

    def __init__(self, state, values, process=None):
        super().__init__(values | {"STEEP_BUILD": f"{state}/lib/build"})
        self.state = Path(state)
        self.process = process
        self.source = values["STEEP_SOURCE"]
        self.metrics_port = httpx.URL(values["STEEP_METRICS_URL"]).port
        self.url = f"https://127.0.0.1:{self.port}"

    def seed(self):
        """The demonstration monitor's 32 bytes."""
        data = Path(self.values["STEEP_KEY"]).read_bytes()
        return data if len(data) == 32 else base64.b64decode(data.strip(), validate=True)

    def log(self, name):
        return self.state / "log" / f"{name}.log"

    def log_text(self, name):
        return self.log(name).read_text(errors="replace")

    def pid(self, name):
        try:
            return int((self.state / "run" / f"{name}.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def settle(self, *_):
        """There is one of each program."""

    def connect(self, **changes):
        """A connection as administrator, or as changes say; every statement commits by itself."""
        given = {"host": self.pg["PGHOST"], "port": self.pg["PGPORT"], "dbname": self.pg["PGDATABASE"],
                 "user": self.pg["PGUSER"], "autocommit": True}
        return psycopg.connect(**(given | changes))

    def program(self, name):
        """The file that runs as ingest or query, which a sanitized run has in a folder of its own."""
        pid = wait_for(lambda: self.pid(name), f"{name}'s pid")
        return Path(os.readlink(f"/proc/{pid}/exe"))

    def program_environment(self, name):
        raw = Path(f"/proc/{self.pid(name)}/environ").read_bytes()
        return dict(entry.decode().split("=", 1) for entry in raw.split(b"\0") if b"=" in entry)

    def workers_of(self, name):
        return int(self.program_environment(name).get("STEEP_WORKERS", 32))

    def connections_of(self, name):
        """How many connections its workers share."""
        return int(self.program_environment(name).get("STEEP_CONNECTIONS", max(2, len(os.sched_getaffinity(0)))))

    def program_user(self, name):
        """What subprocess needs to start a process as the program's user; only root has to name it."""
        if os.geteuid() != 0:
            return {}
        owner = Path(f"/proc/{self.pid(name)}").stat()
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}

    def metrics_client(self, host="127.0.0.1", **more):
        """A client of the listener for metrics."""
        return httpx.Client(**{"base_url": f"http://{host}:{self.metrics_port}", "trust_env": False, "timeout": 40 * SLOWNESS,
                               "event_hooks": {"response": [*ANSWER_HOOKS]}} | more)

    def reload_nginx(self):
        """Let nginx read its configuration, and wait until no worker has the old one."""
        pid = self.pid("nginx")
        children = Path(f"/proc/{pid}/task/{pid}/children")
        old = set(children.read_text().split())
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: not old & set(children.read_text().split()), "nginx to read its configuration")

    @contextlib.contextmanager
    def changed_snippet(self, name, pattern, replacement, count=1):
        """Replace what a pattern matches in a snippet of nginx, so many times, until the end of the context."""
        file = self.state / "nginx" / "snippets" / "steep" / name
        kept = file.read_text()
        text, changed = re.subn(pattern, replacement, kept)
        assert changed == count, f"{name} has {pattern} {changed} times"
        file.write_text(text)
        self.reload_nginx()
        try:
            yield
        finally:
            file.write_text(kept)
            self.reload_nginx()

    def stop_database(self, how=signal.SIGINT):
        """Stop PostgreSQL, and suspend the process that would restart it until start_database."""
        postmaster = self.pid("postgres")
        keeper = int(Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(keeper, signal.SIGSTOP)
        os.kill(postmaster, how)
        wait_for(lambda: not alive(postmaster), "PostgreSQL to end")
        return keeper

    def start_database(self, keeper):
        os.kill(keeper, signal.SIGCONT)
        wait_for(self.database_answers, "PostgreSQL to be back", 40)

    def database_answers(self):
        try:
            self.connect(connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how=signal.SIGTERM):
        """End a stack that started() began, and return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(60 * SLOWNESS)


@contextlib.contextmanager
def started(state, port, prefix=(), **more):
    """deploy/run on a state folder until the block ends: the process and its Stack, or the process as it ended.

    A prefix is a command that runs it, where it is not to run as this process does.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "VIBETEA_"))}
    environment |= {"STEEP_STATE": str(state), "STEEP_PORT": str(port)} | more
    output = state.with_suffix(".out")
    run_env = state / "run.env"
    with open(output, "ab") as file:
        # A signal that tests/run's shell or nohup ignores would be ignored by whatever it starts.
        process = subprocess.Popen([*prefix, str(ROOT / "deploy" / "run")], env=environment, stdin=subprocess.DEVNULL, stdout=file,
                                   stderr=file, start_new_session=True,
                                   preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)])

    def ready():
        assert process.poll() is None, f"deploy/run ended:\n{output.read_text(errors='replace')[-4000:]}"
        return run_env.exists()

    try:
        wait_for(ready, "deploy/run to write run.env", 120)
        yield Stack(state, read_run_env(run_env), process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60 * SLOWNESS)
            except subprocess.TimeoutExpired:
                # Its child processes end with it.
                process.kill()
                process.wait()
                raise


@contextlib.contextmanager
def running(name, prefix=(), **more):
    """A stack in a new folder, both removed when the block ends."""
    folder = reachable_folder(name)
    try:
        with started(folder / "state", free_port(), prefix, **more) as stack:
            yield stack
    finally:
        # tests/run searches it for a sanitizer's reports and then removes it.
        if not os.environ.get("SANITIZE"):
            subprocess.run(["rm", "-rf", str(folder)], check=False)


addresses = itertools.cycle([f"127.0.1.{n}" for n in range(1, 33)])
