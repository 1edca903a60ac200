"""live.js, merge.js and socket.js, in a real browser."""

import pytest

pytestmark = pytest.mark.usefixtures("blank_page")

MERGE = """
    const { createLive, readEvent } = await import('/live.js');
    const { historicHours, mergeHours } = await import('/merge.js');
    const live = createLive();
    const event = (timestamp, source = 'a') => ({ source, timestamp });
"""


def test_live_events_are_counted_by_utc_hour_whatever_their_offset(page):
    assert page.module(MERGE + """
        const hours = ['2026-02-03T14:59:59.999Z', '2026-02-03T20:29:00+05:30', '2026-02-03T09:00:00-05:00',
                       '2026-02-03t14:00:00z', '2026-02-03T15:00:00Z'].map((text) => readEvent(event(text)).hour);
        return hours.map((hour) => hour - hours[0]);
    """) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("event", [None, 5, "x", [], {}, {"source": "a"}, {"source": "", "timestamp": "2026-02-03T14:00:00Z"},
                                   {"source": "a", "timestamp": 5}, {"source": "a", "timestamp": "2026-02-03"},
                                   {"source": "a", "timestamp": "2026-02-03T14:00:00"}, {"source": "a", "timestamp": "now"},
                                   {"source": 5, "timestamp": "2026-02-03T14:00:00Z"},
                                   {"source": "a", "timestamp": "9999-12-31T12:00:00Z"},
                                   {"source": "a", "timestamp": "2026-13-03T14:00:00Z"}], ids=repr)
def test_an_invalid_event_is_not_counted(page, event):
    assert page.module(MERGE + "return [live.add(given[0], 0), live.since(0, null).size]", event) == [False, 0]


def test_an_event_is_counted_once_before_during_and_after_the_request_that_returns_it(page):
    # The answer includes events from before its request, but not those that arrive later.
    assert page.module(MERGE + """
        const stamp = '2026-02-03T14:05:00Z', hour = readEvent(event(stamp)).hour;
        const shown = (rows, request) => mergeHours(historicHours(rows, null), live.since(request, null)).get(hour);
        const seen = [];
        live.add(event(stamp), 0);
        seen.push(shown([], 0));
        // The first request is sent, and another event arrives before its answer.
        live.add(event(stamp), 1);
        seen.push(shown([], 0));
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 1 }], 1));
        live.add(event(stamp), 1);
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 1 }], 1));
        // The second answer includes all three.
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 3 }], 2));
        // The first answer is still shown.
        live.forgetBefore(1);
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 1 }], 1));
        live.forgetBefore(2);
        seen.push(live.since(0, null).size);
        return seen;
    """) == [1, 2, 2, 3, 3, 3, 0]


def test_the_source_filter_applies_to_live_events(page):
    assert page.module(MERGE + """
        const stamp = '2026-02-03T14:05:00Z';
        for (const source of ['a', 'b', 'a']) live.add(event(stamp, source), 0);
        return [null, 'a', 'b', 'c'].map((source) => [...live.since(0, source).values()][0] ?? 0);
    """) == [3, 2, 1, 0]


def test_live_events_are_counted_by_source_from_an_hour_and_a_request_on(page):
    assert page.module(MERGE + """
        const stamps = ['2026-02-03T13:59:59Z', '2026-02-03T14:00:00Z', '2026-02-03T16:00:00Z'];
        for (const stamp of stamps) live.add(event(stamp), 1);
        live.add(event(stamps[1], 'b'), 1);
        live.add(event(stamps[1], 'b'), 2);
        const { hour } = readEvent(event(stamps[1]));
        const seen = [0, 2, 3].map((request) => Object.fromEntries(live.sourcesSince(request, hour)));
        live.forgetBefore(2);
        return [...seen, Object.fromEntries(live.sourcesSince(0, hour))];
    """) == [{"a": 2, "b": 2}, {"b": 1}, {}, {"b": 1}]


def test_rows_of_several_sources_are_added_up_or_filtered(page):
    assert page.module(MERGE + """
        const rows = [{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 2 },
                      { source: 'b', date: '2026-02-03', hour: 14, eventCount: 5 }];
        return [null, 'a', 'b'].map((source) => [...historicHours(rows, source).values()][0]);
    """) == [7, 2, 5]


SOCKET = """
    const { listen } = await import('/socket.js');
    const sockets = [], delays = [], events = [];
    class Socket { constructor(url) { this.url = url; sockets.push(this); } close() { this.closed = true; } }
    const wait = (action, delay) => { delays.push(delay); reconnect = action; };
    let reconnect = null;
    const stop = listen('wss://live.example/', (event) => events.push(event), { WebSocket: Socket, setTimeout: wait });
"""


def test_the_websocket_reconnects_with_exponential_backoff(page):
    delays = page.module(SOCKET + """
        for (let n = 0; n < 12; n++) { sockets.at(-1).onclose(); reconnect(); }
        return delays;
    """)
    assert 500 <= delays[0] <= 1000 and 1000 <= delays[1] <= 2000 and 2000 <= delays[2] <= 4000
    assert all(30_000 <= delay <= 60_000 for delay in delays[6:])


def test_a_message_resets_the_backoff_and_a_stopped_websocket_does_not_reconnect(page):
    assert page.module(SOCKET + """
        for (let n = 0; n < 5; n++) { sockets.at(-1).onclose(); reconnect(); }
        sockets.at(-1).onmessage({ data: '{"a": 1}' });
        sockets.at(-1).onmessage({ data: '<html>' });
        sockets.at(-1).onclose();
        const delay = delays.at(-1);
        stop();
        reconnect();
        return [delay <= 1000, events, sockets.length];
    """) == [True, [{"a": 1}], 6]


def test_an_exception_of_the_event_handler_is_not_swallowed(page):
    assert page.module(SOCKET + """
        const errors = [];
        listen('wss://live.example/', () => { throw new Error('a fault'); }, { WebSocket: Socket });
        try { sockets.at(-1).onmessage({ data: '{}' }); } catch ({ message }) { errors.push(message); }
        return errors;
    """) == ["a fault"]
