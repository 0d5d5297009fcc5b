"""A request for a migration, and the migration that agents report."""

from __future__ import annotations

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.journal import Migration

from .fakes import uuid

ID = "22222222-2222-4222-8222-222222222222"
MOVE = Migration(
    id="m1",
    epoch=1,
    vm_uuid=uuid(1),
    vm_name="web1",
    source="a",
    destination="b",
    options=MigrateRequest(vm="web1").options,
)


def request(vm: str = "web1", to: str | None = "b", id: str = ID) -> MigrateRequest:
    return MigrateRequest(id=id, vm=vm, destination=to)
