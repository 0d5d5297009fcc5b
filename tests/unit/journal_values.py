"""Values for a journal: a migration, a cast."""

from typing import Any

from sterna.domain.journal import Migration
from sterna.ports.records import Envelope


def migration(id: str = "m1", vm: str = "vm-1", epoch: int = 0, **more: Any) -> Migration:
    return Migration(id=id, epoch=epoch, vm_uuid=vm, vm_name=f"name of {vm}", source="a", destination="b", **more)


def cast(id: str = "c1", to: str = "b", **more: Any) -> Envelope:
    return Envelope(id=id, to=to, method="x", migration_id="m1", epoch=1, **more)
