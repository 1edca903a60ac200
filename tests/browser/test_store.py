"""The modules by themselves, in a real browser with a clock, a server and a document that obey the test."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def somewhere(driver, installation):
    """Any document of the page's own origin, in which nothing else runs."""
    driver.get(f"{installation.url}/config.json")


# The store

def test_a_store_begins_idle_and_has_the_data_models_interface(page):
    assert page.with_fakes("""
        const store = make();
        return [store.historicData, store.historicDataStatus, store.historicDataFetchedAt, store.historicDataError,
                typeof store.fetchHistoricData, typeof store.clearHistoricData, typeof store.subscribe];
    """) == [[], "idle", None, None, "function", "function", "function"]


def test_it_tells_its_subscribers_that_it_loads_and_then_what_came(page):
    assert page.with_fakes("""
        const store = make(), told = [];
        const end = store.subscribe(() => told.push([store.historicDataStatus, store.historicData.length]));
        const done = store.fetchHistoricData(7);
        await server.asked[0].answer(good([row(3), row(4, { hour: 13 })]));
        await done;
        end();
        store.clearHistoricData();
        return told;
    """) == [["loading", 0], ["success", 2]]


def test_it_asks_with_the_token_in_a_header_and_nowhere_else(page):
    url, headers, more = page.with_fakes("""
        const store = make({ baseUrl: 'https://steep.example/functions/v1/' });
        store.fetchHistoricData(30, 'my & source');
        const { url, options } = server.asked[0];
        return [url, options.headers, [options.credentials, options.cache]];
    """)
    assert url == "https://steep.example/functions/v1/query?days=30&source=my+%26+source"
    assert headers == {"Authorization": "Bearer steep_token"}
    assert more == ["omit", "no-store"]


def test_it_caches_by_days_and_source(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        for (const [days, source] of [[7], [30], [7, 'a'], [7], [30], [7, 'a']]) {
            const done = store.fetchHistoricData(days, source);
            if (store.historicDataStatus === 'loading') {
                seen.push(store.historicData.length);
                await server.asked.at(-1).answer(good([row(server.asked.length)], days));
            }
            await done;
            seen.push(store.historicData[0].eventCount);
        }
        return seen;
    """) == [0, 1, 0, 2, 0, 3, 1, 2, 3]


def test_it_goes_stale_after_5_minutes_and_refreshes_itself(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.asked[0].answer(good([row(1)]));
        await clock.pass(299);
        seen.push(server.asked.length);
        await clock.pass(2);
        seen.push(server.asked.length, store.historicDataStatus, store.historicData[0].eventCount);
        await server.asked[1].answer(good([row(2)], 7, '2026-02-03T14:15:00Z'));
        return [...seen, store.historicDataStatus, store.historicData[0].eventCount];
    """) == [1, 2, "loading", 1, "success", 2]


def test_it_does_not_refresh_a_hidden_page_until_it_is_shown_again(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.asked[0].answer(good());
        screen.turn('hidden');
        await clock.pass(3000);
        seen.push(server.asked.length);
        screen.turn('visible');
        await settle();
        return [...seen, server.asked.length];
    """) == [1, 2]


def test_it_fetches_an_hour_that_just_ended_anew(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.asked[0].answer(good([row(1)], 7, '2026-02-03T14:59:30.000Z'));
        await clock.pass(29);
        seen.push(server.asked.length);
        await clock.pass(4);
        return [...seen, server.asked.length];
    """) == [1, 2]


def test_it_gives_up_after_5_seconds(page):
    before, after, sentence, aborted = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await clock.pass(4.9);
        const before = store.historicDataStatus;
        await clock.pass(0.2);
        return [before, store.historicDataStatus, store.historicDataError, server.asked[0].options.signal.aborted];
    """)
    assert (before, after, aborted) == ("loading", "error", True)
    assert "5 seconds" in sentence


def test_an_older_answer_never_overwrites_a_newer_one(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        server.deaf = true;
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        await server.asked[1].answer(good([row(7)]));
        seen.push(store.historicData[0].eventCount);
        await server.asked[0].answer(good([row(30)], 30));
        return [...seen, store.historicData[0].eventCount, store.historicDataStatus, store.getState().historicDays];
    """) == [7, 7, "success", 7]


def test_an_older_failure_leaves_a_newer_answer_alone(page):
    assert page.with_fakes("""
        const store = make();
        server.deaf = true;
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        await server.asked[1].answer(good());
        await server.asked[0].answer('{}', 503);
        return [store.historicDataStatus, store.historicDataError];
    """) == ["success", None]


def test_a_question_that_another_one_overtakes_is_ended(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        return server.asked.map(({ options }) => options.signal.aborted);
    """) == [True, False]


def test_what_was_cleared_does_not_come_back(page):
    assert page.with_fakes("""
        const store = make();
        server.deaf = true;
        store.fetchHistoricData(7);
        store.clearHistoricData();
        await server.asked[0].answer(good());
        await clock.pass(4000);
        return [store.historicData, store.historicDataStatus, server.asked.length];
    """) == [[], "idle", 1]


def test_a_question_that_is_on_its_way_is_not_put_twice(page):
    assert page.with_fakes("""
        const store = make();
        for (let n = 0; n < 10; n++) store.fetchHistoricData(7);
        return server.asked.length;
    """) == 1


def test_it_backs_off_after_an_error_with_growing_pauses(page):
    pauses = page.with_fakes("""
        const store = make();
        server.always = (request) => request.answer('{}', 503);
        store.fetchHistoricData(7);
        await clock.pass(3600);
        return server.asked.map(({ at }, n, all) => (n ? at - all[n - 1].at : 0)).slice(1);
    """)
    assert 12 <= len(pauses) <= 40
    assert 2000 <= pauses[0] <= 4000 and 4000 <= pauses[1] <= 8000 and 8000 <= pauses[2] <= 16000
    assert all(150_000 <= pause <= 300_000 for pause in pauses[8:])


def test_an_answer_ends_the_growing_of_the_pauses(page):
    assert page.with_fakes("""
        const store = make();
        server.always = (request) => request.answer('{}', 503);
        store.fetchHistoricData(7);
        await clock.pass(600);
        server.always = (request) => request.answer(good());
        await clock.pass(600);
        server.always = (request) => request.answer('{}', 503);
        while (store.historicDataStatus !== 'error') await clock.pass(1);
        return store.retryIn() <= 4000;
    """)


def test_a_dashboard_that_asks_in_a_loop_after_an_error_makes_no_loop_of_requests(page):
    assert page.with_fakes("""
        const store = make();
        store.subscribe(() => store.historicDataStatus === 'error' && setTimeout(() => store.fetchHistoricData(7), 0));
        server.always = (request) => request.answer('{}', 503);
        store.fetchHistoricData(7);
        for (let n = 0; n < 50; n++) { await settle(); store.fetchHistoricData(7); }
        return server.asked.length;
    """) == 1


def test_someone_who_retries_waits_for_no_pause_of_ours(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].fail();
        store.retryHistoricData();
        await server.asked[1].answer(good());
        return [server.asked.length, store.historicDataStatus];
    """) == [2, "success"]


@pytest.mark.parametrize("header", ["120", "Tue, 03 Feb 2026 14:12:00 GMT"])
def test_it_honours_retry_after_also_against_someone_who_retries(page, header):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.asked[0].answer('{}', 429, { 'Retry-After': given[0], Date: 'Tue, 03 Feb 2026 14:10:00 GMT' });
        await clock.pass(119);
        store.retryHistoricData();
        seen.push(server.asked.length, store.historicDataStatus);
        await clock.pass(2);
        return [...seen, server.asked.length];
    """, header) == [1, "error", 2]


def test_a_refused_token_is_not_tried_again_by_itself(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer({ error: 'invalid_token', message: 'The token is not valid.' }, 401);
        await clock.pass(7200);
        screen.turn('visible');
        return [server.asked.length, store.historicDataError, store.getState().historicDataErrorStatus];
    """) == [1, "The token is not valid.", 401]


def test_a_token_that_cant_be_sent_is_told_as_such(page):
    assert page.with_fakes("""
        const store = make({ getToken: () => 'steep_two words…' });
        store.fetchHistoricData(7);
        await clock.pass(7200);
        return [server.asked.length, store.historicDataError, store.getState().historicDataErrorStatus];
    """) == [0, "The token has characters that can’t be sent.", 401]


def test_answers_that_always_end_an_hour_make_no_loop_of_requests(page):
    asked = page.with_fakes("""
        const store = make();
        server.always = (request) => request.answer(good([], 7, '2026-02-03T14:59:59.990Z'));
        store.fetchHistoricData(7);
        await clock.pass(60);
        return server.asked.length;
    """)
    assert 2 <= asked <= 7


def test_being_connected_again_ends_a_pause_of_ours_and_no_other(page):
    assert page.with_fakes("""
        const seen = [], refusals = [[503, {}], [503, { 'Retry-After': '120' }], [401, {}]];
        for (const [status, headers] of refusals) {
            const defaultView = new EventTarget(), store = make({ document: Object.assign(screen, { defaultView }) });
            const before = server.asked.length;
            store.fetchHistoricData(7);
            await server.asked.at(-1).answer('{}', status, headers);
            defaultView.dispatchEvent(new Event('online'));
            seen.push(server.asked.length - before);
            store.close();
            defaultView.dispatchEvent(new Event('online'));
        }
        return [...seen, server.asked.length];
    """) == [2, 1, 1, 4]


@pytest.mark.parametrize("away, asked, time", [(8 * 3600, 2, "2026-02-03T22:10"), (30, 1, "2026-02-03T14:10"),
                                               (-8 * 3600, 1, "2026-02-03T14:10")])
def test_after_the_machine_slept_no_count_passes_for_fresh(page, away, asked, time):
    # While it sleeps performance.now() and timers may stand still; the clock on the wall goes on.
    nap, *seen = page.with_fakes("""
        const { setTimeout } = globalThis, { now } = Date, timers = [];
        let away = 0;
        globalThis.setTimeout = (action, delay) => timers.push({ action, delay });
        Date.now = () => now.call(Date) + away;
        try {
            const store = make({ clock: undefined });
            store.fetchHistoricData(7);
            await server.asked[0].answer(good());
            // The driver has timers too.
            const { action, delay } = timers.filter((timer) => timer.delay > 0).at(-1);
            away = given[0] * 1000;
            action();
            const seen = [delay, server.asked.length, new Date(store.now()).toJSON().slice(0, 16)];
            store.close();
            return seen;
        } finally {
            Object.assign(globalThis, { setTimeout });
            Date.now = now;
        }
    """, away)
    assert nap <= 15_000 and seen == [asked, time]


def test_a_failed_refresh_keeps_what_was_there(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer(good([row(5)]));
        await clock.pass(301);
        await server.asked[1].fail();
        return [store.historicDataStatus, store.historicData[0].eventCount];
    """) == ["error", 5]


def test_days_that_are_not_loaded_are_never_shown_with_those_of_others(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer(good([row(5)]));
        store.fetchHistoricData(30);
        const loading = store.historicData;
        await server.asked[1].fail();
        return [loading, store.historicData, store.historicDataFetchedAt, store.historicDataStatus];
    """) == [[], [], None, "error"]


def test_after_a_failure_what_is_cached_is_shown_without_further_ado(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer(good());
        store.fetchHistoricData(30);
        await server.asked[1].fail();
        let told = 0;
        store.subscribe(() => told++);
        store.fetchHistoricData(7);
        await clock.pass(60);
        return [store.historicDataStatus, told, server.asked.length];
    """) == ["success", 1, 2]


def test_without_a_base_url_nothing_is_ever_fetched(page):
    assert page.with_fakes("""
        const store = make({ baseUrl: '' });
        await store.fetchHistoricData(7);
        await store.retryHistoricData();
        screen.turn('visible');
        await clock.pass(4000);
        return [store.enabled, server.asked.length, store.historicDataStatus];
    """) == [False, 0, "idle"]


def test_the_time_is_the_servers_and_goes_on(page):
    assert page.with_fakes("""
        const store = make(), before = store.now();
        store.fetchHistoricData(7);
        await server.asked[0].answer(good());
        await clock.pass(61);
        return [before, new Date(store.now()).toJSON()];
    """) == [None, "2026-02-03T14:11:01.000Z"]


def test_a_refusal_tells_the_time_too_until_an_answer_does(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        const see = () => seen.push(new Date(store.now()).toJSON().slice(11, 19));
        store.fetchHistoricData(7);
        await server.asked[0].answer('{}', 503, { Date: 'Tue, 03 Feb 2026 14:05:00 GMT' });
        see();
        store.retryHistoricData();
        await server.asked[1].answer(good());
        see();
        store.fetchHistoricData(30);
        await server.asked[2].answer('{}', 503, { Date: 'Tue, 03 Feb 2026 14:05:00 GMT' });
        see();
        return seen;
    """) == ["14:05:00", "14:10:00", "14:10:00"]


def test_it_knows_the_earliest_request_whose_answer_may_be_shown_again(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        server.always = (request) => request.answer(good([], request.url.includes('days=30') ? 30 : 7));
        for (const [days, seconds] of [[7, 0], [30, 0], [30, 310]]) {
            await store.fetchHistoricData(days);
            await clock.pass(seconds);
            seen.push([store.requests, store.oldestRequest]);
        }
        return seen;
    """) == [[1, 1], [2, 1], [3, 3]]


HTML = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"


@pytest.mark.parametrize("answer, sentence", [
    (HTML, "not JSON"), ("", "not JSON"), ("null", "no list"), ("[]", "no list"), ('"x"', "no list"),
    ('{"aggregates": {}, "meta": {"fetchedAt": "2026-02-03T14:10:00Z"}}', "no list"),
    ('{"aggregates": []}', "what time"), ('{"aggregates": [], "meta": {"fetchedAt": 5}}', "what time"),
    *[(f'{{"aggregates": [], "meta": {{"fetchedAt": "{stamp}"}}}}', "what time")
      # The third would be the viewer's own time, the fourth a time that browsers make up.
      for stamp in ("yesterday", "2026", "2026-02-03T14:10:00", "yesterday 5", "9999-12-31T23:10:00Z")],
    ('{"aggregates": [], "meta": {"fetchedAt": "2026-02-03T14:10:00Z", "daysRequested": 30}}', "not for 7 days"),
    *[(f'{{"aggregates": [{{"source": "a", "date": "2026-02-03", "hour": 1, "eventCount": 1}}, {row}],'
       '"meta": {"fetchedAt": "2026-02-03T14:10:00Z", "daysRequested": 7}}', f"row 1 has no valid {field}")
      for row, field in [
          ("null", "source"), ("7", "source"), ('{"source": ""}', "source"), ('{"source": 1}', "source"),
          ('{"source": "a", "date": "2026-02-30"}', "date"), ('{"source": "a", "date": "tomorrow"}', "date"),
          ('{"source": "a", "date": "2026-02-03", "hour": 24}', "hour"),
          ('{"source": "a", "date": "2026-02-03", "hour": 1.5}', "hour"),
          ('{"source": "a", "date": "2026-02-03", "hour": "1"}', "hour"),
          *[(f'{{"source": "a", "date": "2026-02-03", "hour": 1, "eventCount": {count}}}', "eventCount")
            for count in ('"5"', "null", "-1", "1.5", "1e999", "[]", '"<img>"')]]],
])
def test_an_answer_that_cant_be_used_is_refused_with_a_sentence(page, answer, sentence):
    status, data, said = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer(given[0]);
        return [store.historicDataStatus, store.historicData, store.historicDataError];
    """, answer)
    assert (status, data) == ("error", [])
    assert sentence in said


def test_unknown_fields_and_any_order_of_rows_are_no_matter(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer({ ...good([row(1, { hour: 3, x: [1] }), row(2, { hour: 20 }), row(3, { hour: 4 })]), y: 1 });
        return [store.historicDataStatus, ...store.historicData.map((each) => each.hour), 'x' in store.historicData[0]];
    """) == ["success", 3, 20, 4, False]


def test_an_error_page_in_place_of_json_is_told_by_its_status(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.asked[0].answer(given[0], 502);
        return store.historicDataError;
    """, HTML) == "The server answered with status 502."


# Live events and the merge

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
def test_what_is_no_event_is_not_counted(page, event):
    assert page.module(MERGE + "return [live.add(given[0], 0), live.since(0, null).size]", event) == [False, 0]


def test_an_event_counts_once_before_during_and_after_the_fetch_that_finds_it(page):
    # Before the request: the answer has it. While it is on its way, and afterwards: the answer can't.
    assert page.module(MERGE + """
        const stamp = '2026-02-03T14:05:00Z', hour = readEvent(event(stamp)).hour;
        const shown = (rows, request) => mergeHours(historicHours(rows, null), live.since(request, null)).get(hour);
        const seen = [];
        live.add(event(stamp), 0);
        seen.push(shown([], 0));
        // The first request is sent, and one more event comes before its answer.
        live.add(event(stamp), 1);
        seen.push(shown([], 0));
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 1 }], 1));
        live.add(event(stamp), 1);
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 1 }], 1));
        // The second one finds all three.
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 3 }], 2));
        // The first answer is still shown.
        live.forgetBefore(1);
        seen.push(shown([{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 1 }], 1));
        live.forgetBefore(2);
        seen.push(live.since(0, null).size);
        return seen;
    """) == [1, 2, 2, 3, 3, 3, 0]


def test_live_counts_obey_the_source_filter(page):
    assert page.module(MERGE + """
        const stamp = '2026-02-03T14:05:00Z';
        for (const source of ['a', 'b', 'a']) live.add(event(stamp, source), 0);
        return [null, 'a', 'b', 'c'].map((source) => [...live.since(0, source).values()][0] ?? 0);
    """) == [3, 2, 1, 0]


def test_rows_of_several_sources_add_up_and_the_filter_holds_for_them_too(page):
    assert page.module(MERGE + """
        const rows = [{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 2 },
                      { source: 'b', date: '2026-02-03', hour: 14, eventCount: 5 }];
        return [null, 'a', 'b'].map((source) => [...historicHours(rows, source).values()][0]);
    """) == [7, 2, 5]


SOCKET = """
    const { listen } = await import('/socket.js');
    const sockets = [], pauses = [], events = [];
    class Socket { constructor(url) { this.url = url; sockets.push(this); } close() { this.closed = true; } }
    const later = (action, delay) => { pauses.push(delay); waiting = action; };
    let waiting = null;
    const end = listen('wss://live.example/', (event) => events.push(event), { WebSocket: Socket, setTimeout: later });
"""


def test_a_websocket_that_ends_is_opened_again_after_growing_pauses(page):
    pauses = page.module(SOCKET + """
        for (let n = 0; n < 12; n++) { sockets.at(-1).onclose(); waiting(); }
        return pauses;
    """)
    assert 500 <= pauses[0] <= 1000 and 1000 <= pauses[1] <= 2000 and 2000 <= pauses[2] <= 4000
    assert all(30_000 <= pause <= 60_000 for pause in pauses[6:])


def test_a_websocket_that_brings_something_is_forgiven_and_one_that_is_ended_stays_so(page):
    assert page.module(SOCKET + """
        for (let n = 0; n < 5; n++) { sockets.at(-1).onclose(); waiting(); }
        sockets.at(-1).onmessage({ data: '{"a": 1}' });
        sockets.at(-1).onmessage({ data: '<html>' });
        sockets.at(-1).onclose();
        const pause = pauses.at(-1);
        end();
        waiting();
        return [pause <= 1000, events, sockets.length];
    """) == [True, [{"a": 1}], 6]


def test_what_goes_wrong_with_an_event_is_not_hidden(page):
    assert page.module(SOCKET + """
        const told = [];
        listen('wss://live.example/', () => { throw new Error('a fault'); }, { WebSocket: Socket });
        try { sockets.at(-1).onmessage({ data: '{}' }); } catch ({ message }) { told.push(message); }
        return told;
    """) == ["a fault"]


# What each cell is

def test_of_an_hour_that_began_after_the_fetch_only_live_events_are_known(page):
    seen, partial, sums = page.module("""
        const { heatmap } = await import('/heatmap.js');
        const { hourOf } = await import('/time.js');
        const fetchedAt = Date.parse('2026-02-03T14:10:00Z'), now = Date.parse('2026-02-03T16:05:00Z');
        const live = new Map([[hourOf(now), 2], [hourOf(now) + 2, 1]]);
        const aggregates = [{ source: 'a', date: '2026-02-03', hour: 14, eventCount: 5 }];
        const map = heatmap({ days: 7, source: null, aggregates, fetchedAt, live, now, timeZone: 'UTC' });
        const cells = map.days[0].cells.flat();
        return [cells.slice(13, 20).map(({ state, count, level }) => [state, count, level]),
                map.days.flatMap((day) => day.cells.flat().filter((each) => each.partial).map(({ place }) => [day.date, place.hour])),
                [map.sum, map.days[1].sum]];
    """)
    assert seen == [["count", 0, 0], ["count", 5, 5], ["unloaded", 0, 0], ["live", 2, 0], ["future", 0, 0], ["count", 1, 1],
                    ["future", 0, 0]]
    assert partial == [["2026-01-27", 14]]
    assert sums == [{"count": 8, "whole": False}, {"count": 0, "whole": True}]


# The grid

def test_whoever_is_at_a_cell_stays_at_its_day_when_another_one_begins(page):
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
        // Its day is over and gone.
        press('ArrowUp');
        seen.push(render('2026-03-05T00:01:00Z'));
        table.remove();
        return seen;
    """) == ["Sunday, 1 February 2026, 05", "Sunday, 1 February 2026, 05", "Saturday, 31 January 2026, 05", "All days",
              "Thursday, 26 February 2026"]


# Colours

@pytest.mark.parametrize("counts, steps", [
    ([], []),
    ([0, 0], []),
    ([4, 4, 4], [[3, 4, 4]]),
    ([1, 9], [[1, 1, 1], [5, 9, 9]]),
    (list(range(1, 11)), [[1, 1, 2], [2, 3, 4], [3, 5, 6], [4, 7, 8], [5, 9, 10]]),
    # A spike has the last colour to itself and company from below; the others are as they were.
    ([1, 2, 3, 4, 5, 6, 7, 8, 9, 100000], [[1, 1, 2], [2, 3, 4], [3, 5, 6], [4, 7, 8], [5, 9, 100000]]),
    ([0] * 50 + [1] * 50 + [2, 3], [[1, 1, 1], [5, 2, 3]]),
])
def test_colours_are_quantiles_of_what_is_not_zero(page, counts, steps):
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
def test_a_cell_has_room_for_any_count(page, count, text):
    assert page.module("return (await import('/grid.js')).short(given[0])", count) == text
