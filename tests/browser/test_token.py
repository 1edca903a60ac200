"""Signing in and out: where the token is stored, and what happens when it is refused."""

import secrets

import pytest

from browser import requested_urls
from stack import wait_for


def sign_in(page, token, remember=False):
    wait_for(lambda: page.visible("#sign-in"), "the form")
    page.type("#token", token)
    if remember:
        page.click("#remember")
    page.click("#token-form button")


def stored(page):
    return page.run("return [sessionStorage.getItem('steep.token'), localStorage.getItem('steep.token')]")


def is_signed_out(page):
    wait_for(lambda: page.visible("#sign-in"), "the form")
    return not page.visible("#heatmap")


@pytest.mark.firefox
def test_without_a_token_the_form_is_shown_and_no_request_is_sent(page):
    page.open()
    assert is_signed_out(page)
    assert not page.run("return performance.getEntries().some(({ name }) => name.includes('query'))")


@pytest.mark.firefox
def test_the_token_is_stored_for_the_tab(page, token):
    page.open()
    assert is_signed_out(page)
    sign_in(page, token)
    page.wait_loaded()
    assert not page.visible("#sign-in") and stored(page) == [token, None]
    assert page.run("return document.activeElement.id") == "heatmap-title"
    assert token not in requested_urls(page)
    page.reload()
    page.wait_loaded()
    assert not page.visible("#sign-in")


@pytest.mark.firefox
def test_the_token_is_stored_for_the_browser_if_the_viewer_chooses_so(page, token):
    page.open()
    assert is_signed_out(page)
    sign_in(page, token, remember=True)
    page.wait_loaded()
    assert stored(page) == [None, token]


@pytest.mark.firefox
def test_sign_out_removes_the_token(page, token):
    page.open_loaded(token)
    page.run("localStorage.setItem('steep.token', arguments[0])", token)
    page.click("#sign-out")
    assert is_signed_out(page)
    assert stored(page) == [None, None]
    assert page.run("return document.activeElement.id") == "token"
    page.reload()
    assert is_signed_out(page)


@pytest.mark.firefox
def test_signing_in_again_clears_what_was_shown_before(page, token):
    page.open_loaded(token)
    before = page.text("#total")
    page.add_events([{"source": "gone", "timestamp": page.run("return new Date().toJSON()")}])
    assert page.text("#total") != before and "gone" in page.sources()
    page.click("#sign-out")
    assert is_signed_out(page)
    sign_in(page, token)
    page.wait_loaded()
    assert page.text("#total") == before and "gone" not in page.sources()


@pytest.mark.firefox
def test_an_invalid_token_leads_back_to_the_form_with_the_servers_message(page, stack):
    with stack.client() as client:
        message = client.get("/query", headers={"Authorization": "Bearer steep_wrong"}).json()["message"]
    page.open()
    assert is_signed_out(page)
    sign_in(page, "steep_wrong")
    wait_for(lambda: page.text("#token-error") == message, "the server's message")
    assert is_signed_out(page) and stored(page) == [None, None]
    assert page.attribute("#token", "aria-invalid") == "true"
    assert page.run("return document.getElementById('token').value") == ""


@pytest.mark.firefox
def test_a_malformed_token_is_refused_without_a_request(page):
    page.open()
    assert is_signed_out(page)
    sign_in(page, "two words…")
    assert "no spaces" in page.text("#token-error")
    assert page.attribute("#token", "aria-invalid") == "true"
    assert not page.run("return performance.getEntries().some(({ name }) => name.includes('query'))")


@pytest.mark.firefox
def test_a_revoked_token_leads_back_to_the_form_and_hides_the_counts(page, stack):
    label = f"browser-{secrets.token_hex(4)}"
    token = stack.steepctl("token", "add", label).stdout.split()[-1]
    with stack.client() as client:
        headers = {"Authorization": f"Bearer {token}"}
        wait_for(lambda: client.get("/query", headers=headers).status_code == 200, "the token to take effect")
        page.open_loaded(token)
        stack.steepctl("token", "remove", label)
        wait_for(lambda: client.get("/query", headers=headers).status_code == 401, "the token to be removed")
        message = client.get("/query", headers=headers).json()["message"]
    page.click('input[name="days"][value="30"]')
    wait_for(lambda: page.text("#token-error") == message, "the server's message")
    assert is_signed_out(page) and stored(page) == [None, None]


@pytest.mark.firefox
def test_if_the_tabs_token_is_refused_the_browsers_token_is_used(page, token):
    page.open("steep_wrong")
    page.run("sessionStorage.setItem('steep.token', 'steep_wrong'); localStorage.setItem('steep.token', arguments[0])", token)
    page.reload()
    page.wait_loaded()
    assert stored(page) == [None, token]
    assert page.run("return document.getElementById('token-error').textContent") == ""


@pytest.fixture
def other_tab(page):
    """Run a function in another tab of the same browser, and return to the first."""
    first = page.driver.current_window_handle

    def do(action):
        page.driver.switch_to.new_window("tab")
        page.cdp("Emulation.setFocusEmulationEnabled", enabled=True)
        try:
            page.get(page.url)
            action()
        finally:
            page.driver.close()
            page.driver.switch_to.window(first)

    return do


def test_sign_out_applies_to_all_tabs(page, token, other_tab):
    page.open()
    page.run("localStorage.setItem('steep.token', arguments[0]); location.reload()", token)
    page.wait_loaded()

    def sign_out_there():
        page.wait_loaded()
        page.click("#sign-out")

    other_tab(sign_out_there)
    assert is_signed_out(page) and stored(page) == [None, None]


def test_signing_in_for_the_browser_applies_to_all_tabs(page, token, other_tab):
    page.open()
    assert is_signed_out(page)

    def sign_in_there():
        sign_in(page, token, remember=True)
        page.wait_loaded()

    other_tab(sign_in_there)
    page.wait_loaded()
    assert not page.visible("#sign-in")


def test_a_tab_with_its_own_token_keeps_it(page, token, other_tab):
    page.open_loaded(token)

    def sign_in_and_out():
        sign_in(page, token, remember=True)
        page.wait_loaded()
        page.click("#sign-out")

    other_tab(sign_in_and_out)
    assert page.module("await new Promise((done) => setTimeout(done, 300)); return true")
    assert page.visible("#heatmap") and stored(page) == [token, None]
