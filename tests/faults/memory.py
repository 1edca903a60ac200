"""The memory of the programs and nginx, and whether it grows."""

import statistics
from pathlib import Path

NAMES = ["ingest", "query", "nginx"]

# How much a warm heap may vary: it keeps memory for the next batches.
GROWTH = 1.05
SLACK_KIB = 3072

# Sessions and connections come and go.
SLACK_DESCRIPTORS = 10


def of_process(pid):
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM", "RssAnon"):
            fields[name] = int(value.split()[0])
    fields["descriptors"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return fields


def sample(stack):
    """KiB by name and field; nginx is its workers."""
    found = {name: of_process(stack.pid(name)) for name in ("ingest", "query")}
    master = stack.pid("nginx")
    workers = [of_process(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    found["nginx"] = {field: sum(worker[field] for worker in workers) for field in workers[0]}
    return found


def line(found):
    return ", ".join(f"{name} VmRSS {each['VmRSS'] / 1024:.1f} MiB, VmHWM {each['VmHWM'] / 1024:.1f}, {each['descriptors']} descriptors"
                     for name, each in found.items())


def growing(samples):
    """Messages about what grows from the first half of the samples to the second; none when memory is flat.

    Of each process's own memory: what it shares, nginx's zones and libraries, is mapped as it is used.
    """
    half = len(samples) // 2
    found = []
    for name in NAMES:
        early, late = (statistics.median(each[name]["RssAnon"] for each in part) for part in (samples[:half], samples[half:]))
        if late > early * GROWTH + SLACK_KIB:
            found.append(f"the memory of {name} grows: {early:.0f} KiB in the first half, {late:.0f} in the second")
        early, late = (statistics.median(each[name]["descriptors"] for each in part) for part in (samples[:half], samples[half:]))
        if late > early + SLACK_DESCRIPTORS:
            found.append(f"{name} opens more and more: {early:.0f} descriptors in the first half, {late:.0f} in the second")
    return found
