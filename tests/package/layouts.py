"""What the tests of other ways to run it share."""

import contextlib

LISTEN = "/etc/nginx/snippets/steep/listen.conf"
WORKS = "it works: https://steep.test/"


@contextlib.contextmanager
def kept(machine, *folders):
    """Restore the folders afterwards, and set steep up as before."""
    machine.run("mkdir", "/root/kept")
    for folder in folders:
        machine.run("cp", "-a", "--parents", folder, "/root/kept")
    try:
        yield
    finally:
        for folder in folders:
            machine.run("rm", "-r", folder)
            machine.run("cp", "-a", f"/root/kept{folder}", folder)
        machine.run("rm", "-r", "/root/kept")
        machine.run("systemctl", "restart", "nginx")
        assert WORKS in machine.run("steepctl", "setup").stdout


def refused(machine, *arguments):
    """setup with these arguments fails and changes nothing; its message."""
    before = machine.file(LISTEN).read_text()
    done = machine.run("steepctl", "setup", *arguments, check=False)
    assert done.returncode == 1, done.stdout
    assert machine.file(LISTEN).read_text() == before
    assert not machine.file(f"{LISTEN}.replaced").exists() and not machine.file(f"{LISTEN}.new").exists()
    return done.stdout


def status_is_ok(machine):
    done = machine.run("steepctl", "status", check=False)
    assert done.returncode == 0 and done.stdout.startswith("STEEP OK: all is well."), done.stdout
    return done.stdout
