"""What the tests of a run caused together, in whichever process: the only file that waits for the other processes."""

from pathlib import Path

import pytest

import turns
from conformance import Description
from conftest import caused
from test_openapi import served

pytestmark = pytest.mark.last(6)

# Described answers that no test provokes, each with the reason.
NOT_CAUSED = {}


@pytest.fixture(scope="module")
def processes(request):
    """What each process caused."""
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    if {item.path.name for item in request.session.items} != here or request.config.getoption("keyword"):
        pytest.skip("a part of the tests causes a part of this")
    return [caused(), *turns.left_elsewhere()]


def test_the_logs_were_searched_for_many_secrets(processes):
    assert sum(each["secrets"] for each in processes) > 1000


def test_every_described_answer_occurred(processes):
    description, seen = Description.read(), set()
    for method, path, status, code in (answer for each in processes for answer in each["answers"]):
        template, name = description.find(method, path)
        seen.add((template, name, status))
        if code is not None:
            seen.add((template, status, code))
    asked = {description.find(method, path)[0] for method, path in served()}
    missing = []
    for path, method, responses in description.operations():
        if path not in asked:
            continue
        # HEAD is answered as GET is, which is checked for some answers only.
        for status, response in ({200: responses[200]} if method == "head" else responses).items():
            if ((path, method, status) in seen) == ((path, status) in NOT_CAUSED):
                missing.append(f"{method} {path}: {status}")
            elif (path, status) not in NOT_CAUSED and method != "head":
                missing += [f"{method} {path}: {status} {code}" for code in description.codes(response) if (path, status, code) not in seen]
    assert not missing, "\n".join(missing)
