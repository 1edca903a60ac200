"""The place of the faults: an installation, and what the faults need to know about it."""

import contextlib
import random
import time

import httpx

from stack import wait_for


class Scene:
    """What the faults need to know about an installation."""

    def __init__(self, stack, seed, deadline, address):
        self.stack, self.deadline, self.address = stack, deadline, address
        self.random = random.Random(seed)
        self.hurries = 0  # how many faults want the senders to send without a pause
        self.pids = {name: stack.pid(name) for name in ("ingest", "query", "nginx")}

    @contextlib.contextmanager
    def load(self):
        """Large batches without a pause, so that a process that is killed has some in progress."""
        self.hurries += 1
        time.sleep(self.random.uniform(0.3, 0.6))
        try:
            yield
        finally:
            self.hurries -= 1

    @contextlib.contextmanager
    def database_away(self):
        """A database that is available again when the block ends."""
        yield

    def wait_until_it_answers(self, name):
        method, path, status = {"ingest": ("POST", "/ingest", 401), "query": ("GET", "/query", 401),
                                "nginx": ("GET", "/", 200)}[name]

        def answers():
            with contextlib.suppress(httpx.TransportError), self.stack.client(self.address) as client:
                return client.request(method, path).status_code == status

        wait_for(answers, f"{name} to answer again", self.deadline + 20)
