"""A disk that can be filled: a tmpfs for the database's files in a mount namespace of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stack import wait_for

ROOM = 8 << 30

# Set in the namespace: the user and group that made it.
VARIABLE = "FAULTS_NAMESPACE"


def mounting():
    """The command that runs another where it may mount; None where the system does not let this user mount."""
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", folder], check=False,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return unshare if tried.returncode == 0 else None


def enter_namespace():
    """Start this program again where it may mount, for an ordinary user as root of a user namespace.

    Goes on as it is where the system lets this user mount nothing at all.
    """
    if VARIABLE in os.environ:
        return
    unshare = mounting()
    if unshare:
        os.environ[VARIABLE] = f"{os.geteuid()}:{os.getegid()}"
        os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])


def can_mount():
    return VARIABLE in os.environ


def as_before():
    """The prefix of a command that is to run as the ordinary user again, which PostgreSQL requires."""
    user, _, group = os.environ.get(VARIABLE, "0:0").partition(":")
    return [] if user == "0" else ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"]


@contextlib.contextmanager
def small_disk(stack):
    """Put an installation's database on a disk of its own. At the end PostgreSQL still uses it."""
    disk = Disk(stack.state / "pg")
    keeper = stack.stop_database()
    disk.take_over()
    try:
        stack.start_database(keeper)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk.place)], check=True)


@contextlib.contextmanager
def empty_disk(place, size):
    """A disk of so many bytes in a namespace of its own: disk.prefix runs a command that sees it."""
    unshare = mounting()
    holder = subprocess.Popen([*unshare, "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        disk = Disk(place, ["nsenter", f"--target={holder.pid}", "--mount", *user, "--"], f"/proc/{holder.pid}/root")
        made = disk.mount("-t", "tmpfs", "-o", f"size={size},mode=700")
        assert made.returncode == 0, made.stderr
        yield disk
    finally:
        holder.kill()
        holder.communicate()


class Disk:
    """A tmpfs, visible to commands with the prefix and, to all, below a root."""

    def __init__(self, place, prefix=(), root=""):
        self.place = place
        self.prefix = prefix
        self.seen = Path(f"{root}{place}")

    def take_over(self):
        """Mount the disk in place of the files and move them onto it."""
        original = self.place.with_name("pg.original")
        owner = self.place.stat()
        self.place.rename(original)
        self.place.mkdir(mode=0o700)
        made = self.mount("-t", "tmpfs", "-o", f"size={ROOM},mode=700,uid={owner.st_uid},gid={owner.st_gid}")
        assert made.returncode == 0, made.stderr
        subprocess.run(["cp", "-a", f"{original}/.", str(self.place)], check=True)
        subprocess.run(["rm", "-rf", str(original)], check=True)

    def mount(self, *options):
        return subprocess.run([*self.prefix, "mount", *options, "none", str(self.place)], text=True, capture_output=True, check=False)

    def resize(self, size):
        return self.mount("-o", f"remount,size={size}").returncode == 0

    def fill(self):
        """Leave no free space; retry if files grow in the meantime."""
        def full():
            found = os.statvfs(self.seen)
            return self.resize((found.f_blocks - found.f_bfree) * found.f_frsize)

        wait_for(full, "a disk without room")

    def make_room(self, size=ROOM):
        assert self.resize(size), "the disk does not get its room back"
