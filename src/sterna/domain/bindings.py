"""Where a port is bound, and the one next thing to do about it (protocol, "The network hand-over", P5, F7, R6).

A network service with multiple bindings has, for each port, one binding per host, of which exactly one is ACTIVE.
`next_act` takes the service's present state and names the next change towards a goal, or None once the goal holds.
Its caller reads the state again after each change, so a lost answer, a crash, a binding that an earlier crash left
or a change from outside needs no special case. Pure; used by every adapter of ports.network.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sterna.domain.errors import Conflict
from sterna.domain.model import Data, Refusal, Value

MIGRATING_TO = "migrating_to"
"""Key in a binding's profile: the host the VM is on its way to.

Network agents read it, of the ACTIVE binding: the named host's agent wires the port although its binding is
INACTIVE, every other host's leaves it alone. While there is an INACTIVE binding, no agent does anything for an
ACTIVE one that does not name its own host. So each binding but a settled one names the host its port is to run on.
"""
NOT_BOUND = ("unbound", "binding_failed", "")
"""vif types of a binding without information on how to plug."""


class Binding(Value):
    """One port on one host, as the network service knows it."""

    host: str
    active: bool
    vif_type: str = "ovs"
    vif_details: Data = {}
    profile: Data = {}

    @property
    def bound(self) -> bool:
        """Does the service know how to plug the port there? What was ACTIVE and is so no more is not bound."""
        return self.vif_type not in NOT_BOUND


class Subport(Value):
    """A port that travels inside another one (a trunk's), and the host it is bound to."""

    port_id: str
    host: str


class Port(Value):
    """One port with all its bindings."""

    id: str
    vm_uuid: str = ""
    """The VM that the service has it for; '' for none."""
    bindings: tuple[Binding, ...] = ()
    subports: tuple[Subport, ...] = ()

    def on(self, host: str) -> Binding | None:
        """Its binding on that host."""
        return next((b for b in self.bindings if b.host == host), None)

    @property
    def active(self) -> Binding | None:
        """The one that counts."""
        return next((b for b in self.bindings if b.active), None)


def of_another(port_id: str, owner: str, vm_uuid: str) -> Refusal | None:
    """Why that port is not this VM's to bind, whatever its host says. `owner`: whom the service has it for."""
    if owner.lower() == vm_uuid.lower():
        return None
    message = f"the network service has port {port_id} for {f'VM {owner}' if owner else 'no VM'}, not for {vm_uuid}"
    fix = f"if it is this VM's: openstack port set --device {vm_uuid} --device-owner compute:nova {port_id}"
    return Refusal(code="port-not-of-vm", message=message, fix=fix)


def elsewhere(port_id: str, bound: str, source: str) -> Refusal:
    """The VM comes from another host than the one that has its port."""
    message = f"the network service has port {port_id} on {bound}, and its VM runs on {source}"
    fix = "set `host` in `[openstack]` to what Neutron calls this host, or the port's binding:host_id"
    return Refusal(code="port-elsewhere", message=message, fix=fix)


class Goal(StrEnum):
    """What a part of a migration wants to be true of each port."""

    PREPARED = "prepared"
    """Before P3: ACTIVE on the source, INACTIVE and bound on the destination; both say that it goes there."""
    SWITCHED = "switched"
    """At the switch-over: ACTIVE on the destination; the source's is still there."""
    SETTLED = "settled"
    """F7: ACTIVE on the destination, bound nowhere else, not marked as migrating; subports follow."""
    RETURNED = "returned"
    """R6, first: ACTIVE on the source, whatever was activated early; still marked as on its way (back)."""
    RESTORED = "restored"
    """R6: as before P3."""


class Verb(StrEnum):
    """What can be asked of the service; each is one request.

    An INACTIVE binding cannot be repaired: Neutron answers 500 to an update of one that has to be bound again. It
    is deleted and created again.
    """

    CREATE = "create"
    """A binding for the host, of a port that is on its way there: INACTIVE where another one is ACTIVE."""
    MOVE = "move"
    """The ACTIVE binding becomes the host's, whether or not an agent there can take the port now."""
    ACTIVATE = "activate"
    DELETE = "delete"
    MARK = "mark"
    """MIGRATING_TO into the profile of the host's ACTIVE binding."""
    UNMARK = "unmark"
    """No MIGRATING_TO in the ACTIVE binding any more. The last change of all: from it agents hear, and from nothing
    else, that another binding was deleted."""
    MOVE_SUBPORT = "move-subport"


class Act(Value):
    """One change."""

    verb: Verb
    host: str
    port_id: str = ""
    """The port it is about; MOVE_SUBPORT: the subport."""


def next_act(
    port: Port, goal: Goal, source: str, destination: str, *, unbindable: Iterable[str] = ()
) -> Act | None:
    """The next change towards `goal`; None where it holds.

    `unbindable`: hosts for which the service could not bind the port just now (its agent there is dead). Raises
    Conflict where the port is bound to a third host: it is not this VM's to move.
    """
    steps = {
        Goal.PREPARED: _prepared,
        Goal.SWITCHED: _switched,
        Goal.SETTLED: _settled,
        Goal.RETURNED: _returned,
        Goal.RESTORED: _restored,
    }
    found = steps[goal](port, source, destination, frozenset(unbindable))
    return found if found is None or found.port_id else found.model_copy(update={"port_id": port.id})


def given_back(port: Port, source: str) -> bool:
    """After RETURNED: was the port the destination's in between? A repeated question, also after a crash, gets the
    same answer until RESTORED."""
    active = port.active
    return active is not None and active.host == source == active.profile.get(MIGRATING_TO)


def _active_on(port: Port, host: str, unbindable: frozenset[str]) -> Act | None:
    """Towards ACTIVE on `host`, from wherever it is."""
    binding = port.on(host)
    if binding is None:
        return Act(verb=Verb.MOVE if host in unbindable else Verb.CREATE, host=host)
    if binding.active:
        return None
    if not _ready(binding):
        # One that was ACTIVE before has lost all it knew: activated as it is, no agent could wire it.
        return Act(verb=Verb.DELETE, host=host)
    return Act(verb=Verb.ACTIVATE, host=host)


def _ready(binding: Binding) -> bool:
    return binding.bound and binding.profile.get(MIGRATING_TO) == binding.host


def _prepared(port: Port, source: str, destination: str, unbindable: frozenset[str]) -> Act | None:
    active = port.active
    if active is not None and active.host not in (source, destination):
        raise Conflict(
            f"port {port.id} is bound to {active.host}, and its VM runs on {source}",
            fix=f"bind it to {source} (binding:host_id), or find out why the network service thinks otherwise",
        )
    act = _active_on(port, source, unbindable)
    if act is not None:
        return act
    there, here = port.on(destination), port.on(source)
    if there is None:
        return Act(verb=Verb.CREATE, host=destination)
    if not _ready(there):
        return Act(verb=Verb.DELETE, host=destination)
    if here is not None and here.profile.get(MIGRATING_TO) != destination:
        return Act(verb=Verb.MARK, host=source)
    return None


def _switched(port: Port, source: str, destination: str, unbindable: frozenset[str]) -> Act | None:
    return _active_on(port, destination, unbindable)


def _settled(port: Port, source: str, destination: str, unbindable: frozenset[str]) -> Act | None:
    act = _active_on(port, destination, unbindable)
    if act is not None:
        return act
    for other in port.bindings:
        if other.host != destination:
            return Act(verb=Verb.DELETE, host=other.host)
    there = port.on(destination)
    if there is not None and MIGRATING_TO in there.profile:
        return Act(verb=Verb.UNMARK, host=destination)
    for subport in port.subports:
        if subport.host != destination:
            return Act(verb=Verb.MOVE_SUBPORT, host=destination, port_id=subport.port_id)
    return None


def _returned(port: Port, source: str, destination: str, unbindable: frozenset[str]) -> Act | None:
    there = port.on(destination)
    if there is None or not there.active:
        return None  # never activated early, or back already
    return _active_on(port, source, unbindable)


def _restored(port: Port, source: str, destination: str, unbindable: frozenset[str]) -> Act | None:
    act = _returned(port, source, destination, unbindable)
    if act is not None:
        return act
    here = port.on(source)
    if port.on(destination) is not None:
        return Act(verb=Verb.DELETE, host=destination)
    if here is not None and here.active:
        if MIGRATING_TO in here.profile:
            return Act(verb=Verb.UNMARK, host=source)
        for subport in port.subports:
            if subport.host == destination:
                return Act(verb=Verb.MOVE_SUBPORT, host=source, port_id=subport.port_id)
    return None
