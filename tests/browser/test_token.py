"""The token: asked for once, kept where the viewer says, in no address, and gone when it is no good."""

import secrets

import pytest

from browser import bearer_free
from stack import wait_for


def give(page, token, remember=False):
    page.find("#token").send_keys(token)
    if remember:
        page.find("#remember").click()
    page.find("#token-form button").click()


def stored(page):
    return page.run("return [sessionStorage.getItem('steep.token'), localStorage.getItem('steep.token')]")


def asked(page):
    wait_for(lambda: page.visible("#sign-in"), "the form to be shown")
    return not page.visible("#heatmap")


def test_a_viewer_without_a_token_sees_the_form_and_nothing_is_asked(page):
    page.open()
    assert asked(page)
    assert not page.run("return performance.getEntries().some(({ name }) => name.includes('query'))")


def test_it_is_kept_for_the_tab_and_asked_for_once(page, token):
    page.open()
    assert asked(page)
    give(page, token)
    page.wait_loaded()
    assert not page.visible("#sign-in") and stored(page) == [token, None]
    assert page.run("return document.activeElement.id") == "heatmap-title"
    assert token not in bearer_free(page)
    page.run("location.reload()")
    page.wait_loaded()
    assert not page.visible("#sign-in")


def test_it_is_kept_for_the_browser_if_ticked(page, token):
    page.open()
    assert asked(page)
    give(page, token, remember=True)
    page.wait_loaded()
    assert stored(page) == [None, token]


def test_one_button_forgets_it(page, token):
    page.open_loaded(token)
    page.run("localStorage.setItem('steep.token', arguments[0])", token)
    page.find("#forget").click()
    assert asked(page)
    assert stored(page) == [None, None]
    assert page.run("return document.activeElement.id") == "token"
    page.run("location.reload()")
    assert asked(page)


def test_what_one_showed_is_gone_when_another_is_given(page, token):
    page.open_loaded(token)
    before = page.text("#total")
    page.add_events([{"source": "gone", "timestamp": page.run("return new Date().toJSON()")}])
    assert page.text("#total") != before and "gone" in page.sources()
    page.find("#forget").click()
    assert asked(page)
    give(page, token)
    page.wait_loaded()
    assert page.text("#total") == before and "gone" not in page.sources()


def test_a_wrong_one_leads_back_to_the_form_with_the_servers_sentence(page, stack):
    with stack.client() as client:
        sentence = client.get("/query", headers={"Authorization": "Bearer steep_wrong"}).json()["message"]
    page.open()
    assert asked(page)
    give(page, "steep_wrong")
    wait_for(lambda: page.text("#token-error") == sentence, "the server's sentence")
    assert asked(page) and stored(page) == [None, None]
    assert page.find('#token').get_attribute('aria-invalid') == "true"
    assert page.run("return document.getElementById('token').value") == ""


def test_what_can_be_no_token_is_told_without_asking(page):
    page.open()
    assert asked(page)
    give(page, "two words…")
    assert "no spaces" in page.text("#token-error")
    assert page.find('#token').get_attribute('aria-invalid') == "true"
    assert not page.run("return performance.getEntries().some(({ name }) => name.includes('query'))")


def test_a_revoked_one_leads_back_to_the_form_and_takes_the_counts_along(page, stack):
    label = f"browser-{secrets.token_hex(4)}"
    token = stack.steepctl("token", "add", label).stdout.split()[-1]
    with stack.client() as client:
        headers = {"Authorization": f"Bearer {token}"}
        wait_for(lambda: client.get("/query", headers=headers).status_code == 200, "the token to be taken up")
        page.open_loaded(token)
        stack.steepctl("token", "remove", label)
        wait_for(lambda: client.get("/query", headers=headers).status_code == 401, "the token to be gone")
        sentence = client.get("/query", headers=headers).json()["message"]
    page.find('input[name="days"][value="30"]').click()
    wait_for(lambda: page.text("#token-error") == sentence, "the server's sentence")
    assert asked(page) and stored(page) == [None, None]


def test_a_refused_one_of_the_tab_leaves_the_browsers_alone_and_goes_on_with_it(page, token):
    page.open("steep_wrong")
    page.run("sessionStorage.setItem('steep.token', 'steep_wrong'); localStorage.setItem('steep.token', arguments[0])", token)
    page.run("location.reload()")
    page.wait_loaded()
    assert stored(page) == [None, token]
    assert page.run("return document.getElementById('token-error').textContent") == ""


@pytest.fixture
def other_tab(page):
    """Do something in another tab of the same browser, and come back."""
    first = page.driver.current_window_handle

    def do(action):
        page.driver.switch_to.new_window("tab")
        page.cdp("Emulation.setFocusEmulationEnabled", enabled=True)
        try:
            page.driver.get(page.url)
            action()
        finally:
            page.driver.close()
            page.driver.switch_to.window(first)

    return do


def test_one_button_forgets_it_in_every_tab(page, token, other_tab):
    page.open()
    page.run("localStorage.setItem('steep.token', arguments[0]); location.reload()", token)
    page.wait_loaded()

    def forget():
        page.wait_loaded()
        page.find("#forget").click()

    other_tab(forget)
    assert asked(page) and stored(page) == [None, None]


def test_what_another_tab_is_given_for_the_browser_is_asked_for_once(page, token, other_tab):
    page.open()
    assert asked(page)

    def sign_in():
        give(page, token, remember=True)
        page.wait_loaded()

    other_tab(sign_in)
    page.wait_loaded()
    assert not page.visible("#sign-in")


def test_a_tab_with_a_token_of_its_own_keeps_it_whatever_another_one_does(page, token, other_tab):
    page.open_loaded(token)

    def come_and_go():
        give(page, token, remember=True)
        page.wait_loaded()
        page.find("#forget").click()

    other_tab(come_and_go)
    assert page.module("await new Promise((done) => setTimeout(done, 300)); return true")
    assert page.visible("#heatmap") and stored(page) == [token, None]
