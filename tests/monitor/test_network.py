"""What a network and a stranger's server can do: torn replies, silence, no server, the wrong one."""

import json
import socket
import ssl

import pytest

from certificates import Certificates, server_context
from scripted import ScriptedServer, endless, raw, silence, stored, stored_bytes, torn
from stack import SLOWNESS, free_port, wait_for


@pytest.mark.parametrize("length", [0, 1, 8, 12, 16, 40, 80, 110, 130])
def test_a_torn_reply_is_no_acknowledgement(server, sender, length):
    server.answer(torn(length))
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch")
    sender.send_now()
    first, second = server.wait(2)
    assert first.body == second.body
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    assert len(server.requests) == 2


NO_REPLIES = {
    "nothing": b"",
    "noise": bytes(range(256)) * 40,
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20),
    "a status that is none": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b'{"inserted":2,"duplicates":0}',
    "two lengths": b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\nContent-Length: 5\r\n\r\n{"inserted":2,"duplicates":0}',
    "a chunk cut off": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1d\r\n{"inserted":2,"duplicates":0}\r\n',
    "only interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
}


@pytest.mark.parametrize("name", NO_REPLIES)
def test_what_is_no_reply_is_no_acknowledgement(server, sender, name):
    server.answer(raw(NO_REPLIES[name]))
    sender.start()
    sender.feed(*sender.lines(2))
    assert sender.wait_for("batch")["wait_ms"]
    sender.send_now()
    assert len({request.body for request in server.wait(2)[:2]}) == 1
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")


def test_an_answer_in_chunks_or_after_an_interim_one_is_an_answer(server, sender):
    chunked = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
               b'10\r\n{"inserted":1,"d\r\nd\r\nuplicates":0}\r\n0\r\n\r\n')
    server.answer(raw(chunked), lambda exchange: exchange.send(
        b"HTTP/1.1 100 Continue\r\n\r\n" + stored_bytes(exchange.request)) or True)
    sender.start()
    for number in (1, 2):
        sender.feed(*sender.lines(1))
        server.wait(number)
        wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    assert len(sender.log("batch", status=200)) == len(server.requests) == 2


def test_a_body_without_an_end_is_given_up(server, sender):
    server.answer(endless)
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch")
    assert server.endless_bytes < 64 << 20
    sender.send_now()
    server.wait(2)
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")


def test_a_server_that_is_not_there_is_waited_for(serve, make_sender):
    port = free_port()
    sender = make_sender(f"https://127.0.0.1:{port}").start()
    sender.feed(*sender.lines(5))
    assert sender.wait_for("batch", status=0)["detail"]
    server = serve(port=port)
    server.wait_for_events(5)
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")


def test_a_name_that_does_not_resolve_is_waited_for(make_sender):
    sender = make_sender("https://steep.invalid").start()
    sender.feed(*sender.lines(2))
    record = sender.wait_for("batch", status=0)
    assert record["detail"] and int(record["wait_ms"]) <= 1000
    assert sender.waiting() == 2


def test_a_server_that_comes_back_is_found_again(serve, make_sender):
    server = serve()
    sender = make_sender(server.url).start()
    sender.feed(*sender.lines(1))
    server.wait(1)
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    server.close()
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=0)
    again = serve(port=server.port)
    again.wait_for_events(1)


@pytest.fixture
def refused(make_sender):
    """Send to a server that must not be trusted; nothing may reach it."""
    def check(server, **changes):
        sender = make_sender(server.url).start(**changes)
        sender.feed(*sender.lines(2))
        record = sender.wait_for("batch", status=0)
        assert record["detail"]
        sender.send_now()
        wait_for(lambda: len(sender.log("batch", status=0)) >= 2, "a second try")
        assert sender.waiting() == 2
        assert not server.requests and server.connections >= 2
        return record

    return check


def test_a_certificate_for_another_name_is_refused(serve, certificates, refused):
    refused(serve(certificates.signed("another-name", "DNS:localhost")))


def test_a_certificate_of_an_unknown_authority_is_refused(serve, refused):
    refused(serve(), STEEP_CA=None)


def test_a_certificate_that_expired_is_refused(serve, certificates, refused):
    refused(serve(certificates.signed("expired", "IP:127.0.0.1", days=-1)))


def test_a_certificate_that_is_no_servers_is_refused(serve, certificates, refused):
    """The authority's own key signs, so the chain is good; but it is for nobody's name."""
    refused(serve((certificates.authority, certificates.folder / "tls" / "ca.key")))


def test_a_certificate_for_the_name_is_taken(serve, certificates, make_sender):
    server = serve(certificates.signed("by-name", "DNS:localhost"))
    sender = make_sender(server.url.replace("127.0.0.1", "localhost")).start()
    sender.feed(*sender.lines(1))
    server.wait(1)


def test_the_option_ca_wins_over_the_environment(serve, make_sender, certificates, tmp_path):
    server = serve()
    sender = make_sender(server.url)
    sender.start("--ca", certificates.authority, STEEP_CA="/etc/ssl/certs/ca-certificates.crt")
    sender.feed(*sender.lines(1))
    server.wait(1)


def test_authorities_that_are_mended_are_trusted_without_a_restart(serve, make_sender, certificates, tmp_path):
    """Whoever puts the right ones into the file doesn't wait for a day until libcurl looks again."""
    server = serve()
    strange = Certificates(tmp_path / "strange")
    authority = tmp_path / "ca.crt"
    authority.write_bytes(strange.authority.read_bytes())
    sender = make_sender(server.url).start("--ca", authority)
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=0)
    authority.write_bytes(certificates.authority.read_bytes())
    sender.send_now()
    server.wait(1)


@pytest.mark.slow
def test_a_slow_line_takes_longer_than_30_seconds_and_is_enough(server, sender):
    """1 MiB through 256 kbit/s: giving up would mean to begin again, for ever."""
    def slowly(exchange):
        return stored(exchange)

    slowly.seconds = 36
    server.answer(slowly)
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*(json.dumps(sender.event(payload={"note": "x" * 60_000})) for _ in range(17)))
    wait_for(lambda: sender.waiting() == 17, "the spool to have them")
    sender.send_now()
    server.wait(1, 60)
    assert int(sender.wait_for("batch")["ms"]) > 30_000 and not sender.log("batch", status=0)


# OpenSSL's own settings refuse it as well, unless they are as generous as this.
GENEROUS = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = generous
[generous]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""


def test_tls_before_1_2_is_refused(certificates, identity, refused, tmp_path):
    (tmp_path / "openssl.cnf").write_text(GENEROUS)
    context = server_context(*certificates.good)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    server = ScriptedServer(context, identity)
    try:
        refused(server, OPENSSL_CONF=str(tmp_path / "openssl.cnf"))
    finally:
        server.close()


def test_a_server_that_does_not_speak_tls_gets_nothing(identity, refused):
    server = ScriptedServer(None, identity)
    try:
        refused(server)
    finally:
        server.close()


def test_a_slow_server_does_not_hold_up_input(server, sender):
    server.answer(silence)
    sender.start()
    sender.feed(*sender.lines(1))
    server.wait(1)
    sender.feed(*sender.lines(5000))
    wait_for(lambda: sender.waiting() == 5001, "the spool to have them all")
    assert not sender.log("batch")


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_after_30_seconds(server, sender):
    server.answer(silence)
    sender.start()
    sender.feed(*sender.lines(2))
    first, second = server.wait(2, 60)
    record = sender.log("batch")[0]
    assert record["status"] == "0" and record["detail"]
    assert 25_000 <= int(record["ms"]) <= 35_000 * SLOWNESS
    assert first.body == second.body
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")


def test_a_listener_that_accepts_nobody_is_given_up(make_sender):
    """The connection stands, but no handshake ever ends: SIGTERM must not wait for that."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        sender = make_sender(f"https://127.0.0.1:{listener.getsockname()[1]}").start()
        sender.feed(*sender.lines(1))
        wait_for(lambda: sender.waiting() == 1, "the event to be in the spool")
        sender.send_now()
        assert sender.end(seconds=8) == 0
    assert sender.log("stopped")[-1]["waiting"] == "1"
