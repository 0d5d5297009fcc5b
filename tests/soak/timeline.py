"""What happened in a run, when: one JSON line each, on disk at once; and what must not have happened."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any


class Timeline:
    """Written by all threads of a run. `violations`: what was seen and must not be."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def begin(self) -> None:
        """The run begins now: all that is written before it has times before 0."""
        with self._lock:
            self._began = time.monotonic()

    def note(self, what: str, **facts: Any) -> None:
        """Write a line down."""
        line = json.dumps({"at_s": round(self.now(), 3), "utc": _utc(), "what": what, **facts}, default=str)
        with self._lock:
            self.counts[what] += 1
            if what == "fault":
                kind, _, where = facts["part"].partition(" ")
                self.faults[f"{facts['fault']} {where.partition(' ')[0] if kind == 'link' else kind}"] += 1
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def violation(self, text: str, **facts: Any) -> None:
        """Write down what must not be; the same text counts once."""
        with self._lock:
            known = text in self.violations
            if not known:
                self.violations.append(text)
        self.note("violation", text=text, **facts)

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _utc() -> str:
    now = time.time()
    return time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}"
