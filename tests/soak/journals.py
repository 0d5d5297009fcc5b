"""Both agents' journals, looked at all along: which guests are free, and how long one was not at the longest."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from types import TracebackType

from sterna.lab.lab import Lab
from tests.chaos.scene import Journal

EVERY_S = 0.25
HELD = "select vm_uuid from migrations where held"


class Freedom:
    """A thread. A guest is not free while a host's journal holds it: nobody can migrate it then."""

    def __init__(self, lab: Lab, names: Mapping[str, str]) -> None:
        self.journals = {name: Journal(host.root / "state" / "journal.db") for name, host in lab.hosts.items()}
        self._names = names
        """UUID -> name of the guests."""
        self._since: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch journals", daemon=True)
        self.longest: dict[str, float] = {}
        """Name -> seconds that it was not free at a stretch, at the longest."""

    def __enter__(self) -> Freedom:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def holds(self, host: str, migration: str) -> bool:
        """Does the host's journal hold the guest for this migration now?"""
        return self.journals[host].holds(migration)

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                found = [row[0] for journal in self.journals.values() for row in journal.query(HELD)]
            except sqlite3.Error:
                continue  # busy, or not made yet: the next look sees it
            self._see({self._names[uuid] for uuid in found if uuid in self._names})

    def _see(self, held: set[str]) -> None:
        now = time.monotonic()
        for name in self._names.values():
            if name not in held:
                self._since.pop(name, None)
                continue
            since = self._since.setdefault(name, now)
            self.longest[name] = max(self.longest.get(name, 0.0), now - since)
