"""TLS of the tests' clients."""

import contextlib
import ctypes
import ssl

import _ssl

# The OpenSSL that Python's module is linked with.
OPENSSL = ctypes.CDLL(_ssl.__file__)


@contextlib.contextmanager
def leaving_no_error():
    try:
        yield
    finally:
        OPENSSL.ERR_clear_error()


class Socket(ssl.SSLSocket):
    """A socket whose errors stay its own. OpenSSL 3.5 leaves an error in the queue of its thread until the next handshake there,
    and Python 3.13 reports it for the next read of any connection that would have to wait."""

    def do_handshake(self, *arguments):
        with leaving_no_error():
            super().do_handshake(*arguments)

    def read(self, *arguments):
        with leaving_no_error():
            return super().read(*arguments)

    def send(self, *arguments):
        with leaving_no_error():
            return super().send(*arguments)


def trusting(ca):
    """The context of a client that trusts one certificate."""
    context = ssl.create_default_context(cafile=ca)
    context.sslsocket_class = Socket
    return context
