"""A proxy serves steep at a path of another site, configured as deploy/README.md says."""

import re
from urllib.parse import urljoin

import httpx
import pytest

from conftest import query_with, registered
from front_proxy import at_a_sub_path, base_url_setting

# The second installation's query.fcgi is suspended until then, see test_edge.py.
pytestmark = pytest.mark.last(1)


@pytest.fixture(scope="module")
def site(second_stack):
    """A client of the whole site of which steep is a part."""
    setting = f'set $steep_base_url "{base_url_setting()}";'
    with (second_stack.changed_snippet("page-config.conf", r'(?m)^set \$steep_base_url "/";$', setting),
          at_a_sub_path(second_stack) as url,
          httpx.Client(base_url=url, verify=second_stack.tls, trust_env=False, timeout=60) as client):
        yield client


@pytest.fixture(scope="module")
def sender(second_stack):
    return registered(second_stack, "sub-path")


@pytest.mark.parametrize("base", ["/steep", "/steep/", "/steep/functions/v1", "/steep/functions/v1/"])
def test_both_endpoints_answer_below_the_documented_base_urls(base, site, sender, second_stack):
    answer = sender.post(site, [sender.event()], path=f"{base}/ingest")
    assert (answer.status_code, answer.json()["inserted"]) == (200, 1)
    answer = site.get(f"{base}/query?source=sub-path", headers={"Authorization": f"Bearer {second_stack.token}"})
    assert answer.status_code == 200 and answer.json()["aggregates"][0]["source"] == "sub-path"


def test_a_large_batch_passes_the_proxy(site, sender):
    events = [sender.event(payload={"text": "x" * 4000}) for _ in range(1000)]
    assert sender.post(site, events, path="/steep/functions/v1/ingest").json()["inserted"] == 1000


def test_the_page_finds_its_files_and_the_counts(site, second_stack):
    page = site.get("/steep/")
    assert page.status_code == 200 and "connect-src 'self';" in page.headers["Content-Security-Policy"]
    files = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(files) > 10
    for file in [*files, "openapi.yaml"]:
        assert site.get(urljoin("/steep/", file)).status_code == 200, file
    # As the store makes the address from its base URL.
    base = site.get("/steep/config.json").json()["baseUrl"]
    counts = site.get(urljoin("/steep/", f"{base.rstrip('/')}/query"), headers={"Authorization": f"Bearer {second_stack.token}"})
    assert counts.status_code == 200 and "aggregates" in counts.json(), counts.text


def test_nothing_of_it_is_outside_of_the_path(site, second_stack):
    assert query_with(site, second_stack.token).status_code == 404
    assert site.get("/steep", follow_redirects=False).headers["Location"].endswith("/steep/")
    assert site.get("/steep/nowhere").json()["error"] == "not_found"
