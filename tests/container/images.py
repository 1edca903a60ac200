"""The image, built by buildah from a base image of Debian's packages, and what stands in for PostgreSQL's."""

import json
import shutil
import subprocess
from pathlib import Path

from stack import ROOT, call

CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
BASE = "debian:trixie-slim"

# Of what buildah runs. Its defaults may be higher than its own limits, which not every root may raise.
LIMITS = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=8192:8192"]


def copy_tree(folder):
    """The files of the checkout, closed to others as with a strict umask, beside secrets and state."""
    names = call("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard").split()
    for name in names:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    call("chmod", "-R", "go=", folder)
    call(folder / "deploy/container/new-secrets")
    (folder / "var").mkdir()
    return folder


def make_root(target, *options):
    """Debian 13, as a folder or as an archive."""
    call(ROOT / "tests/debian-root", "trixie", target, *options)
    return target


class Images:
    """A store of images of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.store = folder / "store"

    def command(self, *arguments):
        return ["buildah", "--storage-driver=vfs", f"--root={self.store}", f"--runroot={self.folder}/run", *arguments]

    def buildah(self, *arguments):
        return call(*self.command(*arguments))

    def make_base(self):
        """Under the official name. Like the official one, it lets no package start a service."""
        tar = make_root(self.folder / "base.tar",
                        "--customize-hook=printf '#!/bin/sh\\nexit 101\\n' >$1/usr/sbin/policy-rc.d; chmod 755 $1/usr/sbin/policy-rc.d")
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, tar)
        self.buildah("commit", "--quiet", "--rm", container, BASE)
        tar.unlink()

    def build(self, name, containerfile, context):
        self.buildah("build", "--isolation=chroot", "--format=docker", "--network=host", "--pull-never", "--quiet",
                     *LIMITS, "--tag", name, "--file", containerfile, context)

    def container(self, name):
        return self.buildah("from", "--pull-never", *LIMITS, name).strip()

    def mount(self, container):
        return Path(self.buildah("mount", container).strip())

    def configuration(self, name):
        return json.loads(self.buildah("inspect", "--type=image", name))["Docker"]["config"]

    def run(self, container, *command):
        """Run a command as buildah does; its status and its output, by a file since buildah loses some of it."""
        done = subprocess.run(self.command("run", "--isolation=chroot", container, "--",
                                           "sh", "-c", '"$@" >/tmp/output 2>&1', "sh", *command),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120, check=False)
        return done.returncode, (self.mount(container) / "tmp/output").read_text().strip()


def make_postgres(folder):
    """The root of a system with Debian's PostgreSQL 17, and its configuration as an image."""
    root = make_root(folder / "postgres", "--include=postgresql-17",
                     '--essential-hook=mkdir -p "$1/etc/postgresql-common"',
                     '--essential-hook=echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"')
    shutil.copy(Path(__file__).parent / "postgres-stand-in", root / "usr/local/bin/docker-entrypoint.sh")
    return root, {"User": "0:0", "Entrypoint": ["docker-entrypoint.sh"], "WorkingDir": "/", "StopSignal": "SIGINT",
                  "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin"]}
