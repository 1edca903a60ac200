"""Every kind of request: each function sends one and returns the expected status."""

import json
import random
import time

from monitor import Monitor, new_id
from monitors import reset
from stack import addresses, wait_for
from wire import request_bytes


class Requests:
    def __init__(self, stack, number):
        self.stack = stack
        self.random = random.Random(number)
        self.monitor = Monitor(f"valgrind-{number}")
        self.stranger = Monitor(f"stranger-{number}")
        self.client = stack.client(next(addresses))
        self.others = [self]
        self.last = [self.monitor.event()]
        stack.steepctl("monitor", "add", self.monitor.source, self.monitor.public_base64)
        wait_for(lambda: self.post("[]").status_code == 400, "the key to be known")

    def post(self, events, **more):
        return self.monitor.post(self.client, events, **more)

    def ask(self, query="", token=None, method="GET"):
        return self.client.request(method, f"/query{query}", headers={"Authorization": f"Bearer {token or self.stack.token}"})

    def new_events(self):
        self.last = [self.monitor.event(payload={"text": "x" * self.random.randrange(300)})
                     for _ in range(self.random.choice([1, 1, 2, 5, 20]))]
        return self.post(self.last), 200

    def many_new_events(self):
        return self.post([self.monitor.event() for _ in range(1000)]), 200

    def large_events(self):
        return self.post([self.monitor.event(payload={"text": "x" * 60000}) for _ in range(12)]), 200

    def the_same_events(self):
        return self.post(self.last), 200

    def some_of_the_same_events(self):
        return self.post([*self.last[:3], self.monitor.event()]), 200

    def an_id_of_another_source(self):
        return self.post([self.monitor.event(id=self.random.choice(self.others).last[0]["id"])]), 200

    def events_that_are_not_plain(self):
        return self.post(f'''[{self.monitor.raw_event(id=f'"{chr(92)}u0065{new_id()[1:]}"', payload='{"a":[1e5,{"é":"x"}]}')}]'''), 200

    def no_signature(self):
        return self.client.post("/ingest", content=b"[]"), 401

    def anothers_signature(self):
        return Monitor(self.monitor.source, bytes(self.stranger.key)).post(self.client, self.last), 401

    def a_signature_that_is_none(self):
        return self.post(self.last, headers={"X-Signature": "x"}), 401

    def an_unknown_source(self):
        return self.stranger.post(self.client, self.last), 401

    def no_json(self):
        return self.post(self.random.choice(["x", "[{]", "{}", '["', b"[\xff]", "[" * 100])), 400

    def no_events(self):
        return self.post("[]"), 400

    def too_many_events(self):
        return self.post(f"[{','.join(['{}'] * 1001)}]"), 400

    def events_that_break_rules(self):
        changes = [{"id": "x"}, {"source": "x"}, {"timestamp": "yesterday"}, {"eventType": "x"}, {"payload": []},
                   {"payload": {"a": "\0"}}, {}]
        return self.post([self.monitor.event(**change) for change in self.random.sample(changes, 6)]), 422

    def an_event_that_only_the_database_refuses(self):
        return self.post([self.monitor.event(), self.monitor.event(payload={"forbidden": 1})]), 422

    def another_method_than_post(self):
        return self.client.get("/ingest"), 405

    def seven_days(self):
        return self.ask(), 200

    def thirty_days_of_one_source(self):
        return self.ask(f"?days=30&source={self.monitor.source}"), 200

    def a_head(self):
        return self.ask(method="HEAD"), 200

    def a_question_that_is_none(self):
        return self.ask(self.random.choice(["?days=8", "?source=", "?source=%ff", "?days=7&days=7", "?days=7%00"])), 400

    def no_token(self):
        return self.client.get("/query"), 401

    def a_wrong_token(self):
        return self.ask(token="steep_x"), 401

    def another_method_than_get(self):
        return self.ask(method="POST"), 405

    def one_whose_sender_leaves(self):
        """Without the body's last byte, or before the answer."""
        body = json.dumps(self.last).encode()
        head = [("Host", "localhost"), ("Content-Length", len(body)), *self.monitor.headers(body).items()]
        connection = self.stack.socket(next(addresses))
        connection.sendall(request_bytes("POST", "/ingest", head, body)[:self.random.choice([None, -1])])
        time.sleep(self.random.uniform(0, 0.05))
        reset(connection)
        return None, None


USUAL = [Requests.new_events, Requests.seven_days, Requests.thirty_days_of_one_source]
LARGE = [Requests.many_new_events, Requests.large_events]
ODD = [kind for name, kind in vars(Requests).items()
       if callable(kind) and name not in ("__init__", "post", "ask") and kind not in USUAL + LARGE]


def kind_of(number, chooser):
    """Half of the requests are ordinary, one in a hundred is large."""
    return chooser.choice(LARGE if number % 100 == 0 else USUAL if number % 2 else ODD)
