"""A monitor: a name, a key, and events signed with it."""

import base64
import datetime
import itertools
import json
import secrets

from nacl.signing import SigningKey

from wire import MARKER, SECRETS

SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")

# An event's field with this value is left out.
ABSENT = object()

_numbers = itertools.count(1)
_run = secrets.token_hex(4)


def new_id():
    """evt_ and 20 characters, as existing monitors write it."""
    return f"evt_{_run}{next(_numbers):012d}"


def rfc3339(instant):
    return instant.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def base64_text(data):
    return base64.b64encode(data).decode()


class Monitor:
    def __init__(self, source, seed=None):
        self.source = source
        self.key = SigningKey(seed) if seed else SigningKey.generate()
        self.public = bytes(self.key.verify_key)
        SECRETS.update({self.public_base64, self.spki_base64, self.public.hex(), bytes(self.key).hex(),
                        base64_text(bytes(self.key))})

    @property
    def public_base64(self):
        return base64_text(self.public)

    @property
    def spki_base64(self):
        return base64_text(SPKI_PREFIX + self.public)

    def sign(self, body):
        signature = base64_text(self.key.sign(body).signature)
        SECRETS.add(signature)
        return signature

    def event(self, **changes):
        """A valid event in the data model's form, with some fields changed or ABSENT."""
        event = {"id": new_id(), "source": self.source, "timestamp": rfc3339(now()), "eventType": "tool",
                 "payload": {"note": MARKER}} | changes
        return {name: value for name, value in event.items() if value is not ABSENT}

    def raw_event(self, **values):
        """An event as text whose values are the given JSON texts, for what no serialiser would write."""
        fields = {"id": json.dumps(new_id()), "source": json.dumps(self.source),
                  "timestamp": json.dumps(rfc3339(now())), "eventType": '"tool"',
                  "payload": json.dumps({"note": MARKER})} | values
        return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"

    def headers(self, body, **changes):
        headers = {"X-Source-ID": self.source, "X-Signature": self.sign(body),
                   "Content-Type": "application/json"} | changes
        return {name: value for name, value in headers.items() if value is not ABSENT}

    def post(self, client, events, path="/ingest", headers=None):
        """Sign and post a batch: bytes and text unchanged, anything else as JSON."""
        body = encode(events)
        return client.post(path, content=body, headers=self.headers(body) | (headers or {}))


def encode(events):
    if isinstance(events, bytes):
        return events
    if isinstance(events, str):
        return events.encode()
    return json.dumps(events, ensure_ascii=False).encode()
