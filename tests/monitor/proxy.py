"""A TCP proxy on loopback that fails as networks do: it cuts, freezes or tears connections, or is gone."""

import contextlib
import select
import socket
import threading

from monitors import reset

CHUNK = 65536


class Proxy:
    def __init__(self, target):
        self.target = target
        self.pairs = set()
        self.tears = []  # for each of the next connections: the direction, and after how many bytes it breaks
        self.moving = threading.Event()
        self.moving.set()
        self.closing = False
        self.connections = 0
        self.listener = self.listen(0)
        self.port = self.listener.getsockname()[1]

    def listen(self, port):
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self.accept, args=[listener], daemon=True).start()
        return listener

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client):
        self.connections += 1
        tear = self.tears.pop() if self.tears else None
        with contextlib.suppress(OSError, ValueError), client, socket.create_connection(("127.0.0.1", self.target), 10) as server:
            pair = (client, server)
            self.pairs.add(pair)
            try:
                self.pass_on(client, server, tear)
            finally:
                self.pairs.discard(pair)

    def pass_on(self, client, server, tear):
        """Copy until one side ends; with a tear, reset both after so many bytes of a direction."""
        passed = {"request": 0, "reply": 0}
        ends = {client: ("request", server), server: ("reply", client)}
        while True:
            ready, _, _ = select.select(list(ends), [], [])
            self.moving.wait()
            for source in ready:
                direction, target = ends[source]
                data = source.recv(CHUNK)
                if not data:
                    return
                passed[direction] += len(data)
                if tear and tear[0] == direction and passed[direction] >= tear[1]:
                    target.sendall(data[:len(data) - (passed[direction] - tear[1])])
                    reset(client)
                    reset(server)
                    return
                target.sendall(data)

    def cut(self):
        """End every connection at once."""
        for pair in list(self.pairs):
            for end in pair:
                # select() in another thread notices a shutdown, but not a close.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def tear(self, chooser):
        """Cut open connections; the next ones break during a handshake, a request or a reply."""
        self.tears = [(chooser.choice(["request", "reply"]), chooser.choice([1, 100, 1000, 3000, 20_000, 200_000]) + chooser.randrange(100))
                      for _ in range(3)]
        self.cut()

    def freeze(self):
        self.moving.clear()

    def thaw(self):
        self.moving.set()

    def leave(self):
        """Refuse connections, and end the open ones."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def come_back(self):
        self.listener = self.listen(self.port)
