"""Runs Chromium, and reads the page as a viewer sees it. firefox.py does the same with Firefox."""

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stack import ROOT, wait_for

SCREENSHOTS = ROOT / "build" / "screenshots"
FAKES = Path(__file__).with_name("fakes.js").read_text()

ARGUMENTS = ["--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--window-size=1280,900", "--lang=en-GB",
             # Chromium's sandbox does not work as root, nor in every container. The browser opens only
             # pages of this machine.
             "--no-sandbox"]

TABLE = """
return [...document.querySelectorAll('#grid tbody tr')].map(tr => [tr.querySelector('th time').dateTime,
  [...tr.querySelectorAll('td')].map(td => ({
    texts: td.children.length ? [...td.children].map(half => half.textContent) : [td.textContent],
    look: td.children.length ? [...td.children].map(half => half.className) : [td.className],
    label: td.getAttribute('aria-label')}))])
"""


# Types a text into the filter, and returns the options in view.
SEARCH = """
const input = document.getElementById('source');
input.focus();
input.value = arguments[0];
input.dispatchEvent(new Event('input', { bubbles: true }));
return [...document.querySelectorAll('#source-list li')].map(({ textContent }) => textContent);
"""

SCROLL = """
const input = document.getElementById('source'), list = document.getElementById('source-list'), seen = new Set();
const focused = document.activeElement;
input.click();
for (let top = 0; top <= list.scrollHeight; top += list.clientHeight / 2) {
    list.scrollTop = top;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    list.querySelectorAll('li').forEach(({ textContent }) => seen.add(textContent));
}
input.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
focused?.focus();
seen.delete('All sources');
return [...seen];
"""


@contextlib.contextmanager
def chromium(authority):
    """A browser with a new home directory that trusts the stack's authority."""
    with tempfile.TemporaryDirectory(prefix="steep-browser.") as home:
        trust(Path(home) / ".pki" / "nssdb", authority)
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={home}/profile")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver", env=environment), options=options)
        try:
            # Behave like the focused window.
            driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
            driver.set_script_timeout(20)
            driver.set_page_load_timeout(20)
            yield driver
        finally:
            driver.quit()


def trust(database, authority):
    """Make a browser's database of certificates, with the stack's authority."""
    database.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "steep", "-i", str(authority)]):
        subprocess.run(["certutil", "-d", f"sql:{database}", *arguments], check=True, capture_output=True)


class Page:
    """The page of a stack, in one tab. ChromiumPage and FirefoxPage have what differs between the browsers."""

    def __init__(self, driver, url):
        self.driver = driver
        self.url = url

    def open(self, token=None, path="/"):
        """Open the page with this token stored in the tab, or with none."""
        self.get(f"{self.url}/config.json")
        self.run("sessionStorage.clear(); localStorage.clear()")
        if token:
            self.run("sessionStorage.setItem('steep.token', arguments[0])", token)
        self.get(f"{self.url}{path}")
        return self

    def open_loaded(self, token, days=7, source=None, zone=None):
        self.open(token)
        self.wait_loaded()
        if days != 7:
            self.choose_days(days)
        if source is not None:
            self.choose_source(source)
        if zone == "UTC":
            self.choose_utc()
        return self

    def module(self, body, *arguments):
        """Run the body of an async function, which may import the page's modules and finds its arguments in given."""
        result = self.run(f"""
            return (async (...given) => {{ {body} }})(...arguments)
                .then(value => ({{value}}), error => ({{error: `${{error}} ${{error.stack}}`}}));""", *arguments)
        assert "error" not in result, result["error"]
        return result.get("value")

    def with_fakes(self, body, *arguments):
        return self.module(FAKES + body, *arguments)

    def attribute(self, selector, name):
        return self.run("return document.querySelector(arguments[0]).getAttribute(arguments[1])", selector, name)

    def focus(self, selector):
        self.run("document.querySelector(arguments[0]).focus()", selector)

    def states(self):
        """Which of the three notices are shown."""
        return [name for name in ("loading", "empty", "error") if self.visible(f"#{name}")]

    def loaded(self):
        return self.run("return performance.getEntriesByName('steep: painted').length > 0") and self.is_complete()

    def is_complete(self):
        return self.states() in ([], ["empty"]) and not self.run("return document.querySelector('#grid .unloaded')")

    def wait_loaded(self):
        wait_for(self.loaded, "the counts to be shown")

    def choose_days(self, days):
        self.click(f'input[name="days"][value="{days}"]')
        # Usually days + 1 rows, but only as many as days if the clocks went back meanwhile.
        wait_for(lambda: self.is_complete() and len(self.table()) >= days and self.run(
            "return document.getElementById('announcement').textContent").startswith((str(days), "No events")),
            f"{days} days to be shown")

    def choose_source(self, name):
        self.offer(name)
        self.run("[...document.querySelectorAll('#source-list li')].find((each) => each.textContent === arguments[0]).click()", name)
        wait_for(lambda: self.is_complete() and (f"source {name}" in self.run(
            "return document.getElementById('total-of').textContent")), f"{name} to be shown")

    def choose_utc(self):
        self.click('input[name="zone"][value="utc"]')
        wait_for(lambda: "in UTC" in self.text("#as-of"), "UTC to be shown")

    def offer(self, text):
        """Type into the filter until the list contains an option with this text."""
        wait_for(lambda: text in self.run(SEARCH, text), f"{text} to be offered")

    def sources(self):
        """The sources that the filter offers, read by scrolling through its list."""
        return self.module(SCROLL)

    def options(self):
        """The texts of the options that the document contains."""
        return self.run("return [...document.querySelectorAll('#source-list li')].map(({ textContent }) => textContent)")

    def table(self):
        """The rows, newest day first: a list of (date, 24 cells and the sum)."""
        return self.run(TABLE)

    def add_events(self, events):
        return self.module("const { addEvent } = await import('/page.js');"
                           "const results = given[0].map(addEvent);"
                           "await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));"
                           "return results", events)


class ChromiumPage(Page):
    driver_fixture = "chromium_driver"

    def __init__(self, driver, url):
        super().__init__(driver, url)
        self.scripts = []
        self.console_errors()

    def get(self, url):
        self.driver.get(url)

    def reload(self):
        self.driver.refresh()

    def run(self, script, *arguments):
        """Run the body of a function, and return what it or its promise returns."""
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def visible(self, selector):
        return self.find(selector).is_displayed()

    def text(self, selector):
        return self.find(selector).text

    def click(self, selector):
        self.find(selector).click()

    def type(self, selector, text):
        self.find(selector).send_keys(text)

    def hover(self, selector):
        ActionChains(self.driver, duration=0).move_to_element(self.find(selector)).perform()

    def press(self, *keys, holding=None):
        """Press keys, by their names in the DOM, while another one is held."""
        def code(key):
            return getattr(Keys, re.sub("(?<=[a-z])(?=[A-Z])", "_", key).upper())

        for key in keys:
            chain = ActionChains(self.driver, duration=0)
            if holding:
                chain.key_down(code(holding))
            chain.send_keys(code(key))
            if holding:
                chain.key_up(code(holding))
            chain.perform()

    def before_each_page(self, script):
        """Run a script in each document before the document's own scripts."""
        self.scripts.append(self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"])

    def reset(self):
        """Undo what a test changed in the browser."""
        for identifier in self.scripts:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)
        self.scripts = []
        self.cdp("Emulation.setTimezoneOverride", timezoneId="")
        self.cdp("Emulation.setEmulatedMedia", media="", features=[])
        self.cdp("Emulation.clearDeviceMetricsOverride")

    def set_time_zone(self, zone):
        self.cdp("Emulation.setTimezoneOverride", timezoneId=zone)

    def set_media(self, **features):
        self.cdp("Emulation.setEmulatedMedia",
                 features=[{"name": name.replace("_", "-"), "value": value} for name, value in features.items()])

    def set_width(self, width, height=900):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(data))

    def console_errors(self):
        """The console's messages about scripts and the Content-Security-Policy, without those about failed requests."""
        return [entry["message"] for entry in self.driver.get_log("browser")
                if "Content Security Policy" in entry["message"] or entry["source"] in ("javascript", "security")]


def requested_urls(page):
    """All URLs that the page requested, as JSON."""
    return json.dumps(page.run("return performance.getEntries().map(entry => entry.name).concat(location.href)"))
