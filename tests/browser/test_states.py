"""The notices for loading, no events and errors, and the page's configuration."""

import contextlib
import datetime
import re
import threading

import pytest

from front_proxy import at_a_sub_path, base_url_setting
from stack import wait_for

LOADING = "Fetching historic data…"
FAILED = "Unable to load historic data. Showing real-time events only."


def days_30(page):
    page.click('input[name="days"][value="30"]')


def answer_queries(page, script):
    """Replace fetch for /query: the script is the body of an async function of (given) that returns a Response."""
    page.before_each_page("""
        const fetched = window.fetch;
        window.fetch = (...given) => {
            if (!String(given[0]).includes('/query?')) return fetched(...given);
            return (async () => { %s })();
        };""" % script)


@pytest.mark.firefox
def test_only_the_loading_notice_is_shown_until_the_answer_arrives(page, token):
    answer_queries(page, "await new Promise((go) => { window.go = go; }); return fetched(...given);")
    page.open(token)
    wait_for(lambda: page.states() == ["loading"], "the page to load")
    assert page.text("#loading") == LOADING
    assert page.run("return document.getElementById('announcement').textContent") == LOADING
    assert page.table() == []
    page.run("window.go()")
    page.wait_loaded()
    assert page.states() == []


@pytest.mark.firefox
def test_30_days_are_never_drawn_with_the_data_of_7(page, token):
    answer_queries(page, "if (given[0].includes('days=30')) await new Promise((go) => { window.go = go; });"
                         "return fetched(...given);")
    page.open_loaded(token)
    days_30(page)
    wait_for(lambda: page.states() == ["loading"] and len(page.table()) > 8, "30 days to be loading")
    looks = {look.split()[0] for _, row in page.table() for cell in row[:24] for look in cell["look"]}
    assert looks <= {"unloaded", "future", "outside", "skipped"}
    page.run("window.go()")
    wait_for(page.is_complete, "30 days to be shown")


@pytest.mark.firefox
def test_only_the_notice_for_no_events_is_shown(page, token):
    answer_queries(page, "return new Response(JSON.stringify({ aggregates: [],"
                         " meta: { totalCount: 0, daysRequested: 7, fetchedAt: new Date().toJSON() } }));")
    page.open(token)
    page.wait_loaded()
    assert page.states() == ["empty"]
    assert page.text("#empty") == "No events in the last 7 days, all sources."
    assert {cell["texts"][0] for _, row in page.table() for cell in row[:24]} <= {"0", ""}


@pytest.mark.firefox
def test_with_the_database_stopped_an_error_and_live_events_are_shown_and_retry_recovers(page, token, stack):
    page.set_time_zone("UTC")
    keeper = stack.stop_database()
    try:
        page.open(token)
        wait_for(lambda: page.states() == ["error"], "the error", 20)
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
    # The button may disappear, if the page retries at the same moment.
    with contextlib.suppress(Exception):
        page.click("#retry")
    wait_for(lambda: page.states() == [] and page.loaded(), "the counts to be shown", 30)


@pytest.mark.firefox
def test_retry_sends_a_request_at_once_and_keeps_the_focus_in_the_card(page, token):
    page.before_each_page("window.requests = 0;")
    answer_queries(page, "if (++window.requests === 1) throw new TypeError('offline'); return fetched(...given);")
    page.open(token)
    wait_for(lambda: page.states() == ["error"], "the error")
    # The backoff is at least two seconds.
    assert page.run("document.getElementById('retry').click(); return window.requests") == 2
    assert page.run("return document.activeElement.id") == "heatmap-title"
    page.wait_loaded()
    assert page.states() == []


@pytest.mark.firefox
def test_with_the_server_stopped_an_error_is_shown_and_the_page_recovers(page, token, installation):
    page.open_loaded(token)
    installation.stop()
    try:
        days_30(page)
        wait_for(lambda: page.states() == ["error"], "the error")
        assert page.text("#error-title") == FAILED
        assert page.visible("#retry")
        # The cached days are still available.
        page.click('input[name="days"][value="7"]')
        wait_for(lambda: page.states() == [] and page.is_complete(), "7 days to be shown")
        days_30(page)
        wait_for(lambda: page.states() == ["error"], "the error")
    finally:
        installation.start()
    with contextlib.suppress(Exception):
        page.click("#retry")
    wait_for(lambda: page.states() == [] and page.is_complete(), "the counts to be shown", 30)


@pytest.mark.firefox
def test_after_a_failed_refresh_the_time_of_the_counts_is_shown(page, token):
    page.before_each_page("window.elapsed = 0; const now = performance.now.bind(performance);"
                          "performance.now = () => now() + window.elapsed;")
    answer_queries(page, "if (window.elapsed) throw new TypeError('offline'); return fetched(...given);")
    page.open_loaded(token)
    before = [[cell["texts"] for cell in row[:24]] for _, row in page.table()]
    # As if the page had been hidden for five minutes.
    page.run("window.elapsed = 301e3; document.dispatchEvent(new Event('visibilitychange'))")
    wait_for(lambda: page.states() == ["error"], "the error")
    assert re.fullmatch(r"Unable to load historic data\. Showing counts from \w+ \d+ \w+, \d\d:\d\d and real-time events\.",
                        page.text("#error-title"))
    assert [[cell["texts"] for cell in row[:24]] for _, row in page.table()][-5:] == before[-5:]


@pytest.mark.parametrize("answer, sentence", [
    ("new Response('<!DOCTYPE html><h1>502 Bad Gateway</h1>', { status: 502 })", "The server answered with status 502."),
    ("new Response('<!DOCTYPE html><h1>Hello</h1>')", "The server’s answer is not JSON."),
    ("new Response(JSON.stringify({ aggregates: [{ source: 'a', date: '2026-02-03', hour: 1, eventCount: '<b>5</b>' }],"
     " meta: { fetchedAt: new Date().toJSON() } }))", "The server’s answer is invalid: row 0 has no valid eventCount."),
    ("new Response(JSON.stringify({ error: 'x', message: '<img src=x onerror=alert(1)>' }), { status: 500 })",
     "<img src=x onerror=alert(1)>"),
], ids=["error page", "html", "count", "message"])
def test_an_invalid_answer_is_shown_as_an_error(page, token, answer, sentence):
    answer_queries(page, f"return {answer};")
    page.open(token)
    wait_for(lambda: page.states() == ["error"], "the error")
    assert page.text("#error-title") == FAILED
    assert page.text("#error-reason") == sentence
    assert page.run("return document.querySelectorAll('main img').length") == 0


@pytest.mark.parametrize("body", ["<html>", "null", "{}", '{"baseUrl": 5, "webSocketUrl": ""}'])
def test_an_invalid_configuration_is_shown_as_an_error(page, token, body):
    page.before_each_page(f"window.fetch = async () => new Response({body!r});")
    page.open(token)
    wait_for(lambda: page.visible("#configuration-error"), "the error")
    assert page.text("#configuration-error").startswith("Unable to load the page’s configuration.")


@pytest.mark.firefox
@pytest.mark.parametrize("stall", [
    "new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))",
    "new Response(new ReadableStream({ start(body) { signal.addEventListener('abort', () => body.error(signal.reason)) } }))",
], ids=["no answer", "no body"])
def test_a_configuration_that_does_not_arrive_is_shown_as_an_error(page, token, stall):
    page.before_each_page("""
        const later = window.setTimeout;
        window.setTimeout = (action, delay) => later(action, delay / 100);
        window.fetch = async (_, { signal = new AbortController().signal }) => %s;""" % stall)
    page.open(token)
    wait_for(lambda: page.visible("#configuration-error"), "the error")
    assert page.text("#configuration-error").startswith("Unable to load the page’s configuration.")


def test_without_a_base_url_there_is_no_heatmap_and_no_request(page, token, configure):
    configure(base_url="")
    page.open(token)
    wait_for(lambda: page.run("return performance.getEntries().some(({ name }) => name.endsWith('config.json'))"), "the configuration to be read")
    assert page.module("await new Promise((done) => setTimeout(done, 300)); return true")
    assert not page.visible("#heatmap") and not page.visible("#sign-in") and not page.visible("#sign-out")
    assert not page.run("return performance.getEntries().some(({ name }) => name.includes('query'))")
    assert page.visible("h1") and page.visible("footer")


def test_the_page_loads_its_counts_at_a_sub_path_of_a_proxy(page, token, configure, stack):
    configure(base_url=base_url_setting())
    with at_a_sub_path(stack) as url:
        page.url = f"{url}/steep"
        page.open_loaded(token)
        assert page.visible("#heatmap") and total(page) > 0


def test_a_live_event_before_the_configuration_is_counted(page, token):
    page.before_each_page("""
        const fetchNow = window.fetch;
        window.fetch = async (...given) => {
            if (given[0] === 'config.json') await new Promise((go) => { window.go = go; });
            return fetchNow(...given);
        };""")
    answer_queries(page, "throw new TypeError('offline');")
    page.open(token)
    page.add_events([{"source": "early", "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat()}])
    page.run("window.go()")
    wait_for(lambda: page.states() == ["error"], "the error")
    assert total(page) == 1


@pytest.mark.firefox
def test_live_events_arrive_from_the_configured_websocket(page, token, configure, stack, installation):
    with event_server(stack) as (port, push):
        configure(web_socket_url=f"wss://localhost:{port}/live")
        page.open_loaded(token)
        before = total(page)
        wait_for(lambda: push('{"source": "socket", "timestamp": "%s", "id": "evt_1"}'
                              % datetime.datetime.now(datetime.timezone.utc).isoformat()), "the page to connect")
        wait_for(lambda: "socket" in page.sources(), "the event to be counted")
        assert total(page) == before + 1
        push("<html>")
        push('{"source": 5}')
    # The connection is closed; the page does not change.
    assert page.states() == [] and total(page) == before + 1


@pytest.mark.firefox
@pytest.mark.parametrize("url", ["wss://", "ftp://live.example/", "wss://live.example/#all"])
def test_an_invalid_websocket_url_disables_live_events_only(page, token, configure, url):
    configure(web_socket_url=url)
    page.open_loaded(token)
    assert total(page) > 0 and page.states() == []


def total(page):
    return int(page.text("#total").split()[0].replace(",", ""))


@contextlib.contextmanager
def event_server(stack):
    """A WebSocket server with the stack's certificate: its port, and a function that sends a message to all clients."""
    import asyncio
    import ssl

    import websockets

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(stack.state / "tls" / "server.crt", stack.state / "tls" / "server.key")
    clients = set()
    loop = asyncio.new_event_loop()

    async def serve(socket, *_):
        clients.add(socket)
        await socket.wait_closed()
        clients.discard(socket)

    async def begin():
        return await websockets.serve(serve, "127.0.0.1", 0, ssl=tls)

    server = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def push(message):
        async def send():
            for socket in list(clients):
                await socket.send(message)
            return len(clients)
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


def test_the_content_security_policy_allows_the_configured_servers_only(configure, installation):
    with installation.stack.client() as client:
        assert "connect-src 'self';" in client.get("/").headers["Content-Security-Policy"]
    configure(base_url="https://steep.example/functions/v1", web_socket_url="wss://live.example/events")
    with installation.stack.client() as client:
        policy = client.get("/").headers["Content-Security-Policy"]
        assert "default-src 'self'; connect-src 'self' https://steep.example wss://live.example;" in policy
        assert "unsafe" not in policy
        answer = client.post("/config.json")
        assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
