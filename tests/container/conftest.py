"""The image, and the services of compose.yaml started from it."""

import concurrent.futures
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from compose import Compose
from images import CONTAINERFILE, Images, copy_tree, make_postgres

COMPOSE = CONTAINERFILE.parent / "compose.yaml"


def pytest_configure():
    # tests/run ends a suite with SIGTERM; fixtures must still stop what they started.
    def leave(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)


@pytest.fixture(scope="session")
def folder():
    made = Path(tempfile.mkdtemp(prefix="steep-container."))
    made.chmod(0o755)
    yield made
    # The store of images is in it too. Nothing is mounted here outside of namespaces that have ended.
    subprocess.run(["rm", "-rf", "--one-file-system", str(made)], check=True)


@pytest.fixture(scope="session")
def postgres(folder):
    """Made while the image is built."""
    (folder / "db").mkdir()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(make_postgres, folder / "db")


@pytest.fixture(scope="session")
def images(folder, postgres):
    made = Images(folder / "images")
    made.folder.mkdir()
    made.make_base()
    (folder / "tree").mkdir()
    tree = copy_tree(folder / "tree")
    made.build("steep", tree / "deploy/container/Containerfile", tree)
    return made


@pytest.fixture(scope="session")
def configuration(images):
    return images.configuration("steep")


@pytest.fixture(scope="session")
def container(images):
    """A container of the image for buildah's own runs, as it was built."""
    return images.container("steep")


@pytest.fixture(scope="session")
def root(images, container):
    return images.mount(container)


@pytest.fixture(scope="session")
def new_compose(folder, images, postgres, configuration):
    """A function that reads compose.yaml in a folder of its own, beside secrets that new-secrets made."""
    root, like_an_image = postgres.result()
    image = images.mount(images.container("steep"))
    made = []

    def make(change=lambda text: text, secrets=True, **environment):
        place = Path(tempfile.mkdtemp(dir=folder, prefix="compose."))
        place.chmod(0o755)
        (place / "compose.yaml").write_text(change(COMPOSE.read_text()))
        shutil.copy(COMPOSE.parent / "new-secrets", place)
        if secrets:
            subprocess.run([place / "new-secrets"], check=True)
        compose = Compose(place / "compose.yaml", {"steep": image, "postgres:17": root},
                          {"steep": configuration, "postgres:17": like_an_image}, place, **environment)
        made.append(compose)
        return compose

    yield make
    for compose in made:
        compose.down()


@pytest.fixture(scope="session")
def compose(new_compose):
    """docker compose up."""
    started = new_compose()
    started.up()
    return started
