"""A Debian system, booted in a container without a network, and the commands run on it."""

import functools
import os
import platform
import shlex
import subprocess
from pathlib import Path

import stack
from stack import call

# Deadlines end a hanging test and measure nothing: the machine may be busy.
PATIENCE = 120.0

TESTS = Path(__file__).resolve().parents[1]
DOWNLOAD = "apt-get -qq -y --download-only install"

# What test_setup_certbot.py installs.
CERTBOT = ("certbot", "python3-certbot-nginx", "pebble")

# PostgreSQL 15, from the release before, beside a newer one.
WITH_OLD_POSTGRESQL = ("trixie",)
OLD_POSTGRESQL = ('--customize-hook=cat "$1"/etc/apt/sources.list.d/* | sed "s/ trixie/ bookworm/" >"$1/etc/apt/bookworm"; '
                  'mv "$1/etc/apt/bookworm" "$1/etc/apt/sources.list.d/bookworm.list"',
                  '--customize-hook=chroot "$1" apt-get -qq update',
                  f'--customize-hook=chroot "$1" {DOWNLOAD} --no-install-recommends postgresql-15')


class Refused(Exception):
    """This machine allows no container, which is no fault of the package."""


# Each check starts a process in the container, which is still booting.
wait_for = functools.partial(stack.wait_for, seconds=PATIENCE, every=0.2)


def release():
    """The release of Debian that this is, which the package is for."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def make_root(folder, *packages):
    """A base system, with what the packages need in apt's cache: the container can fetch nothing."""
    folder.mkdir()
    root = folder / "root"
    call(TESTS / "debian-root", release(), root,
         "--skip=cleanup/apt", "--include=systemd,systemd-sysv,dbus,procps,ca-certificates",
         f"--customize-hook=copy-in {' '.join(map(str, packages))} /root",
         f'--customize-hook=chroot "$1" {DOWNLOAD} -o APT::Install-Recommends=true '
         + " ".join([*(f"/root/{package.name}" for package in packages), *CERTBOT]),
         *(OLD_POSTGRESQL if release() in WITH_OLD_POSTGRESQL else ()),
         "--customize-hook=echo steep.test >$1/etc/hostname", timeout=900)
    return root


class Machine:
    def __init__(self, root):
        self.root = root
        self.log = root.parent / "console.log"
        self.process = None
        self.leader = None

    def boot(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit",
                 "--private-network", "--hostname=steep.test", "--machine=steep-test",
                 # Otherwise systemd filters no addresses; it would say so only in its log.
                 "--system-call-filter=bpf"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                # Newer versions of systemd refuse the old hierarchy of control groups, which a host may have beside it.
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})
        try:
            wait_for(self.is_up, "the container to boot")
        except AssertionError as error:
            self.stop()
            raise Refused(f"{error}: {self.log.read_text(errors='replace')[-500:]}") from error

    def is_up(self):
        if self.process.poll() is not None:
            raise Refused(f"systemd-nspawn ended: {self.log.read_text(errors='replace')[-500:]}")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            return False
        self.leader = children[0]
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def stop(self):
        if self.process is None:
            return
        # A clean shutdown would take longer and is not needed.
        if self.leader:
            self.run("systemctl", "poweroff", "--force", "--force", check=False)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    @functools.cached_property
    def postgresql(self):
        """The major version of the release's PostgreSQL."""
        return self.run("dpkg-query", "-W", "-f", "${Version}", "postgresql").stdout.split("+")[0]

    def run(self, *command, check=True, timeout=PATIENCE, env=None, **options):
        """Run a command on the machine, as root."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                       "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"} | (env or {})
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        done = subprocess.run(["nsenter", "-t", self.leader, "-a", "--", *command], text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, env=environment, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done

    def shell(self, script, **options):
        return self.run("sh", "-ec", script, **options).stdout

    def network(self, *command):
        """Run a command of the host in the container's network."""
        return ["nsenter", "-t", self.leader, "-n", "--", *command]

    def sql(self, statement, database="steep"):
        return self.run("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database,
                        "-c", statement).stdout.strip()

    def file(self, path):
        return self.root / path.lstrip("/")

    def show(self, unit, name):
        return self.run("systemctl", "show", "-P", name, unit).stdout.strip()

    def journal(self, unit, since=None):
        """What a unit logged since a cursor of journal_now."""
        after = ["--after-cursor", since] if since else []
        self.run("journalctl", "--sync")
        return self.run("journalctl", "-q", "--no-pager", "-o", "cat", "-u", unit, *after, check=False).stdout

    def journal_now(self):
        self.run("journalctl", "--sync")
        shown = self.run("journalctl", "-q", "--no-pager", "-n", "0", "--show-cursor").stdout
        return shown.rsplit("-- cursor: ", 1)[1].strip()


def build_packages(top, folder, version=None, change=None):
    """make deb in a copy of the tree, as a user who is not root; the packages' folder.

    change, if any, is called with the copy's path first."""
    folder.mkdir(mode=0o755)
    tree = folder / "tree"
    tree.mkdir()
    for name in ("Makefile", "README.md", "LICENSE", "fcgi", "sql", "nginx", "deploy", "tests/unit"):
        call("cp", "-R", "--parents", name, str(tree), cwd=top)
    if change:
        change(tree)
    user = []
    if os.geteuid() == 0:
        call("chown", "-R", "65534:65534", str(tree))
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    call(*user, "env", "HOME=/nonexistent", f"TMPDIR={tree}", "DEB_BUILD_OPTIONS=nocheck parallel=2", "make", "-C", str(tree), "deb",
         *([f"VERSION={version}"] if version else []), timeout=600)
    return tree / "build"
