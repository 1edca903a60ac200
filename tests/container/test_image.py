"""The image: what is in it, and what its commands say by themselves."""

import re

import pytest

from images import CONTAINERFILE
from stack import ROOT, call


def test_two_stages_begin_with_the_slim_image_of_the_current_stable():
    assert re.findall("^FROM ([^ \n]+)", CONTAINERFILE.read_text(), re.MULTILINE) == ["debian:trixie-slim"] * 2


def test_nothing_that_compiles_and_nothing_that_was_compiled_from_is_left(root):
    packages = call("chroot", root, "dpkg-query", "-W", "-f", "${Package}\\n").split()
    assert not [name for name in packages if name.endswith("-dev") or re.match(r"(gcc|g\+\+|clang|make|binutils|cpp|pkg-config|pkgconf)\b(?!.*-base$)", name)]
    for name in ("cc", "gcc", "make", "as", "ld", "pkg-config"):
        assert not (root / "usr/bin" / name).exists(), name
    assert not (root / "steep").exists()
    assert not [path for path in (root / "usr/lib/steep").rglob("*") if path.suffix in (".c", ".h", ".o", ".a", ".d")]


def test_nothing_of_apt_and_no_log_is_left(root):
    for folder in ("var/lib/apt/lists", "var/cache/apt/archives", "var/log"):
        left = [path for path in (root / folder).rglob("*")
                if path.is_file() and path.name != "lock"]
        assert left == [], folder


def test_no_secret_of_the_checkout_is_in_it(root):
    assert not list(root.glob("usr/lib/steep/**/secrets*"))
    assert {path.name for path in (root / "usr/lib/steep").iterdir()} == {"build", "deploy", "nginx", "sql"}
    assert not [path for path in root.glob("usr/lib/steep/**/*") if path.is_file() and b"PRIVATE KEY-----\n" in path.read_bytes()]


def test_its_user_is_not_root_and_owns_only_what_is_a_volume(root, configuration):
    assert configuration["User"] == "10001:10001"
    owned = call("find", root, "-xdev", "(", "-uid", "10001", "-o", "-gid", "10001", ")", "-printf", "/%P\\n").split()
    assert sorted(owned) == ["/run/steep", "/var/lib/steep", "/var/lib/steep/tls"]


def test_its_user_can_write_to_no_program_and_no_setting(root):
    writable = call("find", f"{root}/usr", f"{root}/etc", "-perm", "-o+w", "-not", "-type", "l")
    assert writable == ""


def test_the_programs_find_their_libraries(images, container):
    for program in ("ingest", "query"):
        status, output = images.run(container, f"/usr/lib/steep/build/{program}.fcgi", "-V")
        assert status == 0 and re.search(r"[0-9]+\.[0-9]+", output), output


def test_the_image_has_a_health_check(configuration):
    assert configuration["Healthcheck"]["Test"] == ["CMD", "entrypoint", "health"]


def test_its_error_log_has_the_level_of_the_package(root):
    levels = [re.findall(r"^error_log \S+ ([a-z]+);$", (folder / "log.conf").read_text(), re.MULTILINE)
              for folder in (root / "etc/nginx/snippets/steep", ROOT / "nginx/snippets")]
    assert levels == [["emerg"]] * 2


def test_nginx_accepts_the_site_without_a_warning(images, container):
    status, output = images.run(container, "sh", "-c", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x "
                                "-keyout tls/server.key -out tls/server.crt 2>/dev/null && nginx -e stderr -t; status=$?; rm tls/*; exit $status")
    assert status == 0 and "warn" not in output and "alert" not in output, output


@pytest.mark.parametrize("command", ["", "shell", "ingest now", "migrate now", "health now"])
def test_a_wrong_command_prints_the_usage(images, container, command):
    status, output = images.run(container, "entrypoint", *command.split())
    assert status == 2 and "migrate" in output and "certificate" in output


@pytest.mark.parametrize("command", ["migrate", "ingest", "query", "demonstration", "steepctl status"])
def test_without_a_database_each_command_says_so(images, container, command):
    assert images.run(container, "entrypoint", *command.split()) == (78, "steep: there is no database: PGHOST is not set")


@pytest.mark.parametrize("command, role", [("migrate", "postgres"), ("ingest", "steep_ingest"), ("query", "steep_query"),
                                           ("demonstration", "postgres"), ("steepctl status", "postgres")])
def test_without_its_secret_each_command_says_which(images, container, command, role):
    status, output = images.run(container, "env", "PGHOST=127.0.0.1", "entrypoint", *command.split())
    assert (status, output) == (78, f"steep: there is no password of {role}: the secret /run/secrets/{role} is missing or empty")


def test_the_health_of_a_container_without_a_service_is_an_error(images, container):
    assert images.run(container, "entrypoint", "health") == (1, "steep: no service runs in this container")
