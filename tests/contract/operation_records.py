"""Operations and attempts, as the tests of the controller's records write them."""

from __future__ import annotations

from sterna.domain.fleet.attempts import Attempt
from sterna.domain.fleet.plans import Purpose
from sterna.ports.operations import Decision, OperationRecord
from tests.contract.records import AT, uuid

FIRST, SECOND = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in (1, 2))


def drain(id: str = FIRST, *hosts: str, **more: object) -> OperationRecord:
    known = {
        "id": id,
        "hosts": hosts or ("a",),
        "reason": "new fans",
        "requested_by": "token:ops",
        "created_at": AT,
    }
    return OperationRecord.model_validate(known | more)


def attempt(n: int = 1, number: int = 0, to: str = "b", source: str = "a") -> Attempt:
    return Attempt(
        migration=f"{FIRST}/{n}/{number}",
        operation=FIRST,
        number=number,
        vm=uuid(n),
        name=f"vm{n}",
        source=source,
        target=to,
        purpose=Purpose.EMPTY,
        decided_at=AT,
    )


def decision(held: OperationRecord, *attempts: Attempt, seen: frozenset[str] = frozenset()) -> Decision:
    made = {"operation": held.id, "epoch": held.epoch, "status": held.status}
    return Decision.model_validate(made | {"attempts": attempts or (attempt(),), "seen": seen})
