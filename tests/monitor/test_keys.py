"""steep-monitor keygen, and which keys are accepted."""

import base64
import os
import shlex

import pytest
from nacl.signing import SigningKey


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "keys"
    made.mkdir()
    return made


def test_keygen_makes_a_key_pair_in_the_common_format(sender, folder):
    done = sender.run("keygen", folder)
    assert done.returncode == 0, done.stderr
    private, public = folder / "key.priv", folder / "key.pub"
    assert private.stat().st_mode & 0o7777 == 0o600 and len(private.read_bytes()) == 32
    text = public.read_text()
    assert text.endswith("\n") and len(text) == 45
    assert base64.b64decode(text.strip(), validate=True) == bytes(SigningKey(private.read_bytes()).verify_key)
    assert sorted(path.name for path in folder.iterdir()) == ["key.priv", "key.pub"]


def test_keygen_prints_the_command_that_registers_the_key_and_no_secret(sender, folder, identity):
    done = sender.run("keygen", folder)
    public = (folder / "key.pub").read_text().strip()
    sentence, command = done.stdout.splitlines()
    assert sentence == "Register the key on the server:"
    assert shlex.split(command) == ["steepctl", "monitor", "add", identity.source, public]
    seed = (folder / "key.priv").read_bytes()
    assert seed.hex() not in done.stdout + done.stderr and base64.b64encode(seed).decode() not in done.stdout + done.stderr


def test_keygen_quotes_the_name_for_a_shell(sender, folder):
    done = sender.run("keygen", folder, STEEP_SOURCE="it's; a $(name)")
    assert done.returncode == 0
    assert shlex.split(done.stdout.splitlines()[-1])[3] == "it's; a $(name)"


def test_two_keys_differ(sender, folder):
    pairs = []
    for name in "ab":
        sender.run("keygen", folder / name)
        pairs.append((folder / name / "key.priv").read_bytes())
    assert pairs[0] != pairs[1]


@pytest.mark.parametrize("there", ["key.priv", "key.pub"])
@pytest.mark.parametrize("how", ["file", "dangling link"])
def test_keygen_overwrites_nothing(sender, folder, there, how):
    if how == "file":
        (folder / there).write_text("mine")
    else:
        (folder / there).symlink_to(folder / "elsewhere")
    done = sender.run("keygen", folder)
    assert done.returncode == 1 and there in done.stderr
    assert [path.name for path in folder.iterdir()] == [there]
    assert how != "file" or (folder / there).read_text() == "mine"


def test_keygen_defaults_to_the_folder_of_the_key_or_the_state(sender, folder):
    assert sender.run("keygen", STEEP_KEY=str(folder / "key.priv")).returncode == 0
    assert (folder / "key.pub").exists()
    (sender.state / "key.priv").unlink()
    assert sender.run("keygen").returncode == 0
    assert (sender.state / "key.pub").exists()
    assert sender.run("keygen", STEEP_MONITOR_STATE=str(folder / "fresh")).returncode == 0
    assert (folder / "fresh").stat().st_mode & 0o777 == 0o700


def test_the_private_key_is_private_whatever_the_umask(sender, folder):
    before = os.umask(0)
    try:
        assert sender.run("keygen", folder / "new").returncode == 0
    finally:
        os.umask(before)
    assert (folder / "new" / "key.priv").stat().st_mode & 0o777 == 0o600
    assert (folder / "new").stat().st_mode & 0o077 == 0 and (folder / "new" / "key.pub").stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666])
def test_a_key_that_others_can_read_is_refused(sender, mode):
    (sender.state / "key.priv").chmod(mode)
    for arguments in ([], ["-t"]):
        done = sender.run(*arguments)
        assert done.returncode == 1 and "key.priv" in done.stderr


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, b"x" * 64, b"x" * 100_000])
def test_a_key_of_the_wrong_length_is_refused(sender, content):
    (sender.state / "key.priv").write_bytes(content)
    done = sender.run("-t")
    assert done.returncode == 1 and "key.priv" in done.stderr


def test_a_key_that_is_a_folder_or_a_fifo_is_refused_at_once(sender, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for key in (tmp_path, fifo):
        assert sender.run("-t", "--key", key).returncode == 1


def test_the_message_for_a_missing_key_names_keygen(sender):
    (sender.state / "key.priv").unlink()
    done = sender.run()
    assert done.returncode == 1 and "keygen" in done.stderr
