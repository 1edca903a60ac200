"""The files for Prometheus and Grafana in deploy/observability/ are valid, tested, and use existing series."""

import json
import re
import subprocess

import pytest

from stack import ROOT
from test_health import NAMES

FOLDER = ROOT / "deploy" / "observability"
SERIES = re.compile(r"\b(?:steep_[a-z_]+|process_start_time_seconds|up)\b(?![:(])")


def promtool(*arguments):
    return subprocess.run(["promtool", *arguments], text=True, capture_output=True, check=False, cwd=FOLDER)


def test_alerts_fire_when_they_should_and_not_before():
    done = promtool("test", "rules", str(ROOT / "tests" / "observability" / "alerts.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire():
    alerts = set(re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text()))
    tested = (ROOT / "tests" / "observability" / "alerts.yml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", tested))
    silent = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts: \[\]\n", tested))
    assert alerts == fired == silent and len(alerts) > 5


def test_prometheus_accepts_the_configuration():
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_asks_where_the_package_listens():
    listen = (ROOT / "nginx" / "snippets" / "metrics-listen.conf").read_text()
    addresses = re.findall(r"^listen (.*);$", listen, re.MULTILINE)
    assert re.findall(r'targets: \["(.*)"\]', (FOLDER / "prometheus.yml").read_text()) == addresses * 2


@pytest.fixture(scope="module")
def served(stack):
    """The names of the series of both programs, and their labels and values."""
    with stack.metrics_client() as local:
        text = "".join(local.get(f"/metrics/{name}").text for name in NAMES)
    names = {re.sub(r"\{.*", "", line.rsplit(" ", 1)[0]) for line in text.splitlines() if not line.startswith("#")}
    pairs = set(re.findall(r'(\w+)="([^"]*)"', text))
    return names, {label for label, _ in pairs}, {value for label, value in pairs if label != "le"}


def expressions():
    alerts = re.findall(r"expr: (\|\n(?: {10}.*\n)+|.*\n)", (FOLDER / "alerts.yml").read_text())
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return alerts + [target["expr"] for panel in panels for target in panel["targets"]]


def test_alerts_and_dashboard_use_existing_series(served):
    names, labels, values = served
    asked = expressions()
    assert len(asked) > 25
    for expression in asked:
        assert SERIES.search(expression)
        assert set(SERIES.findall(expression)) - names <= {"up"}, expression
        for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', expression):
            assert label in labels | {"job"}, expression
            if label not in ("job",) and "$" not in value:
                assert any(each in values for each in value.split("|")), expression
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            assert set(grouped.replace(" ", "").split(",")) <= labels, expression


def test_every_series_is_on_the_dashboard(served):
    names, _, _ = served
    asked = {name for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]
             for target in panel["targets"] for name in SERIES.findall(target["expr"])}
    unseen = {name for name in names if name not in asked and not name.endswith(("_sum", "_count"))}
    assert unseen == {"process_start_time_seconds"}


def test_the_dashboards_panels_do_not_overlap():
    taken = set()
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
