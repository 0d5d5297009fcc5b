"""The simulated iSCSI target service: volumes, who is admitted to them, and who is logged in."""

from __future__ import annotations

from dataclasses import dataclass, field

from sterna.sim.world.things import SimFile

THE_HOST = ""
"""`Session.uuid` of a login that is the host's own, not a QEMU's."""


@dataclass(frozen=True, order=True)
class Session:
    """A login, held by the QEMU of one guest on one host, or by the host itself."""

    target: str
    initiator: str
    host: str
    uuid: str


@dataclass
class SimTarget:
    """One target with one LUN: its data and its access list of initiator names."""

    name: str
    volume: SimFile
    vm_uuid: str = ""
    """The VM that the volume service has it for; '' where it keeps no such list, as tgt."""
    admitted: set[str] = field(default_factory=set)


@dataclass
class SimIscsi:
    """One portal that every host can reach while `up`."""

    portal_host: str = "10.0.0.254"
    up: bool = True
    targets: dict[str, SimTarget] = field(default_factory=dict)
    sessions: set[Session] = field(default_factory=set)

    def admits(self, target: str, initiator: str) -> bool:
        """Would this initiator see the target?"""
        found = self.targets.get(target)
        return found is not None and initiator in found.admitted
