"""The token: asked for once, kept where the viewer says, in no address, and gone when it is no good."""

import secrets

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
