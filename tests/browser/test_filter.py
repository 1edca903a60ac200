"""The filter: a combobox that finds one of 50,000 sources."""

import datetime
import json

import pytest

from browser import SEARCH
from fleet import count_work, open_fleet, work
from stack import wait_for
from test_access import violations
from test_states import answer_queries

MANY = 50_000
# Those in view, and some above and below.
MOST_OPTIONS = 40
# A server with these sources, of which the first has an event, the second two, and so on.
FLEET_OF_NAMES = """
const fetched = window.fetch, names = %s;
window.fetch = async (...given) => {
    const url = new URL(given[0], location.href), get = (name) => url.searchParams.get(name);
    if (!url.pathname.endsWith('/query')) return fetched(...given);
    const stamp = new Date().toJSON(), date = stamp.slice(0, 10), hour = Number(stamp.slice(11, 13));
    const rows = names.map((source, n) => ({ source, date, hour, eventCount: n + 1 }));
    const aggregates = rows.filter(({ source }) => get('source') === null || source === get('source'));
    return new Response(JSON.stringify({ aggregates, meta: { fetchedAt: stamp } }));
};
"""
# The elements of the legend, whose counts may change with each event.
LEGEND = 20


def state(page):
    """What a screen reader learns: is it open, the active option with its position and number, and what is announced."""
    return page.run("""
        const input = document.getElementById('source');
        const active = document.getElementById(input.getAttribute('aria-activedescendant'));
        return { open: input.getAttribute('aria-expanded') === 'true', text: input.value,
            active: active && [active.textContent, Number(active.getAttribute('aria-posinset')), Number(active.getAttribute('aria-setsize'))],
            selected: [...document.querySelectorAll('#source-list [aria-selected=true]')].map(({ textContent }) => textContent),
            announced: document.getElementById('source-region').textContent };""")


def in_view(page):
    """Whether the active option is in the visible part of the list."""
    return page.run("""
        const list = document.getElementById('source-list').getBoundingClientRect();
        const { top, bottom } = document.querySelector('#source-list [aria-selected=true]').getBoundingClientRect();
        return top >= list.top - 1 && bottom <= list.bottom + 1;""")


def listed(page):
    """Wait until the list of the sources has arrived."""
    wait_for(lambda: page.run("return asked.some((each) => each.endsWith('group_by=source'))"), "the sources to be asked for")
    page.module("await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")


@pytest.fixture
def many(page):
    open_fleet(page, MANY)
    listed(page)
    return page


def test_the_page_asks_for_totals_and_for_one_sources_rows_when_one_is_chosen(page):
    open_fleet(page, 20)
    listed(page)
    page.choose_source("host-00007")
    assert page.run("return asked") == ["days=7&group_by=hour", "days=7&group_by=source", "days=7&source=host-00007&group_by=hour"]
    assert page.text("#total") == f"{7 * 24 * 10:,} events"


@pytest.mark.firefox
def test_the_combobox_and_its_list_have_their_roles_and_names(many):
    page = many
    assert page.run("""
        const input = document.getElementById('source'), list = document.getElementById(input.getAttribute('aria-controls'));
        return [input.getAttribute('role'), input.getAttribute('aria-autocomplete'), input.labels[0].textContent,
            list.getAttribute('role'), list.getAttribute('aria-label'), input.getAttribute('aria-expanded'),
            document.getElementById('source-region').getAttribute('aria-live')];
    """) == ["combobox", "list", "Source", "listbox", "Sources", "false", "polite"]
    assert not page.visible("#source-popup")
    page.click("#source")
    assert page.visible("#source-popup")
    assert page.run("return [...document.querySelectorAll('#source-list > *')].every((each) => each.getAttribute('role') === 'option')")


@pytest.mark.firefox
def test_the_arrow_keys_move_through_all_options_and_enter_chooses(many):
    page = many
    page.focus("#source")
    assert not state(page)["open"]
    page.press("ArrowDown")
    assert state(page)["active"] == ["All sources", 1, MANY + 1]
    for place, name in enumerate(["host-00000", "host-00001", "host-00002"], 2):
        page.press("ArrowDown")
        assert state(page)["active"] == [name, place, MANY + 1] and state(page)["selected"] == [name]
    page.press("ArrowUp")
    assert state(page)["active"][0] == "host-00001"
    page.press("ArrowUp", "ArrowUp", "ArrowUp")
    # Around the end, without those between.
    assert state(page)["active"] == ["host-49999", MANY + 1, MANY + 1] and in_view(page)
    page.press("ArrowUp")
    assert state(page)["active"][0] == "host-49998" and in_view(page)
    assert len(page.options()) <= MOST_OPTIONS
    page.press("Enter")
    assert not page.visible("#source-popup")
    assert state(page) | {"selected": []} == {"open": False, "text": "host-49998", "active": None, "selected": [], "announced": ""}
    wait_for(lambda: "source host-49998" in page.run("return document.getElementById('total-of').textContent"), "it to be shown")
    # It is where the next look begins.
    page.press("ArrowDown")
    assert state(page)["active"][0] == "host-49998" and in_view(page)


@pytest.mark.firefox
def test_typing_searches_and_announces_how_many_match(many):
    page = many
    page.click("#source")
    assert state(page)["announced"] == "50,000 sources."
    page.type("#source", "HOST-1234")
    assert state(page)["announced"] == "10 sources match." and state(page)["open"]
    assert page.options() == [f"host-1234{n}" for n in range(10)]
    assert page.text("#source-note") == "10 sources match."
    page.press("ArrowDown", "ArrowDown")
    assert state(page)["active"] == ["host-12341", 2, 10]
    # A key that edits the text leaves the list.
    page.press("Home")
    assert state(page)["active"] is None
    assert page.run("return document.activeElement.selectionStart") == 0
    page.press("ArrowDown", "End")
    assert state(page)["active"] is None
    assert page.run("return document.activeElement.selectionStart") == len("HOST-1234")
    page.type("#source", "5")
    assert state(page)["announced"] == "1 source matches."
    # The only match needs no arrow key.
    page.press("Enter")
    assert state(page)["text"] == "host-12345" and not state(page)["open"]
    wait_for(lambda: page.run("return asked.at(-1)") == "days=7&source=host-12345&group_by=hour", "its rows to be asked for")


def test_names_that_differ_in_case_accents_or_normalization_are_found_and_kept_apart(page):
    # é as one code point and as two, and characters beyond the first 65,536.
    names = ["Café", "cafe", "cafe\u0301", "café", "\U0001f600", "\U0001f601", "İzmir", "<b>", " x", "__proto__", "All sources", "x" * 255]
    page.before_each_page(FLEET_OF_NAMES % json.dumps(names))
    page.open_loaded("steep_any")
    assert sorted(page.sources()) == sorted(set(names) - {"All sources"})
    for text, found in [("CAFÉ", ["Café", "cafe\u0301", "café"]), ("CAFE\u0301", ["Café", "cafe\u0301", "café"]), ("cafe", ["cafe"]),
                        ("\U0001f600", ["\U0001f600"]), ("İ", ["İzmir"]), ("All s", ["All sources"])]:
        assert sorted(page.run(SEARCH, text)) == sorted(found)
    for place, name in enumerate(names):
        page.run(SEARCH, name)
        page.press("Enter")
        assert state(page)["text"] == name
        wait_for(lambda count=place: page.text("#total") == f"{count + 1} {'event' if count == 0 else 'events'}", f"{name} to be shown")
    assert page.run("return document.querySelectorAll('#source-list b').length") == 0


@pytest.mark.firefox
def test_a_text_that_matches_nothing_chooses_nothing(many):
    page = many
    page.choose_source("host-00003")
    before = page.run("return asked.length")
    page.click("#source")
    page.type("#source", "nobody")
    assert state(page)["announced"] == "No source matches." and page.options() == []
    page.press("ArrowDown", "Enter")
    assert state(page)["open"] and state(page)["active"] is None
    page.press("Tab")
    assert not state(page)["open"] and state(page)["text"] == "host-00003"
    assert page.run("return asked.length") == before


def test_the_text_and_the_list_stay_while_another_window_has_the_focus(many):
    page = many
    page.type("#source", "host-12")
    # The browser reports this and leaves the document's focus where it is.
    page.run("document.getElementById('source').dispatchEvent(new FocusEvent('blur'))")
    assert state(page)["text"] == "host-12" and state(page)["open"]


def test_the_active_option_is_in_a_low_window(many):
    page = many
    # 1280 by 1024 pixels at a zoom of 400 %.
    page.set_width(320, 256)
    page.focus('input[name="days"]:checked')
    page.press("Tab", "ArrowDown")
    for _ in range(12):
        page.press("ArrowDown")
        top, bottom, height = page.run("const { top, bottom } = document.querySelector('#source-list [aria-selected=true]').getBoundingClientRect();"
                                       "return [top, bottom, innerHeight]")
        assert 0 <= top and bottom <= height
    assert page.run("return document.getElementById('source').getBoundingClientRect().top") >= 0


@pytest.mark.firefox
def test_escape_closes_the_list_and_then_clears_the_choice(many):
    page = many
    page.choose_source("host-00003")
    page.focus("#source")
    page.press("ArrowDown", "ArrowDown")
    assert state(page)["active"][0] == "host-00004"
    page.press("Escape")
    assert not state(page)["open"] and state(page)["text"] == "host-00003"
    page.press("Escape")
    assert state(page)["text"] == ""
    wait_for(lambda: page.text("#total-of").endswith("all sources"), "all sources to be shown")


@pytest.mark.firefox
def test_alt_and_the_arrow_keys_open_and_close_the_list_and_move_to_no_option(many):
    page = many
    page.focus("#source")
    page.press("ArrowDown", holding="Alt")
    assert state(page)["open"] and state(page)["active"] is None
    page.press("ArrowDown", "ArrowDown")
    assert state(page)["active"][0] == "host-00000"
    page.press("ArrowUp", holding="Alt")
    assert not state(page)["open"] and state(page)["active"] is None and state(page)["text"] == ""
    assert page.run("return document.activeElement.id") == "source"


@pytest.mark.firefox
def test_all_sources_are_shown_by_the_button_the_first_option_and_an_empty_text(many):
    page = many
    assert not page.visible("#source-clear")

    def is_cleared():
        return page.text("#total-of").endswith("all sources") and state(page)["text"] == "" and not page.visible("#source-clear")

    page.choose_source("host-00003")
    page.click("#source-clear")
    wait_for(is_cleared, "the button to clear it")
    assert page.run("return document.activeElement.id") == "source"
    page.choose_source("host-00003")
    page.click("#source")
    page.run("document.querySelector('#source-list').scrollTop = 0")
    wait_for(lambda: "All sources" in page.options(), "the first option")
    page.click("#source-list li:first-child")
    wait_for(is_cleared, "the option to clear it")
    page.choose_source("host-00003")
    page.click("#source")
    page.press("Backspace", "Enter")
    wait_for(is_cleared, "the empty text to clear it")


@pytest.mark.firefox
def test_a_click_chooses_an_option_and_a_click_elsewhere_closes_the_list(many):
    page = many
    page.click("#source")
    page.click("#source-list li:nth-child(3)")
    assert state(page)["text"] == "host-00001" and not state(page)["open"]
    assert page.run("return document.activeElement.id") == "source"
    page.click("#source")
    assert state(page)["open"]
    page.click("h1")
    assert not state(page)["open"] and state(page)["text"] == "host-00001"


def test_a_finger_opens_scrolls_and_chooses(many):
    page = many
    page.set_width(390, 844)

    def touch(x, *heights):
        page.cdp("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": heights[0]}])
        for y in heights[1:]:
            page.cdp("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": x, "y": y}])
        page.cdp("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def place(selector):
        return page.run("const { left, top } = document.querySelector(arguments[0]).getBoundingClientRect(); return [left + 20, top + 10]", selector)

    page.cdp("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        touch(*place("#source"))
        wait_for(lambda: state(page)["open"], "the list")
        x, y = place("#source-list")
        touch(x, *range(round(y) + 290, round(y) + 40, -10))
        # A touch of a list that still moves would only stop it.
        wait_for(lambda: page.module("""
            const list = document.getElementById('source-list'), { scrollTop } = list;
            await new Promise((done) => setTimeout(done, 100));
            return scrollTop > 100 && list.scrollTop === scrollTop;"""), "the list to come to rest")
        assert state(page)["open"]
        touch(x, y)
        wait_for(lambda: not state(page)["open"], "an option to be chosen")
        assert state(page)["text"].startswith("host-") and page.run("return document.activeElement.id") == "source"
    finally:
        page.cdp("Emulation.setTouchEmulationEnabled", enabled=False)


def test_50000_sources_cost_no_more_nodes_than_those_in_view(many):
    page = many
    count_work(page, "#source-list")
    page.click("#source")
    assert 10 <= len(page.options()) <= MOST_OPTIONS
    page.type("#source", "host-4")
    assert len(page.options()) <= MOST_OPTIONS and state(page)["announced"] == "10,000 sources match."
    page.run("document.getElementById('source-list').scrollTop = 1e9")
    wait_for(lambda: "host-49999" in page.options(), "the end of the list")
    assert len(page.options()) <= MOST_OPTIONS
    page.press("Escape")
    done = work(page)
    # Opening, six letters and the end.
    assert 10 <= done["created"] <= 8 * MOST_OPTIONS
    assert done["sorted"] <= 2 * MANY


def test_the_whole_list_can_be_scrolled_with_each_option_at_its_place(many):
    page = many
    page.click("#source")
    for part in (0.25, 0.5, 0.999):
        page.run("const list = document.getElementById('source-list'); list.scrollTop = arguments[0] * list.scrollHeight", part)
        first = wait_for(lambda: page.run("""
            const list = document.getElementById('source-list'), { top, bottom } = list.getBoundingClientRect();
            const seen = [...list.children].filter((each) => each.getBoundingClientRect().bottom > top + 1 && each.getBoundingClientRect().top < bottom - 1);
            return seen.length > 7 && seen.map(({ textContent }) => Number(textContent.slice(5)));"""), "the options in view")
        assert first == list(range(first[0], first[0] + len(first)))
        assert abs(first[0] - part * MANY) < 20


def live(page, *names):
    stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
    return page.add_events([{"source": name, "timestamp": stamp} for name in names])


def test_a_live_event_of_a_new_source_adds_one_entry(many):
    page = many
    page.click("#source")
    page.press("Escape")
    count_work(page, "#source-list")
    live(page, "host-00001-new")
    # The list is closed.
    done = work(page)
    assert (done["added"], done["removed"]) == (0, 0) and done["created"] <= LEGEND and done["sorted"] < 2000
    page.click("#source")
    assert page.options()[:4] == ["All sources", "host-00000", "host-00001", "host-00001-new"]
    assert state(page)["announced"] == "50,001 sources."
    # It did not have to be put in order again.
    assert work(page)["sorted"] < 2000
    page.press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown")
    active = state(page)["active"]
    assert active == ["host-00002", 5, MANY + 2]
    count_work(page, "#source-list")
    live(page, "host-00001-newer", "zebra")
    done = work(page)
    # One moved out of view.
    assert done["added"] == 1 and done["removed"] <= 1 and done["created"] <= LEGEND + 1 and done["sorted"] < 2000
    assert page.options()[3:6] == ["host-00001-new", "host-00001-newer", "host-00002"]
    assert state(page)["active"] == ["host-00002", 6, MANY + 4]
    assert page.text("#source-note") == "50,003 sources."


def test_a_live_event_of_a_known_source_changes_no_entry(many):
    page = many
    page.click("#source")
    count_work(page, "#source-list")
    live(page, "host-00000", "host-00001", "host-40000")
    done = work(page)
    assert (done["added"], done["removed"]) == (0, 0) and done["created"] <= LEGEND and done["sorted"] < 2000


def test_many_live_events_in_a_frame_are_drawn_once(many):
    page = many
    page.run("window.renders = 0; new PerformanceObserver((list) => {"
             " renders += list.getEntriesByName('steep: render').length; }).observe({ type: 'measure' });")
    count_work(page, "#source-list")
    live(page, *[f"flood-{n:04}" for n in range(2000)])
    assert work(page)["created"] <= LEGEND
    assert 1 <= wait_for(lambda: page.run("return renders"), "a frame") <= 3
    page.click("#source")
    page.type("#source", "flood-")
    assert state(page)["announced"] == "2,000 sources match."


def test_a_source_that_is_known_already_can_be_found_while_the_list_cannot_be_loaded(page, token):
    page.before_each_page("window.asked = []; const fetched = window.fetch; window.fetch = async (...given) => {"
                          " if (String(given[0]).includes('group_by=source')) throw new TypeError('offline'); return fetched(...given); };")
    page.open_loaded(token)
    live(page, "live-only")
    page.click("#source")
    wait_for(lambda: "Unable to load the others." in page.text("#source-note"), "the reason")
    assert "live-only" in page.options()
    # The heatmap needs no list.
    assert page.states() == []


def test_a_token_that_the_list_is_refused_for_ends_the_session(page, token):
    answer_queries(page, """
        if (!given[0].includes('group_by=source')) return fetched(...given);
        await new Promise((go) => { window.go = go; });
        return new Response(JSON.stringify({ error: 'invalid_token', message: 'The token has expired.' }), { status: 401 });""")
    page.open_loaded(token)
    page.click("#source")
    wait_for(lambda: "Fetching more…" in page.text("#source-note"), "the list to be asked for")
    page.run("go()")
    wait_for(lambda: page.visible("#sign-in"), "the form")
    assert page.text("#token-error") == "The token has expired."
    assert not state(page)["open"] and page.run("return document.activeElement.id") == "token"


@pytest.mark.parametrize("view", ["light", "dark", "narrow", "forced-colors"])
def test_axe_finds_no_violations_in_the_open_filter(many, axe, view):
    page = many
    page.set_width(*((390, 844) if view == "narrow" else (1200, 700)))
    page.set_media(prefers_color_scheme="dark" if view == "dark" else "light", prefers_reduced_motion="reduce",
                   forced_colors="active" if view == "forced-colors" else "none")
    page.click("#source")
    page.type("#source", "host-0")
    page.press("ArrowDown", "ArrowDown", "ArrowDown")
    assert violations(page, axe) == []
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    left, right = page.run("const { left, right } = document.getElementById('source-popup').getBoundingClientRect(); return [left, right]")
    assert left >= 0 and right <= page.run("return innerWidth")
    page.screenshot(f"filter-{view}")
    page.press("Escape")
    page.click("#source")
    page.type("#source", "nobody")
    assert violations(page, axe) == []
