"""The contents of the package, before it is installed."""

import re
import subprocess

from conftest import TOP
from machine import release


def run(*command, **options):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)


def test_version_and_architecture_are_those_of_the_build(package):
    version = re.search(r"^VERSION = (.*)$", (TOP / "Makefile").read_text(), re.M)[1]
    architecture = run("dpkg", "--print-architecture").stdout.strip()
    assert package.name == f"steep_{version}_{architecture}.deb"


def test_the_changelog_is_of_the_release(package):
    changelog = run("sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards "*/doc/steep/changelog*" | zcat', "sh", str(package)).stdout
    assert re.match(rf"steep \(\S+\) {release()}; urgency=medium\n", changelog), changelog[:80]


def test_lintian_has_no_error_and_no_warning(packages):
    for package in packages.glob("*.deb"):
        if "-dbgsym" not in package.name:
            done = run("lintian", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=0", str(package))
            assert done.returncode == 0, done.stdout


def test_the_package_depends_on_the_libraries_it_links(package):
    depends = run("dpkg-deb", "-f", str(package), "Depends").stdout
    for name in ("libc6", r"libfcgi0(ldbl|t64)", "libjson-c5", "libpq5", "libsodium23", "nginx", "postgresql-client", "openssl",
                 "curl"):
        assert re.search(rf"\b{name}\b", depends), depends
    # With a database on another machine, none is needed here.
    assert re.search(r"\bpostgresql \(>= 15\)", run("dpkg-deb", "-f", str(package), "Recommends").stdout)


def test_settings_and_site_are_configuration_files(package):
    """dpkg asks before it replaces a changed file, and keeps it when the package is removed."""
    files = {line.split()[5][1:] for line in run("dpkg-deb", "-c", str(package)).stdout.splitlines()
             if line.startswith("-") and line.split()[5].startswith("./etc/")}
    conffiles = set(run("dpkg-deb", "-I", str(package), "conffiles").stdout.split())
    assert files == conffiles
    for name in ("/etc/steep/ingest.env", "/etc/steep/query.env", "/etc/steep/prune.env",
                 "/etc/nginx/sites-available/steep", "/etc/nginx/snippets/steep/listen.conf"):
        assert name in conffiles


def test_every_file_of_the_tree_is_packaged(package):
    """Each snippet, migration and file of the page is in the package."""
    inside = run("dpkg-deb", "-c", str(package)).stdout
    for source, folder in (("nginx/snippets", "etc/nginx/snippets/steep"), ("sql/migrations", "usr/share/steep/sql/migrations"),
                           ("sql/admin", "usr/share/steep/sql/admin"), ("sql/proxy", "usr/share/steep/sql/proxy"),
                           ("deploy/admin", "usr/share/steep/admin"),
                           ("deploy/common", "usr/share/steep/common"), ("nginx/html", "usr/share/steep/html")):
        names = {path.name for path in (TOP / source).iterdir()}
        assert names and names == set(re.findall(rf"\./{folder}/(\S+)$", inside, re.M))


def test_manuals_completions_and_the_guide_are_where_debian_looks(package, monitor_package):
    for file, program, more in ((package, "steepctl", ["man/man8/steepctl.8.gz", "man/man8/ingest.fcgi.8.gz", "man/man8/query.fcgi.8.gz",
                                                       "man/man5/steep.env.5.gz", "doc/steep/supabase.md", "doc/steep/SCALING.md.gz"]),
                                (monitor_package, "steep-monitor", ["man/man1/steep-monitor.1.gz"])):
        inside = run("dpkg-deb", "-c", str(file)).stdout
        for name in (f"bash-completion/completions/{program}", f"zsh/vendor-completions/_{program}", *more):
            assert re.search(rf"^-rw-r--r-- .* \./usr/share/{re.escape(name)}$", inside, re.M), name


def test_it_can_be_installed_elsewhere(packages, tmp_path):
    """By GNU's variables: the installed files name the folders that they are in."""
    tree = packages.parent
    done = run("make", "-C", str(tree), "install", f"DESTDIR={tmp_path}", "prefix=/opt/steep", "sysconfdir=/opt/etc")
    assert done.returncode == 0, done.stdout
    for name in ("libexec/steep/ingest.fcgi", "bin/steepctl", "bin/steep-monitor", "share/steep/admin/setup",
                 "share/man/man8/steepctl.8", "share/bash-completion/completions/steepctl", "share/zsh/site-functions/_steepctl",
                 "share/bash-completion/completions/steep-monitor", "share/zsh/site-functions/_steep-monitor",
                 "share/doc/steep/supabase.md", "share/doc/steep/SCALING.md", "lib/systemd/system/steep-query.service"):
        assert (tmp_path / "opt/steep" / name).is_file(), name
    assert (tmp_path / "opt/etc/nginx/sites-available/steep").is_file()
    for file in tmp_path.rglob("*"):
        if file.is_file() and b"\x7fELF" not in file.read_bytes()[:4]:
            text = file.read_text()
            assert not re.search(r"(?<!opt)/etc/steep|/usr/lib/steep|/usr/share/steep|/usr/bin/steep|@[a-z]+@", text), file


def test_the_manual_pages_have_no_errors():
    manuals = sorted((TOP / "deploy" / "man").iterdir())
    assert {"steepctl.8", "ingest.fcgi.8", "query.fcgi.8", "steep.env.5"} <= {manual.name for manual in manuals}
    for manual in manuals:
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", str(manual)], text=True, check=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
        assert done.stderr == ""
