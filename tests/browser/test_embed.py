"""The example of nginx/README.md: a dashboard on another origin that imports store.js."""

import contextlib
import gzip
import http.server
import threading

import pytest

from stack import ROOT, wait_for


def example():
    text = (ROOT / "nginx" / "README.md").read_text().split("## The store in your own dashboard")[1]
    return text.split("```html\n")[1].split("```")[0]


@pytest.fixture
def dashboard(installation):
    """Serve a document on another origin than the stack's, which answers queries as a test chooses."""
    documents = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/query?"):
                serve.query(self)
                return
            body = documents.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def serve(document):
        documents["/"] = document
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    server.shutdown()
    server.server_close()


@pytest.mark.firefox
def test_the_readmes_example_shows_the_counts(page, dashboard, installation, token):
    document = example().replace("https://steep.example", installation.url).replace("YOUR_TOKEN", token)
    assert installation.url in document and token in document
    page.get(dashboard("<!DOCTYPE html><html><body>" + document + "</body></html>"))
    wait_for(lambda: "events" in page.text("body"), "the dashboard to show the counts")
    with installation.stack.client() as client:
        rows = client.get("/query?days=7", headers={"Authorization": f"Bearer {token}"}).json()["aggregates"]
    assert page.text("body").startswith(f"{sum(row['eventCount'] for row in rows)} events")


@pytest.mark.firefox
def test_the_readmes_example_shows_that_a_token_is_refused(page, dashboard, installation):
    document = example().replace("https://steep.example", installation.url).replace("YOUR_TOKEN", "steep_wrong")
    page.get(dashboard("<!DOCTYPE html><html><body>" + document + "</body></html>"))
    wait_for(lambda: "token" in page.text("body"), "the dashboard to show the error")


BEGINNING = b'{"aggregates": ['


def begin(handler, **headers):
    handler.send_response(200)
    for name, value in ({"Content-Type": "application/json", "Connection": "close"} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.close_connection = True


def stall(handler, given_up):
    begin(handler)
    handler.wfile.write(BEGINNING)
    handler.rfile.read(1)
    given_up.set()


def break_off(handler, given_up):
    begin(handler, Content_Length="1000")
    handler.wfile.write(BEGINNING)
    given_up.set()


def flood(handler, given_up):
    begin(handler)
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" " * 2**20)
    given_up.set()


def inflate(handler, given_up):
    begin(handler, Content_Encoding="gzip")
    with contextlib.suppress(OSError):
        handler.wfile.write(gzip.compress(b" " * 2**28, 1))
    given_up.set()


@pytest.mark.firefox
@pytest.mark.parametrize("answer, sentence", [
    (stall, "The server’s answer stopped for 5 seconds."),
    (break_off, "The connection broke before the server’s answer was complete."),
    (flood, "The server’s answer is larger than 128 MiB."),
    (inflate, "The server’s answer is larger than 128 MiB."),
], ids=["stops", "breaks off", "floods", "inflates"])
def test_an_answer_that_never_ends_is_given_up_and_its_connection_is_closed(page, dashboard, installation, answer, sentence):
    given_up = threading.Event()
    dashboard.query = lambda handler: answer(handler, given_up)
    document = example().replace("https://steep.example/store.js", f"{installation.url}/store.js")
    document = document.replace("https://steep.example", "/")
    page.get(dashboard("<!DOCTYPE html><html><body>" + document + "</body></html>"))
    wait_for(lambda: page.text("#sum") == sentence, "the dashboard to show the error", 60)
    assert given_up.wait(20)
