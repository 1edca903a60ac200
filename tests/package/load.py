"""load.py CERTIFICATE: monitors and a dashboard that send requests without a pause until standard input ends.

Reads first, a line each: a source, its key's seed in hexadecimal, a token. Says "sending" once each of them had an
answer, and at the end, in JSON, what became of their requests. A monitor tries a batch three times within about three
seconds, as those in the field do; what no try delivered is lost."""

import json
import ssl
import sys
import threading
import time

import httpx

from monitor import Monitor

PAUSES = [0.5, 1.5, 0]
EVENTS = 10


class Sender(threading.Thread):
    def __init__(self, context, number, ask):
        super().__init__(daemon=True)
        self.name = f"sender {number}"
        self.context, self.ask = context, ask
        self.done, self.retried, self.lost, self.faults = 0, 0, 0, []
        self.first = threading.Event()

    def run(self):
        with httpx.Client(base_url="https://127.0.0.1", verify=self.context, timeout=30, trust_env=False) as client:
            while not stop.is_set():
                self.deliver(self.ask(client))
                self.first.set()
                time.sleep(0.01)

    def deliver(self, attempt):
        for number, pause in enumerate(PAUSES):
            try:
                answer = attempt()
                if answer.status_code == 200:
                    self.done += 1
                    self.retried += number > 0
                    return
                self.faults.append(f"{answer.status_code} {answer.text[:100]}")
            except httpx.HTTPError as error:
                self.faults.append(repr(error))
            time.sleep(pause)
        self.lost += 1


def batches(monitor):
    """Each call creates a batch; each attempt sends the same bytes."""
    def ask(client):
        body = json.dumps([monitor.event() for _ in range(EVENTS)]).encode()
        headers = monitor.headers(body)
        return lambda: client.post("/ingest", content=body, headers=headers)
    return ask


def questions(token):
    def ask(client):
        return lambda: client.get("/query", params={"days": 7}, headers={"Authorization": f"Bearer {token}"})
    return ask


stop = threading.Event()


def main():
    context = ssl.create_default_context(cafile=sys.argv[1])
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    source, seed, token = (sys.stdin.readline().strip() for _ in range(3))
    senders = [Sender(context, n, batches(Monitor(source, bytes.fromhex(seed)))) for n in range(3)]
    readers = [Sender(context, n, questions(token)) for n in range(2)]
    for thread in senders + readers:
        thread.start()
    for thread in senders + readers:
        thread.first.wait()
    print("sending", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in senders + readers:
        thread.join()
    print(json.dumps({
        "events": EVENTS * sum(s.done for s in senders), "answers": sum(r.done for r in readers),
        "retried": sum(t.retried for t in senders + readers), "lost": sum(t.lost for t in senders + readers),
        "faults": [f for t in senders + readers for f in t.faults][:20]}))


if __name__ == "__main__":
    main()
