"""A Debian system, booted in a container without a network, and the commands run on it."""

import functools
import os
import shlex
import subprocess
from pathlib import Path

import stack

# Deadlines end a hanging test and measure nothing: the machine may be busy.
PATIENCE = 120.0

# What test_setup_certbot.py installs.
CERTBOT = ("certbot", "python3-certbot-nginx", "pebble")


class Refused(Exception):
    """This machine allows no container, which is no fault of the package."""


# Each check starts a process in the container, which is still booting.
wait_for = functools.partial(stack.wait_for, seconds=PATIENCE, every=0.2)


def call(*command, **options):
    """Run a command on the host; its output, or an exception with it."""
    done = subprocess.run(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def make_root(folder, *packages):
    """A base system, with what the packages need in apt's cache: the container can fetch nothing.

    apt is set up as this machine's is, sources, proxies and all."""
    sources = call("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
                   "Created-By: Packages", "Origin: Debian", "Architecture: amd64")
    folder.mkdir()
    (folder / "sources").write_text("\n".join(sorted(set(sources.splitlines()))) + "\n")
    (folder / "apt.conf").write_text("".join(
        line for line in call("apt-config", "dump", "Acquire").splitlines(keepends=True) if not line.startswith('Acquire "')))
    root = folder / "root"
    call("mmdebstrap", "--mode=root", "--variant=minbase", f"--aptopt={folder}/apt.conf",
         "--dpkgopt=force-unsafe-io", "--skip=cleanup/apt", "--include=systemd,systemd-sysv,dbus,procps,ca-certificates",
         f"--customize-hook=copy-in {' '.join(map(str, packages))} /root",
         '--customize-hook=chroot "$1" apt-get -y -o APT::Install-Recommends=true --download-only install '
         + " ".join([*(f"/root/{package.name}" for package in packages), *CERTBOT]),
         "--customize-hook=echo steep.test >$1/etc/hostname",
         "bookworm", str(root), str(folder / "sources"), timeout=600)
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
                 "--private-network", "--hostname=steep.test", "--machine=steep-test"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
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
