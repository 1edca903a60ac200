"""TLS: versions, ciphers and certificates, as seen by OpenSSL's client."""

import re
import socket
import subprocess

import pytest

from stack import SLOWNESS, addresses
from wire import check_error, read_answer, request_bytes

pytestmark = pytest.mark.contract

# Those of the profile for a key on an elliptic curve, which the demonstration's is.
CIPHERS = {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}
CIPHERS_OF_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

QUESTION = "GET /query HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"


@pytest.fixture
def s_client(stack):
    """The output of openssl s_client, which must be allowed old versions so that the server refuses them."""
    def connect(*options, send="", stay=False):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{stack.port}", "-bind", f"{next(addresses)}:0",
                   "-CAfile", stack.ca, *options, *(["-ign_eof"] if stay else [])]
        # The server's first HTTP/2 frames are binary.
        done = subprocess.run(command, input=send, text=True, errors="replace", capture_output=True, timeout=30 * SLOWNESS)
        return done.stdout + done.stderr
    return connect


def cipher_of(output):
    name = re.search(r"^New, .*, Cipher is (\S+)$", output, re.MULTILINE).group(1)
    return None if name == "(NONE)" else name


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_an_old_version_is_refused_by_the_server(option, s_client):
    output = s_client(option, "-cipher", "ALL:@SECLEVEL=0")
    assert cipher_of(output) is None and "alert protocol version" in output


def test_a_forced_downgrade_is_refused(s_client):
    assert "alert inappropriate fallback" in s_client("-tls1_2", "-fallback_scsv")


def test_tls_1_2_accepts_only_the_listed_ciphers(s_client):
    taken = set()
    while True:
        others = ":".join(["ALL", "COMPLEMENTOFALL", *(f"!{name}" for name in taken), "@SECLEVEL=0"])
        name = cipher_of(s_client("-tls1_2", "-cipher", others))
        if name is None:
            break
        taken.add(name)
    assert taken == CIPHERS


def test_tls_1_3_accepts_only_the_listed_ciphers(s_client):
    known = CIPHERS_OF_1_3 | {"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"}
    assert {name for name in known if cipher_of(s_client("-tls1_3", "-ciphersuites", name))} == CIPHERS_OF_1_3


@pytest.mark.parametrize("group, taken", [("X25519", True), ("prime256v1", True), ("secp384r1", True), ("secp521r1", False),
                                          ("X448", False), ("ffdhe2048", False)])
def test_only_the_listed_curves_are_accepted(group, taken, s_client):
    assert bool(cipher_of(s_client("-tls1_3", "-groups", group))) == taken


def test_a_client_cannot_renegotiate(stack):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{stack.port}", "-tls1_2"]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as client:
        # A line of R requests it; at the end of input the client would exit before the answer.
        client.stdin.write("R\n")
        client.stdin.flush()
        assert "no renegotiation" in client.stderr.read()


def test_nothing_is_compressed(s_client):
    assert "Compression: NONE" in s_client("-tls1_2", "-comp")


def test_a_session_is_resumed_without_a_ticket(s_client):
    output = s_client("-tls1_2", "-reconnect")
    assert re.search("^Reused, ", output, re.MULTILINE) and "TLS session ticket" not in output


def test_early_data_is_not_accepted(s_client):
    # Early data could be replayed.
    assert "Max Early Data: 0" in s_client("-tls1_3", send=QUESTION, stay=True)


@pytest.mark.parametrize("offered, chosen", [("h2", "h2"), ("http/1.1", "http/1.1"), ("h2,http/1.1", "h2"), ("spdy/3", None),
                                             ("h2c", None)])
def test_alpn_offers_http_only(offered, chosen, s_client):
    found = re.search(r"^ALPN protocol: (\S+)$", s_client("-alpn", offered), re.MULTILINE)
    assert (found and found.group(1)) == chosen


@pytest.mark.parametrize("name", [["-servername", "evil.example"], ["-noservername"]], ids=["another", "none"])
def test_any_server_name_gets_the_same_certificate_and_answer(name, s_client):
    output = s_client(*name, "-verify_hostname", "localhost", send=QUESTION, stay=True)
    assert "Verified peername: localhost" in output and '"error":"missing_auth"' in output


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_certificate_is_valid_for_localhost_and_its_address(name, stack):
    with stack.socket(server_name=name) as connection:
        assert connection.getpeercert()


def test_the_certificate_is_valid_over_ipv6(stack):
    with socket.create_connection(("::1", stack.port), 20) as plain:
        with stack.tls.wrap_socket(plain, server_hostname="::1") as connection:
            connection.sendall(request_bytes("GET", "/query", [("Host", "[::1]")]))
            check_error(read_answer(connection, "GET"), 401, "missing_auth")


def test_plain_http_on_the_tls_port_is_invalid_request(stack):
    with socket.create_connection(("127.0.0.1", stack.port), 20, (next(addresses), 0)) as connection:
        connection.sendall(b"GET /query HTTP/1.1\r\nHost: localhost\r\n\r\n")
        body = check_error(read_answer(connection, "GET"), 400, "invalid_request", endpoint=False)
    assert "needs HTTPS" in body["message"]


def test_http2_without_tls_is_invalid_request(stack):
    # A site without TLS would speak it, since nginx 1.25.1.
    with socket.create_connection(("127.0.0.1", stack.port), 20, (next(addresses), 0)) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        check_error(read_answer(connection, "GET"), 400, "invalid_request", endpoint=False)


@pytest.mark.parametrize("target", ["/query?https", "/%00?https"])
def test_only_plain_http_is_told_that_https_is_needed(target, raw):
    answer = raw(request_bytes("GET", target, [("Host", "localhost"), ("Host", "localhost")]), "GET")
    body = check_error(answer, 400, "invalid_request", endpoint=False)
    assert "HTTPS" not in body["message"]
