"""The messages of a run, and its results as TAP."""

from pathlib import Path


class Report:
    def __init__(self, name):
        self.name = name
        self.results = []

    def say(self, text):
        print(f"{self.name}: {text}", flush=True)

    def result(self, good, what):
        self.results.append(f"{'ok' if good else 'not ok'} {len(self.results) + 1} - {what}")

    def fail(self, why):
        """Report a failure; a result of its own, unless one has failed already."""
        self.say(f"FAILED: {why}")
        if not self.has_failed():
            self.result(False, why.splitlines()[0] if why else "a failed assertion")

    def has_failed(self):
        return any(each.startswith("not") for each in self.results)

    def is_good(self):
        return bool(self.results) and not self.has_failed()

    def write(self, path):
        Path(path).write_text("\n".join([*self.results, f"1..{len(self.results)}", ""]))
