"""Runs Firefox through firefox.js, and reads the page as a viewer sees it."""

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from browser import SCREENSHOTS, Page, trust
from stack import wait_for

HELPER = Path(__file__).with_suffix(".js")


@contextlib.contextmanager
def firefox(authority, puppeteer):
    """A browser with a new home directory that trusts the stack's authority: a function that calls one of firefox.js.
    puppeteer is the folder of puppeteer-core."""
    with tempfile.TemporaryDirectory(prefix="steep-firefox.") as home:
        profile, log = Path(home) / "profile", Path(home) / "log"
        trust(profile, authority)
        # The page's config.json stays a document of the page's origin, and not the browser's own view of it.
        (profile / "user.js").write_text('user_pref("devtools.jsonview.enabled", false);\n')
        environment = {**os.environ, "HOME": home, "NODE_PATH": "/usr/share/nodejs"}
        arguments = ["--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0"]
        with log.open("wb") as output, ended(subprocess.Popen(["/usr/bin/firefox-esr", *arguments], env=environment,
                                                              stdout=output, stderr=output)) as browser:
            def address():
                said = log.read_text(errors="replace")
                assert browser.poll() is None, said
                return re.search(r"^WebDriver BiDi listening on (\S+)", said, re.MULTILINE)

            url = wait_for(address, "Firefox to listen", 60)[1]
            with ended(subprocess.Popen(["node", str(HELPER), str(puppeteer), f"{url}/session"], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as helper:
                def call(*parts):
                    helper.stdin.write(json.dumps(parts) + "\n")
                    helper.stdin.flush()
                    answer = json.loads(helper.stdout.readline() or '{"error": "firefox.js ended"}')
                    assert "error" not in answer, f"{parts[0]}: {answer['error']}"
                    return answer.get("value")

                yield call


@contextlib.contextmanager
def ended(process):
    """End a process at the end of the block."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


class FirefoxPage(Page):
    """driver is a function that calls one of firefox.js."""

    driver_fixture = "firefox_driver"

    def __init__(self, driver, url):
        super().__init__(driver, url)
        # A new one: the key Tab may have moved the focus out of the last test's tab.
        driver("open")

    def get(self, url):
        self.driver("get", url)

    def reload(self):
        self.driver("reload")

    def run(self, script, *arguments):
        return self.driver("run", script, *arguments)

    def visible(self, selector):
        return self.run("return document.querySelector(arguments[0])"
                        ".checkVisibility({ visibilityProperty: true, opacityProperty: true })", selector)

    def text(self, selector):
        """The text that is shown: '' of a hidden element."""
        return self.run("return document.querySelector(arguments[0]).innerText.trim()", selector) if self.visible(selector) else ""

    def click(self, selector):
        self.driver("click", selector)

    def type(self, selector, text):
        self.driver("type", selector, text)

    def hover(self, selector):
        self.driver("hover", selector)

    def press(self, *keys, holding=None):
        for key in keys:
            self.driver("press", key, holding)

    def before_each_page(self, script):
        self.driver("beforeEachPage", script)

    def set_time_zone(self, zone):
        self.driver("setTimeZone", zone)

    def set_width(self, width, height=900):
        self.driver("setViewport", width, height)

    def screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}-firefox.png").write_bytes(base64.b64decode(self.driver("screenshot")))

    def console_errors(self):
        return self.driver("errors")

    def reset(self):
        self.driver("close")
