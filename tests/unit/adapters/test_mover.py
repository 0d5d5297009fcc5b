"""What one copy after another leaves of the adapter itself: no connection, no thread. libvirt is not asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sterna.adapters.libvirt import mover
from sterna.adapters.libvirt.mover import LibvirtMover
from sterna.domain.copying import CopyPlan
from sterna.domain.errors import Unknown, Unreachable

PLAN = CopyPlan(migration_id="m", epoch=1, destination_uri="qemu+tcp://b/system", persistent=True)


class Connections:
    """Every connection that was opened; a copy lasts until `over`, and is looked at meanwhile."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.over = asyncio.Event()
        self.error: Exception | None = None

    def __call__(self, uri: str, name: str) -> Connections.One:
        self.open.append(name)
        return Connections.One(self, name)

    class One:
        def __init__(self, all_: Connections, name: str) -> None:
            self._all, self._name = all_, name

        async def run(self, act: Any, *, unlimited: bool = False) -> Any:
            if self._name.startswith("sterna-watch"):
                return {"type": 1}
            if self._all.over.is_set() or act.__code__.co_names[:1] == ("_prepare",):
                return mover.Prepared(flags=0, params={})
            await self._all.over.wait()
            if self._all.error is not None:
                raise self._all.error
            return None

        def close(self) -> None:
            self._all.open.remove(self._name)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    found = Connections()
    monkeypatch.setattr(mover, "Connection", found)
    return found


@pytest.mark.parametrize("error", [None, Unreachable("libvirtd died")])
async def test_a_copy_that_has_ended_leaves_no_connection(
    connections: Connections, error: Exception | None
) -> None:
    connections.error = error
    host = LibvirtMover("test:///default")
    copying = asyncio.create_task(host.migrate("0000-1", PLAN))
    await asyncio.sleep(0)
    assert await host.sample("0000-1") is not None
    assert len(connections.open) == 2
    connections.over.set()
    if error is None:
        await copying
    else:
        with pytest.raises(Unknown):
            await copying
    assert connections.open == []
