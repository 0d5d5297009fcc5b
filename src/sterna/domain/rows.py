"""The protocol's table as data: each row of the protocol, sender and receiver, how, and what it does in a few
words.

The timeline orders by it, the diagram draws its arrows from it, the CLI prints its labels.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise

from sterna.domain.journal import Role
from sterna.domain.model import Value


class Participant(StrEnum):
    """The four lifelines of a migration: two agents and the hypervisor drivers they own."""

    SHOST = "shost"
    SLIBVIRT = "slibvirt"
    DHOST = "dhost"
    DLIBVIRT = "dlibvirt"


class How(StrEnum):
    """How a row's message travels."""

    CALL = "call"
    """Waits for the answer."""
    CAST = "cast"
    """Does not wait, is never lost."""
    RETURN = "return"
    """The answer to a call."""
    SELF = "self"
    """Work of one participant by itself."""


class Row(Value):
    """One row of the protocol."""

    id: str
    path: tuple[Participant, ...]
    """Senders and receivers, hop by hop; one participant twice for work by itself."""
    how: How
    label: str

    def at(self, role: Role) -> Row:
        """The row as the agent with `role` journals it: what the source asks for is dhost's own work when dhost
        does it (R3, R6)."""
        if role is Role.DESTINATION and self.path[0] in (Participant.SHOST, Participant.SLIBVIRT):
            return Row(id=self.id, path=(Participant.DHOST, Participant.DHOST), how=How.SELF, label=self.label)
        return self

    @property
    def hops(self) -> tuple[tuple[Participant, Participant], ...]:
        """The arrows to draw, hop by hop."""
        return tuple(pairwise(self.path))


_S, _SV, _D, _DV = Participant.SHOST, Participant.SLIBVIRT, Participant.DHOST, Participant.DLIBVIRT


def _own(row: str, who: Participant, label: str) -> Row:
    return Row(id=row, path=(who, who), how=How.SELF, label=label)


def _to(row: str, path: tuple[Participant, ...], how: How, label: str) -> Row:
    return Row(id=row, path=path, how=how, label=label)


_TABLE = (
    _own("P1", _S, "take the migration up"),
    _own("P2", _S, "snapshot the VM's volumes"),
    _to("P3", (_S, _D), How.CALL, "pre_live_migration"),
    _own("P4", _D, "admit this host to the volumes"),
    _own("P5", _D, "read the network info"),
    _to("P6", (_D, _DV), How.CALL, "driver.pre_live_migration"),
    _own("P7", _DV, "read the image metadata"),
    _own("P8", _DV, "create directory and disk targets"),
    _own("P9", _DV, "connect volumes"),
    _own("P10", _DV, "create NICs on the bridge"),
    _to("P11", (_DV, _D, _S), How.RETURN, "what the destination's XML must say"),
    _own("P12", _S, "wait until the ports are wired"),
    _to("R0", (_S, _D), How.CALL, "ask both hypervisors, end the incoming guest"),
    _own("R1", _S, "_rollback_live_migration"),
    _own("R2", _S, "find the destination's connections"),
    _to("R3", (_S, _D), How.CALL, "remove_volume_connection"),
    _to("R4", (_S, _D), How.CAST, "rollback_live_migration_at_destination"),
    _own("R5", _D, "remove the VM's configuration"),
    _own("R6", _S, "remove the destination's NICs and bindings"),
    _own("R7", _D, "remove the instance directory"),
    _own("R8", _S, "prove that the VM is as it was"),
    _own("M1", _S, "begin to migrate"),
    _own("M2", _SV, "find the disks to copy"),
    _own("M3", _SV, "watch the copy"),
    _to("M4", (_SV, _DV), How.CALL, "copy memory and local disks"),
    _to("M5", (_SV, _S), How.RETURN, "the guest runs on the destination"),
    _to("M6", (_SV, _S), How.RETURN, "the copy failed before the switch-over"),
    _own("F1", _S, "find the volumes to disconnect"),
    _own("F2", _SV, "disconnect volumes on the source"),
    _own("F3", _S, "withdraw the source's admission"),
    _own("F4", _SV, "remove the source's NICs"),
    _to("F5", (_S, _D), How.CAST, "post_live_migration_at_destination"),
    _own("F6", _D, "read the network info"),
    _own("F7", _D, "activate the port bindings"),
    _own("F8", _D, "record host and power state"),
    _own("F9", _D, "update the destination's resources"),
    _own("F10", _SV, "remove what the guest left on the source"),
    _own("F11", _S, "release the source's resources"),
)

ROWS: dict[str, Row] = {row.id: row for row in _TABLE}
"""Every row of the protocol by its ID, in the order of the document."""


def row_for(row_id: str, role: Role, name: str) -> Row:
    """The row as `role` journals it, named as it is there where the table's words are the caller's.

    What the table does not know (a step without a row, a newer version's row) is the agent's own work.
    """
    known = ROWS.get(row_id)
    if known is None:
        return _own(row_id, _S if role is Role.SOURCE else _D, name.replace("-", " ") or row_id)
    seen = known.at(role)
    if known.how is not How.SELF and seen is not known and name:
        return seen.model_copy(update={"label": name.replace("-", " ")})
    return seen


def phase_of(row_id: str) -> str:
    """`P`, `R`, `M` or `F`: the part of the protocol a row stands in; '' for an entry without a row."""
    return row_id[:1] if row_id[:1] in ("P", "R", "M", "F") and row_id[1:].isdigit() else ""
