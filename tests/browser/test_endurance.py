"""The page under load: many live events, many sources and large counts."""

import datetime

from stack import wait_for


def test_a_flood_of_live_events_is_counted_completely_and_leaves_no_measurements(page, token, capsys):
    page.set_time_zone("UTC")
    page.before_each_page("window.renders = 0; new PerformanceObserver((list) => {"
                          " renders += list.getEntriesByName('steep: render').length; }).observe({ type: 'measure' });")
    page.open_loaded(token, days=30)
    before = total(page)
    stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
    # 1000 events per second for 5 seconds, in frames of a sixtieth of a second.
    frames = page.module("""
        const { addEvent } = await import('/page.js');
        const frames = [];
        let last = performance.now();
        for (let sent = 0; sent < 5000;) {
            for (let n = 0; n < 17 && sent < 5000; n++) addEvent({ source: `flood-${sent++ % 50}`, timestamp: given[0] });
            await new Promise(requestAnimationFrame);
            frames.push(performance.now() - last);
            last = performance.now();
        }
        return frames;""", stamp)
    wait_for(lambda: total(page) == before + 5000, "all of them to be counted")
    drawn, kept = page.run("return [window.renders, performance.getEntriesByType('measure').length]")
    assert drawn > 100 and kept == 0
    with capsys.disabled():
        print(f"\nbrowser: with 1000 live events per second, a frame takes {sorted(frames)[len(frames) // 2]:.1f} ms (median)")


def test_50_sources_of_255_bytes_and_counts_of_a_billion_fit(page, token):
    page.before_each_page("""
        const fetched = window.fetch;
        window.fetch = async (...given) => {
            if (!String(given[0]).includes('/query?')) return fetched(...given);
            const daysRequested = given[0].includes('days=30') ? 30 : 7, aggregates = [], now = Date.now();
            for (let hour = 0; hour <= 24 * daysRequested; hour++) {
                const stamp = new Date(now - hour * 36e5).toJSON();
                for (let source = 0; source < 50; source++) {
                    aggregates.push({ source: `${source}`.padEnd(255, 'x'), date: stamp.slice(0, 10),
                        hour: Number(stamp.slice(11, 13)), eventCount: 1e9 });
                }
            }
            return new Response(JSON.stringify({ aggregates, meta: { daysRequested, fetchedAt: new Date(now).toJSON() } }));
        };""")
    page.set_time_zone("UTC")
    page.set_width(320, 700)
    page.open_loaded(token, days=30)
    assert total(page) == 721 * 50 * 10**9
    assert len(page.sources()) == 50
    texts = {text for _, row in page.table() for cell in row[:24] for text in cell["texts"] if text}
    assert texts == {"50G"}
    page.choose_source("7".ljust(255, "x"))
    assert total(page) == 721 * 10**9
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    cut = page.run("return [...document.querySelectorAll('#grid td')].filter((td) => td.scrollWidth > td.clientWidth + 1).length")
    assert cut == 0


def total(page):
    return int(page.text("#total").split()[0].replace(",", ""))
