"""Processes that are measured: which belong together, and the processor time that they used."""

import os
from pathlib import Path


def read(pid, name):
    """A file of a process, '' if the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def family(pid):
    """A process and its child processes."""
    return [pid, *(each for child in read(pid, f"task/{pid}/children").split() for each in family(int(child)))]


def processor_ms(pid, ended=True):
    """Of a process and its child processes, with those of its own that ended or without."""
    ticks = 0
    for each in family(pid):
        fields = read(each, "stat").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15] if ended and each == pid else fields[11:13]))
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")
