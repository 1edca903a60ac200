"""PgBouncer between programs and an installation's database, in a folder of its own."""

import os
import re
import signal
import socket
import subprocess

import psycopg

from stack import ROOT, alive, reachable_folder, wait_for

COMMAND = ["/usr/sbin/pgbouncer"]
PORT = 6432


def version():
    said = subprocess.run([*COMMAND, "--version"], text=True, capture_output=True, check=True).stdout
    return tuple(map(int, re.search(r"(\d+)\.(\d+)", said).groups()))


def can_track_prepared_statements():
    return version() >= (1, 21)


def documented():
    """The configuration in deploy/SCALING.md."""
    section = re.search(r"^## PgBouncer$(.*?)^## ", (ROOT / "deploy" / "SCALING.md").read_text(), re.M | re.S)[1]
    return re.search(r"^```ini\n(.*?)^```$", section, re.M | re.S)[1]


class Pooler:
    def __init__(self, stack):
        self.stack = stack
        self.folder = reachable_folder("pgbouncer")
        self.user = stack.program_user("postgres")
        if self.user:
            os.chown(self.folder, self.user["user"], self.user["group"])
        self.environment = {"PGHOST": str(self.folder), "PGPORT": str(PORT)}
        self.process = None

    def configure(self, mode="transaction", database=None, **settings):
        # A client can't know whether it keeps track of prepared statements.
        if can_track_prepared_statements():
            settings = {"max_prepared_statements": 0} | settings
        users = ("steep_ingest", "steep_query", self.stack.pg["PGUSER"])
        self.write("\n".join([
            "[databases]",
            f"steep = host={self.stack.pg['PGHOST']} port={self.stack.pg['PGPORT']} dbname={database or self.stack.pg['PGDATABASE']}",
            "[pgbouncer]", f"pool_mode = {mode}", f"unix_socket_dir = {self.folder}", f"listen_port = {PORT}",
            "auth_type = trust", f"auth_file = {self.folder}/users", *(f"{name} = {value}" for name, value in settings.items()), ""]),
            "".join(f'"{user}" ""\n' for user in users))

    @staticmethod
    def default_preparing():
        """What makes it keep track of prepared statements, if it can."""
        return {"max_prepared_statements": 100} if can_track_prepared_statements() else {}

    def configure_as_documented(self, host, port, auth_file):
        """The documented configuration with the places of this installation, and without TCP."""
        text = documented()
        places = {r"host=\S+": f"host={host} port={port}", r"listen_addr = .*": "", r"auth_file = .*": f"auth_file = {self.folder}/users"}
        for pattern, replacement in places.items():
            text, count = re.subn(pattern, lambda _: replacement, text)
            assert count == 1, f"deploy/SCALING.md has {pattern} {count} times"
        self.write(f"{text}\nunix_socket_dir = {self.folder}\n", auth_file)

    def write(self, configuration, users):
        (self.folder / "users").write_text(users)
        (self.folder / "pgbouncer.ini").write_text(configuration)

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([*COMMAND, str(self.folder / "pgbouncer.ini")], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, cwd="/", **self.user)
        wait_for(lambda: self.listens() or not alive(self.process.pid), "PgBouncer to listen")
        assert alive(self.process.pid), self.log()

    def listens(self):
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.folder / f".s.PGSQL.{PORT}")) == 0

    def connect(self, user="steep_ingest", **more):
        return psycopg.connect(host=str(self.folder), port=PORT, dbname="steep", user=user, autocommit=True, prepare_threshold=None, **more)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)

    def log(self):
        return (self.folder / "log").read_text()
