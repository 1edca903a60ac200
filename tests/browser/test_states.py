"""Loading, empty and failed, each alone; and what the page is when it is told nothing."""

import contextlib
import datetime
import re
import threading

import pytest

from stack import wait_for

LOADING = "Fetching historic data…"
FAILED = "Unable to load historic data. Showing real-time events only."


def days_30(page):
    page.find('input[name="days"][value="30"]').click()


def answer_queries(page, script):
    """Let something else answer /query: the body of a function of (given) that returns a Response or a promise of one."""
    page.before_each_page("""
        const fetched = window.fetch;
        window.fetch = (...given) => {
            if (!String(given[0]).includes('/query?')) return fetched(...given);
            return (async () => { %s })();
        };""" % script)


def test_loading_is_said_alone_until_the_answer_is_there(page, token):
    answer_queries(page, "await new Promise((go) => { window.go = go; }); return fetched(...given);")
    page.open(token)
    wait_for(lambda: page.states() == ["loading"], "the page to load")
    assert page.text("#loading") == LOADING
    assert page.run("return document.getElementById('announcement').textContent") == LOADING
    assert page.table() == []
    page.run("window.go()")
    page.wait_loaded()
    assert page.states() == []


def test_30_days_are_never_drawn_from_the_data_of_7(page, token):
    answer_queries(page, "if (given[0].includes('days=30')) await new Promise((go) => { window.go = go; });"
                         "return fetched(...given);")
    page.open_loaded(token)
    days_30(page)
    wait_for(lambda: page.states() == ["loading"] and len(page.table()) > 8, "30 days to be on their way")
    looks = {look.split()[0] for _, row in page.table() for cell in row[:24] for look in cell["look"]}
    assert looks <= {"unloaded", "future", "outside", "skipped"}
    page.run("window.go()")
    wait_for(page.whole, "30 days to be shown")


def test_no_events_is_said_alone(page, token):
    answer_queries(page, "return new Response(JSON.stringify({ aggregates: [],"
                         " meta: { totalCount: 0, daysRequested: 7, fetchedAt: new Date().toJSON() } }));")
    page.open(token)
    page.wait_loaded()
    assert page.states() == ["empty"]
    assert page.text("#empty") == "No events in the last 7 days, all sources."
    assert {cell["texts"][0] for _, row in page.table() for cell in row[:24]} <= {"0", ""}


def test_with_the_database_stopped_it_says_so_shows_live_events_and_recovers_by_retry(page, token, stack):
    page.set_time_zone("UTC")
    keeper = stack.stop_database()
    try:
        page.open(token)
        wait_for(lambda: page.states() == ["error"], "the failure to be told", 20)
        assert page.text("#error-title") == FAILED
        assert page.text("#error-reason") and "503" not in page.text("#error-title")
        stamp = datetime.datetime.now(datetime.timezone.utc).isoformat()
        page.add_events([{"source": "live", "timestamp": stamp}] * 3)
        cells = [cell for _, row in page.table() for cell in row[:24]]
        assert [cell["texts"] for cell in cells if "live" in cell["look"][0].split()] == [["3"]]
        assert all(cell["texts"] == ["?"] for cell in cells if "unloaded" in cell["look"][0].split())
        assert not [cell for cell in cells if "zero" in cell["look"][0].split()]
        page.screenshot("error")
    finally:
        stack.start_database(keeper)
    # What it asks for by itself may be on its way already.
    with contextlib.suppress(Exception):
        page.find("#retry").click()
    wait_for(lambda: page.states() == [] and page.loaded(), "the counts to be shown", 30)


def test_retry_asks_at_once_and_leaves_focus_in_the_card(page, token):
    page.before_each_page("window.asked = 0;")
    answer_queries(page, "if (++window.asked === 1) throw new TypeError('away'); return fetched(...given);")
    page.open(token)
    wait_for(lambda: page.states() == ["error"], "the failure to be told")
    # By itself it would wait for two seconds at least.
    assert page.run("document.getElementById('retry').click(); return window.asked") == 2
    assert page.run("return document.activeElement.id") == "heatmap-title"
    page.wait_loaded()
    assert page.states() == []


def test_with_everything_stopped_it_says_so_and_recovers_when_it_is_back(page, token, installation):
    page.open_loaded(token)
    installation.stop()
    try:
        days_30(page)
        wait_for(lambda: page.states() == ["error"], "the failure to be told")
        assert page.text("#error-title") == FAILED
        assert page.visible("#retry")
        # What was loaded is still there for whoever goes back to it.
        page.find('input[name="days"][value="7"]').click()
        wait_for(lambda: page.states() == [] and page.whole(), "7 days to be shown")
        days_30(page)
        wait_for(lambda: page.states() == ["error"], "the failure to be told")
    finally:
        installation.start()
    with contextlib.suppress(Exception):
        page.find("#retry").click()
    wait_for(lambda: page.states() == [] and page.whole(), "the counts to be shown", 30)


def test_a_failed_refresh_says_of_when_the_counts_are_that_it_still_shows(page, token):
    page.before_each_page("window.away = 0; const now = performance.now.bind(performance);"
                          "performance.now = () => now() + window.away;")
    answer_queries(page, "if (window.away) throw new TypeError('away'); return fetched(...given);")
    page.open_loaded(token)
    before = [[cell["texts"] for cell in row[:24]] for _, row in page.table()]
    # As if the page had been hidden for five minutes and were shown again.
    page.run("window.away = 301e3; document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(lambda: page.states() == ["error"], "the failure to be told")
    assert re.fullmatch(r"Unable to load historic data\. Showing the counts of \w+ \d+ \w+, \d\d:\d\d and real-time events\.",
                        page.text("#error-title"))
    assert [[cell["texts"] for cell in row[:24]] for _, row in page.table()][-5:] == before[-5:]


@pytest.mark.parametrize("answer, sentence", [
    ("new Response('<!DOCTYPE html><h1>502 Bad Gateway</h1>', { status: 502 })", "The server answered with status 502."),
    ("new Response('<!DOCTYPE html><h1>Hello</h1>')", "The server’s answer is not JSON."),
    ("new Response(JSON.stringify({ aggregates: [{ source: 'a', date: '2026-02-03', hour: 1, eventCount: '<b>5</b>' }],"
     " meta: { fetchedAt: new Date().toJSON() } }))", "The server’s answer can’t be used: row 0 has no valid eventCount."),
    ("new Response(JSON.stringify({ error: 'x', message: '<img src=x onerror=alert(1)>' }), { status: 500 })",
     "<img src=x onerror=alert(1)>"),
], ids=["error page", "html", "count", "message"])
def test_an_answer_that_cant_be_used_is_told_in_a_sentence(page, token, answer, sentence):
    answer_queries(page, f"return {answer};")
    page.open(token)
    wait_for(lambda: page.states() == ["error"], "the failure to be told")
    assert page.text("#error-title") == FAILED
    assert page.text("#error-reason") == sentence
    assert page.run("return document.querySelectorAll('main img').length") == 0


@pytest.mark.parametrize("body", ["<html>", "null", "{}", '{"baseUrl": 5, "webSocketUrl": ""}'])
def test_a_broken_configuration_is_told_in_a_sentence(page, token, body):
    page.before_each_page(f"window.fetch = async () => new Response({body!r});")
    page.open(token)
    wait_for(lambda: page.visible("#broken"), "the failure to be told")
    assert "configuration could not be read" in page.text("#broken")


def test_without_a_base_url_there_is_no_card_and_nothing_is_asked(page, token, configure):
    configure(base_url="")
    page.open(token)
    wait_for(lambda: page.run("return performance.getEntries().some(({ name }) => name.endsWith('config.json'))"), "its start")
    assert page.module("await new Promise((done) => setTimeout(done, 300)); return true")
    assert not page.visible("#heatmap") and not page.visible("#sign-in") and not page.visible("#forget")
    assert not page.run("return performance.getEntries().some(({ name }) => name.includes('query'))")
    assert page.visible("h1") and page.visible("footer")


def test_live_events_come_from_the_websocket_that_is_configured(page, token, configure, stack, installation):
    with event_server(stack) as (port, push):
        configure(web_socket_url=f"wss://localhost:{port}/live")
        page.open_loaded(token)
        before = total(page)
        wait_for(lambda: push('{"source": "socket", "timestamp": "%s", "id": "evt_1"}'
                              % datetime.datetime.now(datetime.timezone.utc).isoformat()), "the page to listen")
        wait_for(lambda: "socket" in page.sources(), "the event to be counted")
        assert total(page) == before + 1
        push("<html>")
        push('{"source": 5}')
    # The connection is gone; the page is as it was.
    assert page.states() == [] and total(page) == before + 1


@pytest.mark.parametrize("url", ["wss://", "ftp://live.example/", "wss://live.example/#all"])
def test_an_address_that_is_no_websockets_costs_the_live_events_and_nothing_else(page, token, configure, url):
    configure(web_socket_url=url)
    page.open_loaded(token)
    assert total(page) > 0 and page.states() == []


def total(page):
    return int(page.text("#total").split()[0].replace(",", ""))


@contextlib.contextmanager
def event_server(stack):
    """A WebSocket server with the stack's certificate: its port, and a function that sends a message to everyone."""
    import asyncio
    import ssl

    import websockets

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(stack.state / "tls" / "server.crt", stack.state / "tls" / "server.key")
    listening = set()
    loop = asyncio.new_event_loop()

    async def serve(socket, *_):
        listening.add(socket)
        await socket.wait_closed()
        listening.discard(socket)

    async def begin():
        return await websockets.serve(serve, "127.0.0.1", 0, ssl=tls)

    server = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def push(message):
        async def send():
            for socket in list(listening):
                await socket.send(message)
            return len(listening)
        return asyncio.run_coroutine_threadsafe(send(), loop).result(10)

    async def end():
        server.close()
        await server.wait_closed()

    try:
        yield server.sockets[0].getsockname()[1], push
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_the_policy_names_what_is_configured_and_nothing_else(configure, installation):
    with installation.stack.client() as client:
        assert "connect-src 'self';" in client.get("/").headers["Content-Security-Policy"]
    configure(base_url="https://steep.example/functions/v1", web_socket_url="wss://live.example/events")
    with installation.stack.client() as client:
        policy = client.get("/").headers["Content-Security-Policy"]
        assert "default-src 'self'; connect-src 'self' https://steep.example wss://live.example;" in policy
        assert "unsafe" not in policy
        refused = client.post("/config.json")
        assert (refused.status_code, refused.json()["error"]) == (405, "method_not_allowed")
