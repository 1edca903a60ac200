"""The example of nginx/README.md: a dashboard on another origin that imports store.js."""

import http.server
import threading

import pytest

from stack import ROOT, wait_for


def example():
    text = (ROOT / "nginx" / "README.md").read_text().split("## The store in your own dashboard")[1]
    return text.split("```html\n")[1].split("```")[0]


@pytest.fixture
def dashboard(installation):
    """Serve a document on another origin than the stack's."""
    documents = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
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


def test_the_readmes_example_shows_the_counts(page, dashboard, installation, token):
    document = example().replace("https://steep.example", installation.url).replace("YOUR_TOKEN", token)
    assert installation.url in document and token in document
    page.driver.get(dashboard("<!DOCTYPE html><html><body>" + document + "</body></html>"))
    wait_for(lambda: "events" in page.text("body"), "the dashboard to show the counts")
    with installation.stack.client() as client:
        rows = client.get("/query?days=7", headers={"Authorization": f"Bearer {token}"}).json()["aggregates"]
    assert page.text("body").startswith(f"{sum(row['eventCount'] for row in rows)} events")


def test_the_readmes_example_shows_that_a_token_is_refused(page, dashboard, installation):
    document = example().replace("https://steep.example", installation.url).replace("YOUR_TOKEN", "steep_wrong")
    page.driver.get(dashboard("<!DOCTYPE html><html><body>" + document + "</body></html>"))
    wait_for(lambda: "token" in page.text("body"), "the dashboard to show the error")
