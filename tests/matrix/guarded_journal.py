"""The journal as one life of an agent sees it."""

from __future__ import annotations

from typing import Any

from sterna.domain.journal import Entry, Kind
from tests.matrix.life import Life

WRITES = ("accept", "append", "outbox_put", "outbox_done", "inbox_put", "inbox_done")


class GuardedJournal:
    """The journal as one life sees it: each write is a moment, just before and just after.

    What is written lazily is this life's until something else is asked of the journal; if it dies, it is lost.
    """

    def __init__(self, life: Life, journal: Any) -> None:
        self._life, self._journal = life, journal
        self._lazy: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.boot = life.name

    def append(self, migration_id: str, kind: Kind, *, lazily: bool = False, **named: Any) -> Entry:
        """See ports.records.Journal."""
        if not lazily:
            return self.__getattr__("append")(migration_id, kind, **named)  # type: ignore[no-any-return]
        self._life.check()
        page = self._journal.pages[migration_id]
        self._lazy.append(((migration_id, kind), named))
        return Entry(
            seq=0, migration_id=migration_id, epoch=page.epoch, role=page.role, kind=kind, boot=self.boot,
            at=self._journal.clock.now().isoformat(), mono_ms=self._journal.clock.monotonic_ms(), **named,
        )  # fmt: skip

    def flush(self) -> Entry | None:
        """See ports.records.Journal."""
        self._life.check()
        if not self._lazy:
            return None
        (args, named) = self._lazy.pop()
        return self.append(*args, **named)

    def _settle(self) -> None:
        lazy, self._lazy = self._lazy, []
        for args, named in lazy:
            self._journal.append(*args, **named)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._journal, name)

        def guarded(*args: Any, **named: Any) -> Any:
            self._life.check()
            self._journal.boot = self._life.name
            if name not in WRITES:
                self._settle()
                return found(*args, **named)
            label = _write_label(name, args, named)
            self._life.moment(f"journal {label} before")
            self._settle()
            result = found(*args, **named)
            self._life.stage.stirred()
            self._life.stage.ledger.read(self._life.host)
            self._life.stage.tell_story(self._life.host, f"wrote {label}")
            self._life.moment(f"journal {label} after")
            return result

        return guarded


def _write_label(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> str:
    if name == "append":
        return f"{args[1]}:{named.get('name') or named.get('row') or ''}".rstrip(":")
    if name == "accept":
        return f"accept-{args[1]}"
    what = args[0].id if hasattr(args[0], "id") else str(args[0])
    return f"{name}:{what.rpartition('/')[2]}"
