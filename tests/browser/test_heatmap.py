"""heatmap.js, grid.js and scale.js, in a real browser."""

import pytest

pytestmark = pytest.mark.usefixtures("blank_page")


def test_hours_after_the_last_request_have_live_events_only(page):
    seen, partial, sums = page.module("""
        const { heatmap } = await import('/heatmap.js');
        const { hourOf } = await import('/time.js');
        const fetchedAt = Date.parse('2026-02-03T14:10:00Z'), now = Date.parse('2026-02-03T16:05:00Z');
        const live = new Map([[hourOf(now), 2], [hourOf(now) + 2, 1]]);
        const aggregates = [{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 5 }];
        const map = heatmap({ days: 7, source: null, aggregates, fetchedAt, live, now, timeZone: 'UTC' });
        const cells = map.days[0].cells.flat();
        return [cells.slice(13, 20).map(({ state, count, level }) => [state, count, level]),
                map.days.flatMap((day) => day.cells.flat().filter((each) => each.partial).map(({ local }) => [day.date, local.hour])),
                [map.sum, map.days[1].sum]];
    """)
    assert seen == [["count", 0, 0], ["count", 5, 5], ["unloaded", 0, 0], ["live", 2, 0], ["future", 0, 0], ["count", 1, 1],
                    ["future", 0, 0]]
    assert partial == [["2026-01-27", 14]]
    assert sums == [{"count": 8, "complete": False}, {"count": 0, "complete": True}]


def test_counts_from_before_the_servers_clock_was_set_back_are_shown_at_their_time(page):
    assert page.module("""
        const { heatmap } = await import('/heatmap.js');
        const map = heatmap({ days: 7, source: null, timeZone: 'UTC', live: new Map(), now: Date.parse('2026-02-03T14:10:00Z'),
            fetchedAt: Date.parse('2036-02-03T14:10:00Z'),
            aggregates: [{ source: 'a', date: '2036-02-03', hour: 14, eventCount: 5 }] });
        return [map.days.length, map.days[0].date, map.sum];
    """) == [8, "2036-02-03", {"count": 5, "complete": True}]


@pytest.mark.firefox
def test_the_focus_stays_on_its_day_when_a_new_day_starts(page):
    assert page.module("""
        const { createGrid } = await import('/grid.js');
        const { heatmap } = await import('/heatmap.js');
        const table = document.createElement('table'), seen = [];
        table.append(...['thead', 'tbody', 'tfoot'].map((name) => document.createElement(name)));
        document.body.append(table);
        const grid = createGrid(table);
        const render = (stamp) => {
            const now = Date.parse(stamp);
            grid.render(heatmap({ days: 7, source: null, aggregates: [], fetchedAt: now, live: new Map(), now, timeZone: 'UTC' }));
            const { activeElement } = document;
            return activeElement.getAttribute('aria-label')?.split(':')[0];
        };
        const press = (key, ctrlKey) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, ctrlKey, bubbles: true }));
        render('2026-02-03T23:59:00Z');
        table.querySelector('tbody tr:nth-child(3) td:nth-child(7)').focus();
        seen.push(render('2026-02-03T23:59:30Z'), render('2026-02-04T00:01:00Z'));
        press('ArrowDown');
        seen.push(render('2026-02-04T00:02:00Z'));
        press('End', true);
        seen.push(render('2026-02-05T00:01:00Z'));
        // Its day is no longer shown.
        press('ArrowUp');
        seen.push(render('2026-03-05T00:01:00Z'));
        table.remove();
        return seen;
    """) == ["Sunday, 1 February 2026, 05", "Sunday, 1 February 2026, 05", "Saturday, 31 January 2026, 05", "All days",
              "Thursday, 26 February 2026"]


@pytest.mark.parametrize("counts, steps", [
    ([], []),
    ([0, 0], []),
    ([4, 4, 4], [[3, 4, 4]]),
    ([1, 9], [[1, 1, 1], [5, 9, 9]]),
    (list(range(1, 11)), [[1, 1, 2], [2, 3, 4], [3, 5, 6], [4, 7, 8], [5, 9, 10]]),
    # A spike does not change the other colours.
    ([1, 2, 3, 4, 5, 6, 7, 8, 9, 100000], [[1, 1, 2], [2, 3, 4], [3, 5, 6], [4, 7, 8], [5, 9, 100000]]),
    ([0] * 50 + [1] * 50 + [2, 3], [[1, 1, 1], [5, 2, 3]]),
])
def test_colours_are_quantiles_of_the_counts_above_zero(page, counts, steps):
    assert page.module("""
        const { quantiles, levelOf } = await import('/scale.js');
        const steps = quantiles(given[0]);
        for (const count of given[0]) {
            const step = steps.find(({ from, to }) => count >= from && count <= to);
            if (levelOf(steps, count) !== (step?.level ?? 0)) throw new Error(`${count} has another colour`);
        }
        return steps.map(({ level, from, to }) => [level, from, to]);
    """, counts) == steps


@pytest.mark.parametrize("count, text", [(0, "0"), (9999, "9999"), (10000, "10k"), (12345, "12k"), (999_999, "999k"),
                                         (1_250_000, "1.2M"), (9_007_199_254_740_991, "9P")])
def test_any_count_fits_in_a_cell(page, count, text):
    assert page.module("return (await import('/grid.js')).short(given[0])", count) == text
