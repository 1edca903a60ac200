"""store.js with a fake clock, server and document, in a real browser."""

import pytest

pytestmark = pytest.mark.usefixtures("blank_page")


def test_a_new_store_is_idle_and_has_the_data_models_interface(page):
    assert page.with_fakes("""
        const store = make();
        return [store.historicData, store.historicDataStatus, store.historicDataFetchedAt, store.historicDataError,
                typeof store.fetchHistoricData, typeof store.clearHistoricData, typeof store.subscribe];
    """) == [[], "idle", None, None, "function", "function", "function"]


def test_subscribers_are_called_when_loading_starts_and_when_the_answer_arrives(page):
    assert page.with_fakes("""
        const store = make(), calls = [];
        const unsubscribe = store.subscribe(() => calls.push([store.historicDataStatus, store.historicData.length]));
        const done = store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([row(3), row(4, { hour: 13 })]));
        await done;
        unsubscribe();
        store.clearHistoricData();
        return calls;
    """) == [["loading", 0], ["success", 2]]


def test_the_token_is_sent_in_a_header_only(page):
    url, headers, more = page.with_fakes("""
        const store = make({ baseUrl: 'https://steep.example/functions/v1/' });
        store.fetchHistoricData(30, 'my & source');
        const { url, options } = server.requests[0];
        return [url, options.headers, [options.credentials, options.cache]];
    """)
    assert url == "https://steep.example/functions/v1/query?days=30&source=my+%26+source"
    assert headers == {"Authorization": "Bearer steep_token"}
    assert more == ["omit", "no-store"]


def test_answers_are_cached_by_days_and_source(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        for (const [days, source] of [[7], [30], [7, 'a'], [7], [30], [7, 'a']]) {
            const done = store.fetchHistoricData(days, source);
            if (store.historicDataStatus === 'loading') {
                seen.push(store.historicData.length);
                await server.requests.at(-1).answer(bodyOf([row(server.requests.length)], days));
            }
            await done;
            seen.push(store.historicData[0].eventCount);
        }
        return seen;
    """) == [0, 1, 0, 2, 0, 3, 1, 2, 3]


def test_data_is_refreshed_after_5_minutes(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([row(1)]));
        await clock.advance(299);
        seen.push(server.requests.length);
        await clock.advance(2);
        seen.push(server.requests.length, store.historicDataStatus, store.historicData[0].eventCount);
        await server.requests[1].answer(bodyOf([row(2)], 7, '2026-02-03T14:15:00Z'));
        return [...seen, store.historicDataStatus, store.historicData[0].eventCount];
    """) == [1, 2, "loading", 1, "success", 2]


def test_a_hidden_page_is_not_refreshed_until_it_is_visible(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf());
        screen.setVisibility('hidden');
        await clock.advance(3000);
        seen.push(server.requests.length);
        screen.setVisibility('visible');
        await settle();
        return [...seen, server.requests.length];
    """) == [1, 2]


def test_data_is_refreshed_when_the_hour_ends(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([row(1)], 7, '2026-02-03T14:59:30.000Z'));
        await clock.advance(29);
        seen.push(server.requests.length);
        await clock.advance(4);
        return [...seen, server.requests.length];
    """) == [1, 2]


def test_a_request_times_out_after_5_seconds(page):
    before, after, sentence, aborted = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await clock.advance(4.9);
        const before = store.historicDataStatus;
        await clock.advance(0.2);
        return [before, store.historicDataStatus, store.historicDataError, server.requests[0].options.signal.aborted];
    """)
    assert (before, after, aborted) == ("loading", "error", True)
    assert "5 seconds" in sentence


def test_a_slow_answer_is_waited_for_as_long_as_it_arrives(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await clock.advance(4.9);
        const answer = await server.requests[0].begin();
        for (const letter of JSON.stringify(bodyOf([row(5)])).match(/.{1,10}/g)) {
            await clock.advance(4.9);
            await answer.send(letter);
        }
        const before = [store.historicDataStatus, server.requests.length];
        await clock.advance(4.9);
        await answer.end();
        return [before, store.historicDataStatus, store.historicData[0].eventCount, server.requests.length];
    """) == [["loading", 1], "success", 5, 1]


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_an_answer_that_stops_fails_5_seconds_after_its_last_part(page, parts):
    before, after, sentence, aborted = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await clock.advance(3);
        const answer = await server.requests[0].begin();
        for (let n = 0; n < given[0]; n++) {
            await clock.advance(3);
            await answer.send('{');
        }
        await clock.advance(4.9);
        const before = store.historicDataStatus;
        await clock.advance(0.2);
        return [before, store.historicDataStatus, store.historicDataError, server.requests[0].options.signal.aborted];
    """, parts)
    assert (before, after, aborted) == ("loading", "error", True)
    assert sentence == "The server’s answer stopped for 5 seconds."


def test_after_an_answer_that_stopped_the_next_one_is_shown(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin();
        await answer.send(JSON.stringify(bodyOf()).slice(0, 30));
        server.onRequest = (request) => request.answer(bodyOf([row(5)]));
        await clock.advance(9.1);
        return [store.historicDataStatus, store.historicData[0].eventCount, server.requests.length];
    """) == ["success", 5, 2]


def test_an_answer_that_trickles_is_given_up_after_5_minutes(page):
    seconds, sentence, aborted, requests = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin();
        let seconds = 0;
        for (; seconds < 3600 && store.historicDataStatus === 'loading'; seconds++) {
            await clock.advance(1);
            await answer.send(' ');
        }
        return [seconds, store.historicDataError, server.requests[0].options.signal.aborted, server.requests.length];
    """)
    assert 295 <= seconds <= 305
    assert (sentence, aborted, requests) == ("The server’s answer was not complete after 5 minutes.", True, 1)


def test_an_answer_that_never_ends_is_given_up_after_128_mib(page):
    mebibytes, sentence, aborted = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin(), part = new Uint8Array(2 ** 20).fill(32);
        let mebibytes = 0;
        for (; mebibytes < 200 && store.historicDataStatus === 'loading'; mebibytes++) {
            await answer.send(part);
        }
        return [mebibytes, store.historicDataError, server.requests[0].options.signal.aborted];
    """)
    assert (mebibytes, aborted) == (129, True)
    assert sentence == "The server’s answer is larger than 128 MiB."


def test_an_answer_whose_connection_breaks_is_an_error(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin();
        await answer.send(JSON.stringify(bodyOf()).slice(0, 30));
        await answer.cut();
        return [store.historicDataStatus, store.historicDataError, store.retryIn() <= 4000];
    """) == ["error", "The connection broke before the server’s answer was complete.", True]


def test_an_answer_shorter_than_its_content_length_broke_off_unless_it_is_complete(page):
    # Firefox does not report that the connection broke. A compressed answer may be longer than its text.
    assert page.with_fakes("""
        const whole = JSON.stringify(bodyOf()), page = '<p>Größe</p>', seen = [];
        for (const [text, length] of [[whole.slice(0, 30), 1000], ['', 1000], [page, 14], [page, 13], [whole, 1000]]) {
            const store = make();
            store.fetchHistoricData(7);
            const answer = await server.requests.at(-1).begin(200, { 'Content-Length': length });
            await answer.send(text);
            await answer.end();
            seen.push(store.historicDataError);
            store.close();
        }
        return seen;
    """) == [*["The connection broke before the server’s answer was complete."] * 2, *["The server’s answer is not JSON."] * 2, None]


@pytest.mark.parametrize("ending", ["await answer.cut()", "await clock.advance(5.1)",
                                    "for (let n = 0; n < 4; n++) { await clock.advance(1.2); await answer.send('{'); } await clock.advance(0.3)"],
                         ids=["cut", "stopped", "trickles"])
def test_the_status_of_an_error_counts_even_if_its_body_does_not_arrive(page, ending):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin(429, { 'Retry-After': '120' });
        await answer.send('{"message": "Too many');
        %s;
        store.retryHistoricData();
        const { historicDataErrorStatus } = store.getState();
        return [historicDataErrorStatus, store.historicDataError, store.retryIn() > 100e3, server.requests.length];
    """ % ending) == [429, "The server answered with status 429.", True, 1]


def test_a_character_that_arrives_in_two_parts_is_read_correctly(page):
    assert page.with_fakes("""
        const store = make(), bytes = new TextEncoder().encode(JSON.stringify(bodyOf([row(1, { source: 'ä€😀' })])));
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin();
        for (const byte of bytes) {
            await answer.send(new Uint8Array([byte]));
        }
        await answer.end();
        return store.historicData[0].source;
    """) == "ä€😀"


def test_a_slow_answer_delays_neither_the_servers_clock_nor_the_refresh_at_the_full_hour(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin();
        await answer.send(JSON.stringify(bodyOf([row(1)], 7, '2026-02-03T14:58:00Z')));
        for (let n = 0; n < 15; n++) {
            await clock.advance(4);
            await answer.send(' ');
        }
        await answer.end();
        seen.push(store.historicDataStatus, new Date(store.now()).toJSON());
        await clock.advance(59);
        seen.push(server.requests.length);
        await clock.advance(4);
        return [...seen, server.requests.length];
    """) == ["success", "2026-02-03T14:59:00.000Z", 1, 2]


def test_an_answer_that_took_longer_than_the_hour_is_shown_before_the_refresh(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        const answer = await server.requests[0].begin();
        await answer.send(JSON.stringify(bodyOf([row(1)], 7, '2026-02-03T14:59:50Z')));
        for (let n = 0; n < 15; n++) {
            await clock.advance(4);
            await answer.send(' ');
        }
        await answer.end();
        seen.push(store.historicDataStatus, server.requests.length);
        await clock.advance(9);
        seen.push(server.requests.length);
        await clock.advance(2);
        return [...seen, server.requests.length];
    """) == ["success", 1, 1, 2]


def test_a_new_query_cancels_an_answer_that_is_arriving(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(30);
        const answer = await server.requests[0].begin();
        await answer.send('{');
        store.fetchHistoricData(7);
        await server.requests[1].answer(bodyOf());
        await clock.advance(10);
        return [server.requests[0].options.signal.aborted, store.historicDataStatus, clock.timers.size];
    """) == [True, "success", 1]


def test_every_function_works_without_the_store(page):
    assert page.with_fakes("""
        const seen = [];
        for (const name of Object.keys(make()).filter((name) => typeof make()[name] === 'function')) {
            const store = make(), given = { fetchHistoricData: [7], subscribe: [() => {}] }[name] ?? [];
            const call = store[name];
            store.fetchHistoricData(7);
            call(...given);
            seen.push([name, store.historicDataStatus]);
        }
        return seen;
    """) == [["getState", "loading"], ["fetchHistoricData", "loading"], ["retryHistoricData", "loading"],
             ["clearHistoricData", "idle"], ["subscribe", "loading"], ["now", "loading"], ["retryIn", "loading"],
             ["close", "idle"]]


def test_an_older_answer_never_overwrites_a_newer_one(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        server.ignoresAbort = true;
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        await server.requests[1].answer(bodyOf([row(7)]));
        seen.push(store.historicData[0].eventCount);
        await server.requests[0].answer(bodyOf([row(30)], 30));
        return [...seen, store.historicData[0].eventCount, store.historicDataStatus, store.getState().historicDays];
    """) == [7, 7, "success", 7]


def test_an_older_answer_never_ends_the_wait_for_a_newer_one(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        server.ignoresAbort = true;
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([row(30)], 30));
        seen.push(store.historicDataStatus, store.historicData.length);
        await server.requests[1].answer(bodyOf([row(7)]));
        return [...seen, store.historicDataStatus, store.historicData[0].eventCount];
    """) == ["loading", 0, "success", 7]


def test_an_older_failure_never_replaces_a_newer_answer(page):
    assert page.with_fakes("""
        const store = make();
        server.ignoresAbort = true;
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        await server.requests[1].answer(bodyOf());
        await server.requests[0].answer('{}', 503);
        return [store.historicDataStatus, store.historicDataError];
    """) == ["success", None]


def test_a_new_query_cancels_the_pending_one(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(30);
        store.fetchHistoricData(7);
        return server.requests.map(({ options }) => options.signal.aborted);
    """) == [True, False]


def test_an_answer_that_arrives_after_clear_is_ignored(page):
    assert page.with_fakes("""
        const store = make();
        server.ignoresAbort = true;
        store.fetchHistoricData(7);
        store.clearHistoricData();
        await server.requests[0].answer(bodyOf());
        await clock.advance(4000);
        const after = [store.historicData, store.historicDataStatus, server.requests.length];
        // Perhaps by another viewer, with a token that allows less.
        store.fetchHistoricData(7);
        return [...after, store.historicData, store.historicDataStatus, server.requests.length];
    """) == [[], "idle", 1, [], "loading", 2]


def test_a_pending_query_is_not_sent_twice(page):
    assert page.with_fakes("""
        const store = make();
        for (let n = 0; n < 10; n++) store.fetchHistoricData(7);
        return server.requests.length;
    """) == 1


def test_errors_are_retried_with_exponential_backoff(page):
    delays = page.with_fakes("""
        const store = make();
        server.onRequest = (request) => request.answer('{}', 503);
        store.fetchHistoricData(7);
        await clock.advance(3600);
        return server.requests.map(({ at }, n, all) => (n ? at - all[n - 1].at : 0)).slice(1);
    """)
    assert 12 <= len(delays) <= 40
    assert 2000 <= delays[0] <= 4000 and 4000 <= delays[1] <= 8000 and 8000 <= delays[2] <= 16000
    assert all(150_000 <= delay <= 300_000 for delay in delays[8:])


def test_an_answer_resets_the_backoff(page):
    assert page.with_fakes("""
        const store = make();
        server.onRequest = (request) => request.answer('{}', 503);
        store.fetchHistoricData(7);
        await clock.advance(600);
        server.onRequest = (request) => request.answer(bodyOf());
        await clock.advance(600);
        server.onRequest = (request) => request.answer('{}', 503);
        while (store.historicDataStatus !== 'error') await clock.advance(1);
        return store.retryIn() <= 4000;
    """)


def test_fetching_in_a_loop_after_an_error_sends_no_more_requests(page):
    assert page.with_fakes("""
        const store = make();
        store.subscribe(() => store.historicDataStatus === 'error' && setTimeout(() => store.fetchHistoricData(7), 0));
        server.onRequest = (request) => request.answer('{}', 503);
        store.fetchHistoricData(7);
        for (let n = 0; n < 50; n++) { await settle(); store.fetchHistoricData(7); }
        return server.requests.length;
    """) == 1


def test_a_manual_retry_skips_the_backoff(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].fail();
        store.retryHistoricData();
        await server.requests[1].answer(bodyOf());
        return [server.requests.length, store.historicDataStatus];
    """) == [2, "success"]


@pytest.mark.parametrize("header", ["120", "Tue, 03 Feb 2026 14:12:00 GMT"])
def test_retry_after_also_applies_to_a_manual_retry(page, header):
    assert page.with_fakes("""
        const store = make(), seen = [];
        store.fetchHistoricData(7);
        await server.requests[0].answer('{}', 429, { 'Retry-After': given[0], Date: 'Tue, 03 Feb 2026 14:10:00 GMT' });
        await clock.advance(119);
        store.retryHistoricData();
        seen.push(server.requests.length, store.historicDataStatus);
        await clock.advance(2);
        return [...seen, server.requests.length];
    """, header) == [1, "error", 2]


def test_a_refused_token_is_not_retried(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer({ error: 'invalid_token', message: 'The token is not valid.' }, 401);
        await clock.advance(7200);
        screen.setVisibility('visible');
        return [server.requests.length, store.historicDataError, store.getState().historicDataErrorStatus];
    """) == [1, "The token is not valid.", 401]


def test_a_token_with_invalid_characters_is_an_error_without_a_request(page):
    assert page.with_fakes("""
        const store = make({ getToken: () => 'steep_two words…' });
        store.fetchHistoricData(7);
        await clock.advance(7200);
        return [server.requests.length, store.historicDataError, store.getState().historicDataErrorStatus];
    """) == [0, "The token contains invalid characters.", 401]


def test_answers_just_before_the_full_hour_cause_no_loop_of_requests(page):
    requests = page.with_fakes("""
        const store = make();
        server.onRequest = (request) => request.answer(bodyOf([], 7, '2026-02-03T14:59:59.990Z'));
        store.fetchHistoricData(7);
        await clock.advance(60);
        return server.requests.length;
    """)
    assert 2 <= requests <= 7


def test_going_online_skips_the_backoff_but_not_retry_after(page):
    assert page.with_fakes("""
        const seen = [], errors = [[503, {}], [503, { 'Retry-After': '120' }], [401, {}]];
        for (const [status, headers] of errors) {
            const defaultView = new EventTarget(), store = make({ document: Object.assign(screen, { defaultView }) });
            const before = server.requests.length;
            store.fetchHistoricData(7);
            await server.requests.at(-1).answer('{}', status, headers);
            defaultView.dispatchEvent(new Event('online'));
            seen.push(server.requests.length - before);
            store.close();
            defaultView.dispatchEvent(new Event('online'));
        }
        return [...seen, server.requests.length];
    """) == [2, 1, 1, 4]


@pytest.mark.parametrize("asleep, requests, time", [(8 * 3600, 2, "2026-02-03T22:10"), (30, 1, "2026-02-03T14:10"),
                                               (-8 * 3600, 1, "2026-02-03T14:10")])
def test_data_is_refreshed_after_the_machine_slept(page, asleep, requests, time):
    # While the machine sleeps, performance.now() and timers may stop; Date.now() does not.
    delay, *seen = page.with_fakes("""
        const { setTimeout } = globalThis, { now } = Date, timers = [];
        let asleep = 0;
        globalThis.setTimeout = (action, delay) => timers.push({ action, delay });
        Date.now = () => now.call(Date) + asleep;
        try {
            const store = make({ clock: undefined });
            store.fetchHistoricData(7);
            await server.requests[0].answer(bodyOf());
            // The last one: the driver sets timers, too.
            const { action, delay } = timers.filter((timer) => timer.delay > 0).at(-1);
            asleep = given[0] * 1000;
            action();
            const seen = [delay, server.requests.length, new Date(store.now()).toJSON().slice(0, 16)];
            store.close();
            return seen;
        } finally {
            Object.assign(globalThis, { setTimeout });
            Date.now = now;
        }
    """, asleep)
    assert delay <= 15_000 and seen == [requests, time]


def test_a_failed_refresh_keeps_the_old_data(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([row(5)]));
        await clock.advance(301);
        await server.requests[1].fail();
        return [store.historicDataStatus, store.historicData[0].eventCount];
    """) == ["error", 5]


def test_data_of_other_days_is_never_shown(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([row(5)]));
        store.fetchHistoricData(30);
        const loading = store.historicData;
        await server.requests[1].fail();
        return [loading, store.historicData, store.historicDataFetchedAt, store.historicDataStatus];
    """) == [[], [], None, "error"]


def test_after_a_failure_cached_data_is_shown_without_a_request(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf());
        store.fetchHistoricData(30);
        await server.requests[1].fail();
        let calls = 0;
        store.subscribe(() => calls++);
        store.fetchHistoricData(7);
        await clock.advance(60);
        return [store.historicDataStatus, calls, server.requests.length];
    """) == ["success", 1, 2]


def test_without_a_base_url_no_request_is_sent(page):
    assert page.with_fakes("""
        const store = make({ baseUrl: '' });
        await store.fetchHistoricData(7);
        await store.retryHistoricData();
        screen.setVisibility('visible');
        await clock.advance(4000);
        return [store.enabled, server.requests.length, store.historicDataStatus];
    """) == [False, 0, "idle"]


def test_now_follows_the_servers_clock(page):
    assert page.with_fakes("""
        const store = make(), before = store.now();
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf());
        await clock.advance(61);
        return [before, new Date(store.now()).toJSON()];
    """) == [None, "2026-02-03T14:11:01.000Z"]


def test_an_errors_date_sets_the_time_until_an_answer_does(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        const addTime = () => seen.push(new Date(store.now()).toJSON().slice(11, 19));
        store.fetchHistoricData(7);
        await server.requests[0].answer('{}', 503, { Date: 'Tue, 03 Feb 2026 14:05:00 GMT' });
        addTime();
        store.retryHistoricData();
        await server.requests[1].answer(bodyOf());
        addTime();
        store.fetchHistoricData(30);
        await server.requests[2].answer('{}', 503, { Date: 'Tue, 03 Feb 2026 14:05:00 GMT' });
        addTime();
        return seen;
    """) == ["14:05:00", "14:10:00", "14:10:00"]


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Sat, 01 Jan 275760 00:00:00 GMT", "5"])
def test_an_invalid_date_of_an_error_does_not_set_the_time(page, date):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer('{}', 503, { Date: given[0] });
        return store.now();
    """, date) is None


def test_oldest_request_is_the_oldest_one_in_the_cache(page):
    assert page.with_fakes("""
        const store = make(), seen = [];
        server.onRequest = (request) => request.answer(bodyOf([], request.url.includes('days=30') ? 30 : 7));
        for (const [days, seconds] of [[7, 0], [30, 0], [30, 310]]) {
            await store.fetchHistoricData(days);
            await clock.advance(seconds);
            seen.push([store.requests, store.oldestRequest]);
        }
        return seen;
    """) == [[1, 1], [2, 1], [3, 3]]


@pytest.mark.parametrize("group_by", ["hour", "source"])
def test_totals_are_an_option_of_the_store(page, group_by):
    assert page.with_fakes("""
        const store = make({ groupBy: given[0] });
        store.fetchHistoricData(30, 'a');
        return server.requests[0].url;
    """, group_by) == f"https://steep.example/query?days=30&source=a&group_by={group_by}"


def test_totals_by_hour_are_rows_of_date_hour_and_count(page):
    assert page.with_fakes("""
        const store = make({ groupBy: 'hour' });
        store.fetchHistoricData(7);
        const rows = [[15, 2], [14, 9]].map(([hour, eventCount]) => ({ date: '2026-02-03', hour, eventCount, x: 1 }));
        await server.requests[0].answer(bodyOf(rows));
        return store.historicData;
    """) == [{"date": "2026-02-03", "hour": 15, "eventCount": 2}, {"date": "2026-02-03", "hour": 14, "eventCount": 9}]


def test_totals_by_source_have_the_most_events_first(page):
    assert page.with_fakes("""
        const store = make({ groupBy: 'source' });
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([['b', 3], ['a', 3], ['c', 7]].map(([source, eventCount]) => ({ source, eventCount }))));
        return store.historicData;
    """) == [{"source": "c", "eventCount": 7}, {"source": "a", "eventCount": 3}, {"source": "b", "eventCount": 3}]


# A server that does not know group_by ignores it.
ROWS_OF_SOURCES = """
    const rows = [row(1, { hour: 15, source: 'b' }), row(2), row(4, { source: 'b' }), row(8, { date: '2026-02-02' })];
    const store = make({ groupBy: given[0] });
    store.fetchHistoricData(7, given[1]);
    await server.requests[0].answer(bodyOf(rows));
    return store.historicData.map(Object.values);
"""


@pytest.mark.parametrize("source, totals", [
    (None, [["2026-02-03", 15, 1], ["2026-02-03", 14, 6], ["2026-02-02", 14, 8]]),
    ("b", [["2026-02-03", 15, 1], ["2026-02-03", 14, 4]]),
])
def test_rows_of_each_source_are_added_up_by_hour(page, source, totals):
    assert page.with_fakes(ROWS_OF_SOURCES, "hour", source) == totals


def test_rows_of_each_hour_are_added_up_by_source(page):
    assert page.with_fakes(ROWS_OF_SOURCES, "source", None) == [["a", 10], ["b", 5]]


@pytest.mark.parametrize("group_by, row, field", [
    ("hour", "null", "date"), ("hour", '{"hour": 1, "eventCount": 1}', "date"),
    ("hour", '{"date": "2026-02-03", "eventCount": 1}', "hour"), ("hour", '{"date": "2026-02-03", "hour": 1}', "eventCount"),
    ("hour", '{"source": 5, "date": "2026-02-03", "hour": 1, "eventCount": 1}', "source"),
    ("source", "null", "source"), ("source", '{"eventCount": 1}', "source"), ("source", '{"source": "", "eventCount": 1}', "source"),
    ("source", '{"source": "a", "eventCount": -1}', "eventCount"),
])
def test_an_invalid_row_of_totals_is_an_error(page, group_by, row, field):
    assert page.with_fakes("""
        const store = make({ groupBy: given[0] });
        store.fetchHistoricData(7);
        await server.requests[0].answer(bodyOf([JSON.parse(given[1])]));
        return [store.historicData, store.historicDataError];
    """, group_by, row) == [[], f"The server’s answer is invalid: row 0 has no valid {field}."]


HTML = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"


@pytest.mark.parametrize("answer, sentence", [
    (HTML, "not JSON"), ("", "not JSON"), ("null", "not a list"), ("[]", "not a list"), ('"x"', "not a list"),
    ('{"aggregates": {}, "meta": {"fetchedAt": "2026-02-03T14:10:00Z"}}', "not a list"),
    ('{"aggregates": []}', "not a timestamp"), ('{"aggregates": [], "meta": {"fetchedAt": 5}}', "not a timestamp"),
    *[(f'{{"aggregates": [], "meta": {{"fetchedAt": "{stamp}"}}}}', "not a timestamp")
      # Date.parse accepts the third as local time, and the fourth in some browsers.
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
def test_an_invalid_answer_is_an_error(page, answer, sentence):
    status, data, error = page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer(given[0]);
        return [store.historicDataStatus, store.historicData, store.historicDataError];
    """, answer)
    assert (status, data) == ("error", [])
    assert sentence in error


def test_unknown_fields_and_the_order_of_rows_do_not_matter(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer({ ...bodyOf([row(1, { hour: 3, x: [1] }), row(2, { hour: 20 }), row(3, { hour: 4 })]), y: 1 });
        return [store.historicDataStatus, ...store.historicData.map((each) => each.hour), 'x' in store.historicData[0]];
    """) == ["success", 3, 20, 4, False]


def test_an_error_page_that_is_not_json_is_reported_by_its_status(page):
    assert page.with_fakes("""
        const store = make();
        store.fetchHistoricData(7);
        await server.requests[0].answer(given[0], 502);
        return store.historicDataError;
    """, HTML) == "The server answered with status 502."
