"""Failures of the network and wrong servers: incomplete responses, silence, no server, invalid certificates."""

import json
import socket
import ssl

import pytest

from certificates import Certificates, server_context
from scripted import ScriptedServer, endless, raw, silence, stored, stored_bytes, torn
from stack import SLOWNESS, free_port, wait_for


@pytest.mark.parametrize("length", [0, 1, 8, 12, 16, 40, 80, 110, 130])
def test_a_response_cut_short_is_not_an_acknowledgement(server, sender, length):
    server.answer(torn(length))
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch")
    sender.send_now()
    first, second = server.wait(2)
    assert first.body == second.body
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert len(server.requests) == 2


INVALID_RESPONSES = {
    "nothing": b"",
    "noise": bytes(range(256)) * 40,
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20),
    "an invalid status": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b'{"inserted":2,"duplicates":0}',
    "two lengths": b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\nContent-Length: 5\r\n\r\n{"inserted":2,"duplicates":0}',
    "a chunk cut off": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1d\r\n{"inserted":2,"duplicates":0}\r\n',
    "only interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
}


@pytest.mark.parametrize("name", INVALID_RESPONSES)
def test_an_invalid_response_is_not_an_acknowledgement(server, sender, name):
    server.answer(raw(INVALID_RESPONSES[name]))
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch")
    assert sender.log("batch")[0]["retry_ms"]
    sender.send_now()
    assert len({request.body for request in server.wait(2)[:2]}) == 1
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")


def test_a_chunked_response_and_one_after_an_interim_response_are_acknowledgements(server, sender):
    chunked = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
               b'10\r\n{"inserted":1,"d\r\nd\r\nuplicates":0}\r\n0\r\n\r\n')
    server.answer(raw(chunked), lambda exchange: exchange.send(
        b"HTTP/1.1 100 Continue\r\n\r\n" + stored_bytes(exchange.request)) or True)
    sender.start()
    for number in (1, 2):
        sender.feed(*sender.lines(1))
        server.wait(number)
        wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert len(sender.log("batch", status=200)) == len(server.requests) == 2


def test_an_endless_body_is_aborted(server, sender):
    server.answer(endless)
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch")
    assert server.endless_bytes < 64 << 20
    sender.send_now()
    server.wait(2)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")


def test_an_unreachable_server_is_retried(serve, make_sender):
    port = free_port()
    sender = make_sender(f"https://127.0.0.1:{port}").start()
    sender.feed(*sender.lines(5))
    assert sender.wait_for("batch", status=0)["detail"]
    server = serve(port=port)
    server.wait_for_events(5)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")


def test_a_name_that_does_not_resolve_is_retried(make_sender):
    sender = make_sender("https://steep.invalid").start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch", status=0)
    record = sender.log("batch", status=0)[0]
    assert record["detail"] and int(record["retry_ms"]) <= 1000
    assert sender.pending() == 2


def test_sending_resumes_when_the_server_is_back(serve, make_sender):
    server = serve()
    sender = make_sender(server.url).start()
    sender.feed(*sender.lines(1))
    server.wait(1)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    server.close()
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=0)
    again = serve(port=server.port)
    again.wait_for_events(1)


@pytest.fixture
def refused(make_sender):
    """Send to a server that must not be trusted; no request may reach it."""
    def check(server, **changes):
        sender = make_sender(server.url).start(**changes)
        sender.feed(*sender.lines(2))
        record = sender.wait_for("batch", status=0)
        assert record["detail"]
        sender.send_now()
        wait_for(lambda: len(sender.log("batch", status=0)) >= 2, "a retry")
        assert sender.pending() == 2
        assert not server.requests and server.connections >= 2
        return record

    return check


def test_a_certificate_for_another_name_is_refused(serve, certificates, refused):
    refused(serve(certificates.signed("another-name", "DNS:localhost")))


def test_a_certificate_of_an_unknown_authority_is_refused(serve, refused):
    refused(serve(), STEEP_CA=None)


def test_an_expired_certificate_is_refused(serve, certificates, refused):
    refused(serve(certificates.signed("expired", "IP:127.0.0.1", days=0)))


def test_a_certificate_that_is_not_a_servers_is_refused(serve, certificates, refused):
    """The authority's own certificate: the chain is valid, but it has no name."""
    refused(serve((certificates.authority, certificates.folder / "tls" / "ca.key")))


def test_a_certificate_for_the_name_is_accepted(serve, certificates, make_sender):
    server = serve(certificates.signed("by-name", "DNS:localhost"))
    sender = make_sender(server.url.replace("127.0.0.1", "localhost")).start()
    sender.feed(*sender.lines(1))
    server.wait(1)


def test_the_option_ca_overrides_the_environment(serve, make_sender, certificates, tmp_path):
    server = serve()
    sender = make_sender(server.url)
    sender.start("--ca", certificates.authority, STEEP_CA="/etc/ssl/certs/ca-certificates.crt")
    sender.feed(*sender.lines(1))
    server.wait(1)


def test_a_changed_ca_file_takes_effect_without_a_restart(serve, make_sender, certificates, tmp_path):
    """By default libcurl reads the file again only after a day."""
    server = serve()
    other = Certificates(tmp_path / "other")
    authority = tmp_path / "ca.crt"
    authority.write_bytes(other.authority.read_bytes())
    sender = make_sender(server.url).start("--ca", authority)
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=0)
    authority.write_bytes(certificates.authority.read_bytes())
    sender.send_now()
    server.wait(1)


@pytest.mark.slow
def test_a_slow_connection_may_take_longer_than_30_seconds(server, sender):
    """1 MiB at 256 kbit/s: with a fixed timeout it would be retried for ever."""
    def slowly(exchange):
        return stored(exchange)

    slowly.seconds = 36
    server.answer(slowly)
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*(json.dumps(sender.event(payload={"note": "x" * 60_000})) for _ in range(17)))
    wait_for(lambda: sender.pending() == 17, "the events to be in the spool")
    sender.send_now()
    server.wait(1, 60)
    assert int(sender.wait_for("batch")["ms"]) > 30_000 and not sender.log("batch", status=0)


# OpenSSL's default settings would refuse it as well.
PERMISSIVE = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = permissive
[permissive]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""


def test_tls_before_1_2_is_refused(certificates, identity, refused, tmp_path):
    (tmp_path / "openssl.cnf").write_text(PERMISSIVE)
    context = server_context(*certificates.good)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    server = ScriptedServer(context, identity)
    try:
        refused(server, OPENSSL_CONF=str(tmp_path / "openssl.cnf"))
    finally:
        server.close()


def test_a_server_without_tls_gets_nothing(identity, refused):
    server = ScriptedServer(None, identity)
    try:
        refused(server)
    finally:
        server.close()


def test_a_slow_server_does_not_block_the_input(server, sender):
    server.answer(silence)
    sender.start()
    sender.feed(*sender.lines(1))
    server.wait(1)
    sender.feed(*sender.lines(5000))
    wait_for(lambda: sender.pending() == 5001, "all events to be in the spool")
    assert not sender.log("batch")


@pytest.mark.slow
def test_a_request_times_out_after_30_seconds(server, sender):
    server.answer(silence)
    sender.start()
    sender.feed(*sender.lines(2))
    first, second = server.wait(2, 60)
    record = sender.log("batch")[0]
    assert record["status"] == "0" and record["detail"]
    assert 25_000 <= int(record["ms"]) <= 35_000 * SLOWNESS
    assert first.body == second.body
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")


def test_sigterm_ends_it_during_a_handshake_that_never_ends(make_sender):
    """The connection is open, but the handshake never ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        sender = make_sender(f"https://127.0.0.1:{listener.getsockname()[1]}").start()
        sender.feed(*sender.lines(1))
        wait_for(lambda: sender.pending() == 1, "the event to be in the spool")
        sender.send_now()
        assert sender.end(seconds=8) == 0
    assert sender.log("stopped")[-1]["pending"] == "1"
