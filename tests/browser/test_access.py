"""Accessibility: keyboard, screen readers, contrast, small screens and print."""

import pytest

from fleet import open_fleet
from stack import ROOT, wait_for

WHERE = """
const cell = document.activeElement;
if (!cell.matches('#grid td')) return null;
const row = cell.parentElement;
return [[...document.querySelectorAll('#grid tbody tr, #grid tfoot tr')].indexOf(row), [...row.querySelectorAll('td')].indexOf(cell)];
"""


def focused(page):
    """The row and column of the focused cell."""
    return page.run(WHERE)


@pytest.mark.firefox
def test_the_grid_is_one_tab_stop_at_the_current_hour(page, token):
    page.open_loaded(token)
    assert page.run("return document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1
    page.focus('input[name="zone"]' if page.visible("#zones") else "#source")
    page.press("Tab")
    assert focused(page) is not None
    assert "current hour" in page.run("return document.activeElement.getAttribute('aria-label')")
    page.press("Tab")
    assert focused(page) is None


@pytest.mark.firefox
def test_arrow_keys_home_and_end_move_between_cells(page, token):
    page.open_loaded(token)
    rows = len(page.table())
    page.run("document.querySelector('#grid td[tabindex=\"0\"]').focus()")
    page.press("Home", holding="Control")
    assert focused(page) == [0, 0]
    for key, place in [("ArrowRight", [0, 1]), ("ArrowDown", [1, 1]), ("ArrowLeft", [1, 0]),
                       ("ArrowLeft", [1, 0]), ("End", [1, 24]), ("ArrowRight", [1, 24]),
                       ("ArrowUp", [0, 24]), ("ArrowUp", [0, 24]), ("Home", [0, 0])]:
        page.press(key)
        assert focused(page) == place
    page.press("End", holding="Control")
    assert focused(page) == [rows, 24]
    page.press("PageUp")
    assert focused(page) == [rows - 7, 24]
    assert page.run("return document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1
    # The tab stop stays on the cell when the grid loses the focus.
    page.run("document.activeElement.blur(); document.querySelector('#grid td[tabindex=\"0\"]').focus()")
    assert focused(page) == [rows - 7, 24]


@pytest.mark.firefox
def test_a_tooltip_shows_the_label_on_focus_and_on_hover_and_escape_closes_it(page, token):
    page.open_loaded(token)
    page.run("document.querySelector('#grid td[tabindex=\"0\"]').focus()")
    assert page.text("#tooltip") == page.run("return document.activeElement.getAttribute('aria-label')") != ""
    page.press("ArrowUp")
    assert page.text("#tooltip") == page.run("return document.activeElement.getAttribute('aria-label')")
    page.press("Escape")
    assert not page.visible("#tooltip")
    page.run("document.activeElement.blur()")
    cell = "#grid tbody tr:nth-child(3) td:nth-child(6)"
    page.hover(cell)
    wait_for(lambda: page.visible("#tooltip"), "the tooltip")
    page.screenshot("tooltip")
    assert page.text("#tooltip") == page.attribute(cell, "aria-label")
    page.press("Escape")
    assert not page.visible("#tooltip")


@pytest.mark.firefox
def test_a_cells_label_contains_its_day_hour_and_count(page, token):
    page.set_time_zone("Asia/Kolkata")
    page.open_loaded(token)
    date, cells = page.table()[1]
    label = cells[9]["label"]
    texts = page.run("return new Intl.DateTimeFormat('en-GB', { timeZone: 'UTC', weekday: 'long', day: 'numeric',"
                     " month: 'long', year: 'numeric' }).format(new Date(arguments[0]))", date)
    count = cells[9]["texts"][0]
    assert label == f"{texts}, 09:30–10:30: {count} event{'' if count == '1' else 's'}"


@pytest.mark.firefox
def test_the_table_has_a_caption_headers_and_a_live_region(page, token):
    page.open_loaded(token)
    caption, columns, rows, region = page.run("""return [document.querySelector('#grid caption').textContent,
        [...document.querySelectorAll('#grid thead th[scope=col]')].map(each => each.textContent),
        document.querySelectorAll('#grid tbody th[scope=row]').length,
        document.querySelector('[role=status]').textContent]""")
    assert "Events by hour in the last 7 days" in caption
    assert columns == ["Day", *[f"{hour:02}" for hour in range(24)], "Total"]
    assert rows == len(page.table())
    assert region == "7 days loaded."


def test_reduced_motion_turns_transitions_off(page, token):
    page.open_loaded(token)
    script = "return getComputedStyle(document.querySelector('#grid td')).transitionDuration"
    page.set_media(prefers_reduced_motion="no-preference")
    assert page.run(script) != "0s"
    page.set_media(prefers_reduced_motion="reduce")
    assert page.run(script) == "0s"


def test_with_forced_colors_cell_states_look_different(page, token):
    page.set_time_zone("UTC")
    page.open_loaded(token)
    page.set_media(forced_colors="active")
    styles = page.run("""return Object.fromEntries(['zero', 'future', 'unloaded', 'level-5'].map((look) => {
        const swatch = document.querySelector(`.swatch.${look}`) ?? document.querySelector(`.${look}`);
        const { borderTopStyle, borderTopWidth } = getComputedStyle(swatch);
        return [look, [borderTopStyle, borderTopWidth, swatch.textContent]];
    }))""")
    assert len({tuple(style) for style in styles.values()}) == 4, styles
    page.screenshot("forced-colors")


VIEWS = {
    "light": dict(prefers_color_scheme="light"),
    "dark": dict(prefers_color_scheme="dark"),
    "narrow": dict(prefers_color_scheme="light"),
}


def violations(page, axe):
    page.run(axe)
    return page.module("const { violations } = await axe.run(document, { resultTypes: ['violations'] });"
                        "return violations.map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html, failureSummary }) =>"
                        " `${html} ${failureSummary}`)])")


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_violations(page, token, axe, view):
    page.set_time_zone("Europe/Berlin")
    page.set_width(*((390, 844) if view == "narrow" else (1200, 600)))
    page.set_media(**VIEWS[view], prefers_reduced_motion="reduce")
    page.open()
    wait_for(lambda: page.visible("#sign-in"), "the form")
    assert violations(page, axe) == []
    page.screenshot(f"{view}-sign-in")
    page.open_loaded(token)
    assert violations(page, axe) == []
    page.screenshot(view)
    page.choose_days(30)
    page.screenshot(f"{view}-30-days")


@pytest.mark.parametrize("sources, label", [(1, "10 events"), (123, "1230 events"), (1234, "12,340 events, about 12k")])
def test_axe_finds_no_violations_in_counts_of_any_size(page, axe, sources, label):
    open_fleet(page, sources)
    assert violations(page, axe) == []
    assert page.attribute("#grid .count", "aria-label").endswith((f": {label}", f": {label}, current hour"))


def test_the_readmes_picture_is_small(page):
    picture = ROOT / "nginx" / "heatmap.png"
    assert f"]({picture.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 100_000


@pytest.mark.firefox
def test_on_a_narrow_screen_only_the_grid_scrolls_and_the_current_hour_is_in_view(page, token):
    page.set_width(390, 844)
    page.open_loaded(token)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    left, right = page.run("const { left, right } = document.querySelector('.current').getBoundingClientRect(); return [left, right]")
    header = page.run("return document.querySelector('#grid tbody th').getBoundingClientRect().right")
    assert header <= left + 1 and right <= 390


def test_axe_finds_no_violations_in_an_error(page, token, axe):
    page.before_each_page("const fetched = window.fetch; window.fetch = (...given) => String(given[0]).includes('/query?')"
                          " ? Promise.reject(new TypeError('x')) : fetched(...given);")
    page.set_media(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    page.open(token)
    wait_for(lambda: page.states() == ["error"], "the error")
    page.add_events([{"source": "live", "timestamp": "2026-02-03T14:10:00Z"}])
    assert violations(page, axe) == []
    page.screenshot("dark-error")


@pytest.mark.firefox
@pytest.mark.parametrize("width", [320, 640])
def test_the_focused_cell_is_never_behind_the_column_of_days(page, token, width):
    # 1280 pixels at 400 and at 200 percent.
    page.set_width(width, 700)
    page.open_loaded(token)
    page.run("document.querySelector('#grid td[tabindex=\"0\"]').focus()")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    for key in ["End", *["ArrowLeft"] * 24, "End", "Home"]:
        page.press(key)
        cell, days, right = page.run("""
            const { left, right } = document.activeElement.getBoundingClientRect();
            return [left, document.activeElement.parentElement.firstChild.getBoundingClientRect().right, right];""")
        assert days <= cell and right <= width, key


def test_the_printed_page_has_the_whole_grid_in_colour_and_no_controls(page, token):
    # A4 upright, with the browser's own margins.
    page.set_width(718, 1000)
    page.open_loaded(token, days=30)
    page.cdp("Emulation.setEmulatedMedia", media="print")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    cut, colours = page.run("""
        const frame = document.querySelector('.frame');
        return [frame.scrollWidth - frame.clientWidth, getComputedStyle(document.querySelector('#grid td.count')).printColorAdjust];""")
    assert cut <= 0 and colours == "exact"
    assert not any(page.visible(each) for each in ("#controls", "#sign-out", "footer"))
    assert page.visible("#as-of") and page.visible("#legend") and page.visible("#total")
    page.screenshot("print")


# The contrast of each kind of cell. axe-core skips texts of one character and striped backgrounds.
CONTRASTS = """
const rgb = (text) => [...text.matchAll(/rgb\\((\\d+), (\\d+), (\\d+)\\)/g)].map(([, ...parts]) => parts.map(Number));
const light = (colour) => colour.map((part) => part / 255).map((part) =>
    part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4).reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const behind = (element) => {
    const { backgroundColor, backgroundImage } = getComputedStyle(element);
    const own = rgb(`${backgroundColor} ${backgroundImage}`);
    return [...own, ...(rgb(backgroundColor).length ? [] : behind(element.parentElement))];
};
const cell = document.querySelector('#grid tbody td');
return ['count level-1', 'count level-2', 'count level-3', 'count level-4', 'count level-5', 'zero', 'live', 'unloaded', 'sum'].map((look) => {
    cell.className = look;
    return [look, Math.min(...behind(cell).map((colour) => ratio(rgb(getComputedStyle(cell).color)[0], colour)))];
});
"""


@pytest.mark.parametrize("contrast, least", [("no-preference", 4.5), ("more", 7)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_of_every_kind_of_cell_has_enough_contrast(page, token, axe, scheme, contrast, least):
    page.set_media(prefers_color_scheme=scheme, prefers_contrast=contrast, prefers_reduced_motion="reduce")
    page.open_loaded(token, days=30)
    page.screenshot(f"contrast-{contrast}-{scheme}")
    page.run(axe)
    rule = "color-contrast-enhanced" if least == 7 else "color-contrast"
    found = page.module("const { violations, passes } = await axe.run(document, { runOnly: [given[0]] });"
                        "return [passes.length, violations.flatMap(({ nodes }) => nodes.map(({ html }) => html.slice(0, 80)))]", rule)
    assert found == [1, []]
    contrasts = page.run(CONTRASTS)
    assert min(ratio for _, ratio in contrasts) >= least, contrasts


@pytest.mark.firefox
def test_a_right_to_left_name_does_not_reorder_the_words_around_it(page, token):
    name = "\u202eשלום"
    page.open_loaded(token)
    stamp = page.run("return new Date().toJSON()")
    page.add_events([{"source": name, "timestamp": stamp}])
    page.choose_source(name)
    for element in ("total-of", "caption"):
        assert f"\u2068source {name}\u2069" in page.run("return document.getElementById(arguments[0]).textContent", element)
