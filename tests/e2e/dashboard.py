"""dashboard.py PORT CA ADDRESS TABS RATE: tabs of a dashboard with a wrong token that ask again and again, without back-off,
each RATE times a second, or as fast as it can if RATE is 0, until standard input ends.

Says "limited" when a tab is first answered 429, and at the end, in JSON, how many answers had which status. A process of
its own, so that it takes no time from the monitor that it is to disturb."""

import collections
import http.client
import json
import socket
import ssl
import sys
import threading
import time

port, ca, address, tabs, rate = sys.argv[1:]
stop, limited = threading.Event(), threading.Event()
tls = ssl.create_default_context(cafile=ca)
answers = collections.Counter()
lock = threading.Lock()


def tab():
    connection = http.client.HTTPSConnection("localhost", int(port), context=tls)
    connection._create_connection = lambda _, timeout, source: socket.create_connection(("127.0.0.1", int(port)), 60, (address, 0))
    while not stop.is_set():
        began = time.monotonic()
        try:
            connection.request("GET", "/functions/v1/query?days=30",
                               headers={"Authorization": "Bearer steep_wrong", "Origin": "https://dashboard.example"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            # nginx closes a connection after 1000 requests; the next request opens another.
            connection.close()
            continue
        with lock:
            answers[answer.status] += 1
            if answer.status == 429 and not limited.is_set():
                limited.set()
                print("limited", flush=True)
        if float(rate):
            time.sleep(max(0, began + 1 / float(rate) - time.monotonic()))


threads = [threading.Thread(target=tab) for _ in range(int(tabs))]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(answers))
