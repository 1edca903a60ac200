"""Databases for one test: in the stack's cluster, or in a cluster that the test may stop, kill and restore."""

import contextlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import psycopg

from stack import ROOT, SLOWNESS, reachable_folder


class Database:
    """A database for one test in the cluster that the connection's arguments name."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.name = name

    def connect(self, settings=(), **more):
        options = " ".join("-c " + f"{name}={value}".replace("\\", "\\\\").replace(" ", "\\ ")
                           for name, value in dict(settings).items())
        return psycopg.connect(**(self.cluster | {"dbname": self.name, "autocommit": True, "options": options} | more))

    def migrate(self, *arguments, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "STEEP_"))}
        environment |= {"PGHOST": str(self.cluster["host"]), "PGPORT": str(self.cluster["port"]),
                        "PGUSER": self.cluster["user"], "PGDATABASE": self.name}
        return subprocess.run([str(ROOT / "sql" / "migrate"), *arguments], env=environment | more, text=True, capture_output=True,
                              check=True, timeout=60 * SLOWNESS)


@contextlib.contextmanager
def made_database(cluster):
    database = Database(cluster, f"steep_e2e_{secrets.token_hex(6)}")
    with psycopg.connect(**(cluster | {"dbname": "postgres", "autocommit": True})) as admin:
        admin.execute(f"CREATE DATABASE {database.name} TEMPLATE template0 ENCODING 'UTF8'")
        try:
            yield database
        finally:
            admin.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


class Cluster:
    """A cluster run by the stack's PostgreSQL in a folder of its own that only its user may enter."""

    def __init__(self, stack, name="cluster"):
        self.folder = reachable_folder(name)
        self.folder.chmod(0o700)
        self.data = self.folder / "data"
        self.arguments = {"host": str(self.folder), "port": 5432, "user": "postgres"}
        self.user = stack.program_user("postgres")
        if self.user:
            os.chown(self.folder, self.user["user"], self.user["group"])
        self.programs = Path(os.readlink(f"/proc/{stack.pid('postgres')}/exe")).parent

    def run(self, program, *arguments, **more):
        """Run one of PostgreSQL's programs as the cluster's user, who is also its superuser."""
        environment = {"PGHOST": str(self.folder), "PGPORT": "5432", "PGUSER": "postgres", "PGDATABASE": "postgres",
                       "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | more.pop("env", {})
        done = subprocess.run([str(part) for part in (self.programs / program, *arguments)], env=environment, cwd="/", text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=60 * SLOWNESS, **(self.user | more))
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def initialize(self):
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def configure(self, **settings):
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self):
        """Start it, after recovery if needed; the pid of its first process."""
        # pg_ctl's child inherits its descriptors: a pipe would never end.
        subprocess.run([str(self.programs / "pg_ctl"), "-D", str(self.data), "-l", str(self.folder / "log"), "-w", "start",
                        "-o", f"-c listen_addresses= -c unix_socket_directories={self.folder} -c unix_socket_permissions=0700"],
                       check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       timeout=60 * SLOWNESS, **self.user)
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def stop(self, mode="fast"):
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def remove(self):
        if (self.data / "postmaster.pid").exists():
            with contextlib.suppress(AssertionError):
                self.stop("immediate")
        shutil.rmtree(self.folder)

    def make_database(self, name):
        with self.database("postgres").connect() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return self.database(name)

    def database(self, name):
        return Database(self.arguments, name)
