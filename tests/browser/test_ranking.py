"""The events by source: a ranked list with bars."""

import datetime
import json

import pytest

from fleet import count_work, open_fleet, work
from stack import wait_for
from test_access import violations
from test_states import FAILED, answer_queries

MANY = 10_000


def rows(page):
    """The source, the number and the bar's width in percent of each row."""
    return page.run("""
        const items = [...document.querySelectorAll('#sources li')];
        return items.map((item) => {
            const bar = item.querySelector('.bar');
            return [item.querySelector('bdi').textContent, Number(item.querySelector('button').lastChild.firstChild.data.replaceAll(',', '')),
                Math.round(parseFloat(getComputedStyle(bar, '::before').width) / bar.getBoundingClientRect().width * 100)];
        });""")


def show(page):
    page.click('input[name="view"][value="source"]')
    wait_for(lambda: page.visible("#ranking") and page.states() in ([], ["empty"]) and rows(page), "the ranking")


def hosts(first, last):
    return [f"host-{n:05}" for n in range(first, last)]


@pytest.mark.firefox
def test_the_sources_are_one_click_away_with_the_most_events_first(page, token, db, send, fresh_source):
    now = datetime.datetime.now(datetime.timezone.utc)
    send(fresh_source, [now - datetime.timedelta(minutes=n) for n in range(3)])
    page.open_loaded(token)
    show(page)
    counted = db.execute("SELECT source, count(*) FROM public.events WHERE timestamp >= now() - '7 days'::interval"
                         " GROUP BY source ORDER BY 2 DESC, 1").fetchall()
    most = counted[0][1]
    assert [(name, count) for name, count, _ in rows(page)] == counted[:100]
    assert all(abs(width - 100 * count / most) <= 2 for _, count, width in rows(page))
    assert page.text("#heatmap-title") == "Events by source"
    assert page.text("#total") == f"{sum(count for _, count in counted):,} events"
    assert page.text("#total-of") == f"in the last 7 days, {len(counted)} sources"
    assert not page.visible("#shown")
    page.click('input[name="view"][value="hour"]')
    wait_for(lambda: page.visible("#grid") and not page.visible("#ranking"), "the heatmap")
    assert page.text("#heatmap-title") == "Events by hour"


@pytest.mark.firefox
def test_a_row_chooses_its_source_in_the_heatmap(page):
    open_fleet(page, 20)
    show(page)
    page.click("#sources li:nth-child(3) button")
    wait_for(lambda: page.visible("#grid") and "source host-00002" in page.run(
        "return document.getElementById('total-of').textContent"), "the source to be shown")
    assert page.run("return document.getElementById('source').value") == "host-00002"
    assert page.run("return document.activeElement.id") == "heatmap-title"
    show(page)
    assert page.run("return [...document.querySelectorAll('#sources [aria-current=true]')].map((each) => each.firstChild.textContent)"
                    ) == ["host-00002"]
    # All sources stay in the list, and the filter leads to one of them, too.
    assert len(rows(page)) == 20
    for _ in ("another source", "the same one"):
        page.offer("host-00005")
        page.press("Enter")
        wait_for(lambda: page.visible("#grid") and "source host-00005" in page.run(
            "return document.getElementById('total-of').textContent"), "the source to be shown")
        show(page)
    # To leave the filter is no choice.
    page.focus("#source")
    page.press("ArrowDown", "Tab")
    page.type("#source", "x")
    page.press("Backspace", "Tab")
    assert page.visible("#ranking") and page.run("return document.getElementById('source').value") == "host-00005"


@pytest.mark.firefox
def test_10000_sources_are_shown_by_the_hundred(page):
    open_fleet(page, MANY)
    show(page)
    assert [name for name, _, _ in rows(page)] == hosts(0, 100)
    assert page.text("#total-of") == "in the last 7 days, 10,000 sources"
    assert page.text("#more") == "Show 100 more of 9,900"
    page.click("#more")
    assert [name for name, _, _ in rows(page)] == hosts(0, 200)
    assert page.run("return document.activeElement.firstChild.textContent") == "host-00100"
    assert page.text("#more") == "Show 100 more of 9,800"
    # From the beginning, when it is shown again.
    page.click('input[name="view"][value="hour"]')
    wait_for(lambda: page.visible("#grid"), "the heatmap")
    show(page)
    assert len(rows(page)) == 100


def test_the_button_for_more_disappears_at_the_end(page):
    open_fleet(page, 130)
    show(page)
    assert page.text("#more") == "Show 30 more of 30"
    page.click("#more")
    assert len(rows(page)) == 130 and not page.visible("#more")
    assert page.run("return document.activeElement.firstChild.textContent") == "host-00100"


def test_a_live_event_changes_its_sources_count_and_moves_no_row(page):
    open_fleet(page, MANY)
    show(page)
    page.focus("#sources li:nth-child(7) button")
    page.run("window.kept = document.activeElement")
    before = rows(page)
    count_work(page, "#sources")
    stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
    events = ["host-00006"] * 4000 + ["host-05000", "a-new-one", *(f"flood-{n}" for n in range(500))]
    page.add_events([{"source": source, "timestamp": stamp} for source in events])
    done = work(page)
    assert (done["created"], done["removed"], done["sorted"]) == (0, 0, 0)
    after = rows(page)
    assert after[6][1] == before[6][1] + 4000
    assert [name for name, _, _ in after] == [name for name, _, _ in before]
    assert [row[:2] for row in after[:6] + after[7:]] == [row[:2] for row in before[:6] + before[7:]]
    assert page.run("return document.activeElement === window.kept")
    assert page.text("#total-of") == "in the last 7 days, 10,501 sources"
    # The next look ranks them.
    page.click('input[name="view"][value="hour"]')
    show(page)
    assert [name for name, _, _ in rows(page)[4:7]] == ["host-00004", "host-00006", "host-00005"]


def test_a_live_event_of_a_new_source_adds_one_row(page):
    open_fleet(page, 5)
    show(page)
    count_work(page, "#sources")
    stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
    old = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=9)).isoformat()
    page.add_events([{"source": "new", "timestamp": stamp}] * 3 + [{"source": "before the period", "timestamp": old}])
    assert [name for name, _, _ in rows(page)] == [*hosts(0, 5), "new"]
    assert rows(page)[5][1] == 3
    done = work(page)
    assert (done["added"], done["removed"]) == (1, 0)
    # A screen reader would not come to an end.
    assert page.text("#total-of") == "in the last 7 days, 6 sources"
    assert page.run("return document.getElementById('announcement').textContent") == "5 sources loaded."


@pytest.mark.firefox
def test_the_days_apply_to_the_sources(page):
    open_fleet(page, 20)
    show(page)
    page.click('input[name="days"][value="30"]')
    wait_for(lambda: page.text("#total-of") == "in the last 30 days, 20 sources", "30 days")
    assert "days=30&group_by=source" in page.run("return asked")


@pytest.mark.firefox
def test_errors_loading_and_no_events_are_shown_as_in_the_heatmap(page, token):
    answer_queries(page, """
        if (!given[0].includes('group_by=source')) return fetched(...given);
        await new Promise((go) => { window.go = go; });
        if (window.broken) throw new TypeError('offline');
        return new Response(JSON.stringify({ aggregates: [], meta: { fetchedAt: new Date().toJSON() } }));""")
    page.open_loaded(token)
    page.click('input[name="view"][value="source"]')
    wait_for(lambda: page.states() == ["loading"], "the notice")
    page.run("window.broken = true; go()")
    wait_for(lambda: page.states() == ["error"], "the error")
    assert page.text("#error-title") == FAILED and page.text("#error-reason") == "The server can’t be reached."
    page.add_events([{"source": "live", "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat()}] * 2)
    assert [row[:2] for row in rows(page)] == [["live", 2]]
    page.run("window.broken = false; window.go = null; document.getElementById('retry').click()")
    wait_for(lambda: page.run("return Boolean(window.go)"), "the request")
    page.run("go()")
    wait_for(lambda: page.states() == ["empty"], "the notice")
    assert page.text("#empty") == "No events in the last 7 days, all sources."
    assert rows(page) == []


def test_live_events_before_the_period_are_not_counted_while_the_server_cannot_be_reached(page, token):
    answer_queries(page, "throw new TypeError('offline');")
    page.open(token)
    wait_for(lambda: page.visible("#error"), "the error")
    page.click('input[name="days"][value="30"]')
    page.click('input[name="view"][value="source"]')
    wait_for(lambda: page.states() == ["error"], "the error")
    now = datetime.datetime.now(datetime.timezone.utc)
    page.add_events([{"source": source, "timestamp": (now - datetime.timedelta(days=days)).isoformat()}
                     for source, days in (("old", 9), ("both", 9), ("both", 0))])
    assert sorted(row[:2] for row in rows(page)) == [["both", 2], ["old", 1]]
    page.click('input[name="days"][value="7"]')
    wait_for(lambda: [row[:2] for row in rows(page)] == [["both", 1]], "the events of 7 days alone")


@pytest.mark.firefox
def test_a_server_without_totals_is_shown_correctly(page, token, db, send, fresh_source):
    now = datetime.datetime.now(datetime.timezone.utc)
    send(fresh_source, [now - datetime.timedelta(days=n) for n in (0, 0, 1, 2)])
    answer_queries(page, "const url = new URL(given[0], location); url.searchParams.delete('group_by');"
                         "const answer = await fetched(url, given[1]); const { aggregates } = await answer.clone().json();"
                         "window.withSource = aggregates.every(({ source, hour }) => source !== undefined && hour !== undefined);"
                         "return answer;")
    page.set_time_zone("UTC")
    page.open_loaded(token)
    since = "timestamp >= now() - '7 days'::interval"
    counted = db.execute(f"SELECT source, count(*) FROM public.events WHERE {since} GROUP BY source ORDER BY 2 DESC, 1").fetchall()
    # The heatmap ends with today.
    shown, = db.execute(f"SELECT count(*) FROM public.events WHERE {since} AND timestamp < date_trunc('day', now(), 'UTC') + '1 day'::interval").fetchone()
    assert page.run("return withSource") and page.text("#total") == f"{shown:,} events"
    assert sorted(page.sources()) == sorted(name for name, _ in counted)
    page.choose_source(fresh_source)
    assert page.text("#total") == "4 events"
    show(page)
    assert [(name, count) for name, count, _ in rows(page)] == counted[:100]
    assert page.text("#total") == f"{sum(count for _, count in counted):,} events"


@pytest.mark.parametrize("view", ["light", "dark", "narrow", "forced-colors"])
def test_axe_finds_no_violations_in_the_ranking(page, axe, view):
    page.set_width(*((390, 844) if view == "narrow" else (1200, 700)))
    page.set_media(prefers_color_scheme="dark" if view == "dark" else "light", prefers_reduced_motion="reduce",
                   forced_colors="active" if view == "forced-colors" else "none")
    open_fleet(page, MANY)
    show(page)
    assert violations(page, axe) == []
    page.screenshot(f"ranking-{view}")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_long_and_right_to_left_names_fit(page, token):
    names = ["x" * 255, "\u202eשלום", "<b>bold</b>"]
    answer_queries(page, "return new Response(JSON.stringify({ meta: { fetchedAt: new Date().toJSON() }, aggregates: %s }));"
                   % json.dumps([{"source": name, "date": "2026-02-03", "hour": 1, "eventCount": 10**12 - n} for n, name in enumerate(names)]))
    page.set_width(320, 700)
    page.open_loaded(token)
    show(page)
    assert [name for name, _, _ in rows(page)] == names
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.run("return document.querySelectorAll('#sources b').length") == 0
