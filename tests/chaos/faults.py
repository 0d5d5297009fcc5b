"""What can go wrong in a case, each with four verbs: prepare, strike (returns when it has happened), heal, tidy.

`heal` makes the part work again, as an operator or a supervisor would; `tidy` takes away what the case brought.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass

from sterna.lab import links, sabotage
from tests.chaos.moments import Moment
from tests.chaos.scene import Scene, Stuck

DEATH_S = 60


class Fault:
    """A fault that needs no preparation and heals by itself."""

    def prepare(self, scene: Scene) -> None: ...

    def strike(self, scene: Scene) -> None: ...

    def heal(self, scene: Scene) -> None: ...

    def tidy(self, scene: Scene) -> None: ...


@dataclass(frozen=True)
class Agents(Fault):
    """kill -9 of agents, started again."""

    roles: tuple[str, ...]

    def strike(self, scene: Scene) -> None:
        for role in self.roles:
            scene.kill_agent(role)

    def heal(self, scene: Scene) -> None:
        for role in self.roles:
            scene.start_agent(role)


@dataclass(frozen=True)
class AgentAt(Fault):
    """An agent gets SIGKILL exactly before or after a step acts: the intent is journaled, the outcome is not."""

    role: str
    step: str
    moment: str

    def prepare(self, scene: Scene) -> None:
        scene.force(self.role, {"step": self.step, "moment": self.moment, "action": "kill"})

    def strike(self, scene: Scene) -> None:
        pid = scene.lab.agent_pid(scene.host(self.role))
        if pid is not None:
            watched = os.pidfd_open(pid)
            try:
                if not select.select([watched], [], [], DEATH_S)[0]:
                    raise Stuck(f"the {self.role} agent never came to {self.step}: {scene.told()}")
            finally:
                os.close(watched)
        scene.fired = time.monotonic()

    def heal(self, scene: Scene) -> None:
        scene.unforce(self.role)
        scene.start_agent(self.role)


@dataclass(frozen=True)
class Hang(Fault):
    """A part hangs (SIGSTOP) and goes on later. `part`: see `Scene.victim`."""

    part: str

    def strike(self, scene: Scene) -> None:
        sabotage.freeze(scene.victim(self.part))

    def heal(self, scene: Scene) -> None:
        if self.part.startswith("QEMU") and not scene.there_is(self.part):
            return  # libvirt may end a QEMU that hangs
        sabotage.thaw(scene.victim(self.part))


@dataclass(frozen=True)
class Controller(Fault):
    """kill -9 of the controller, started again at another address."""

    def strike(self, scene: Scene) -> None:
        sabotage.kill_controller(scene.lab)

    def heal(self, scene: Scene) -> None:
        scene.fleet.restart_controller()


@dataclass(frozen=True)
class Bus(Fault):
    """kill -9 of nats-server, with all it held in memory; started again."""

    def strike(self, scene: Scene) -> None:
        sabotage.kill_nats(scene.lab)

    def heal(self, scene: Scene) -> None:
        sabotage.start_nats(scene.lab)


@dataclass(frozen=True)
class Libvirtd(Fault):
    """kill -9 of a libvirtd, started again; its QEMUs live on."""

    role: str

    def strike(self, scene: Scene) -> None:
        sabotage.kill_libvirtd(scene.lab, scene.host(self.role))

    def heal(self, scene: Scene) -> None:
        sabotage.start_libvirtd(scene.lab, scene.host(self.role))


@dataclass(frozen=True)
class Qemu(Fault):
    """kill -9 of the guest's QEMU on one side."""

    role: str

    def strike(self, scene: Scene) -> None:
        sabotage.kill_qemu(scene.lab, scene.host(self.role), scene.guest.name)


@dataclass(frozen=True)
class Cut(Fault):
    """A link is reset and unreachable."""

    link: str

    def strike(self, scene: Scene) -> None:
        links.cut(scene.link(self.link))

    def heal(self, scene: Scene) -> None:
        links.mend(scene.link(self.link))


@dataclass(frozen=True)
class Drop(Cut):
    """A link swallows packets silently."""

    def strike(self, scene: Scene) -> None:
        links.drop(scene.link(self.link))


@dataclass(frozen=True)
class DropReplies(Cut):
    """A link swallows what the server sends: requests are obeyed, answers are lost."""

    def strike(self, scene: Scene) -> None:
        links.drop_replies(scene.link(self.link))


@dataclass(frozen=True)
class FullDisk(Fault):
    """The destination's instances folder is a small file system of its own, and fills up."""

    size_mib: int = 224

    def prepare(self, scene: Scene) -> None:
        sabotage.give_small_disk(scene.lab, scene.destination, self.size_mib)

    def strike(self, scene: Scene) -> None:
        sabotage.fill_disk(scene.lab, scene.destination)

    def heal(self, scene: Scene) -> None:
        sabotage.free_disk(scene.lab, scene.destination)

    def tidy(self, scene: Scene) -> None:
        left = scene.lab.allocated_bytes(scene.destination)
        sabotage.take_small_disk(scene.lab, scene.destination)
        assert not left, f"left on the destination's disk: {left}"


@dataclass(frozen=True)
class Held(Fault):
    """Another fault, while a step is held back: until the fault has struck it fails for now, and is tried again."""

    role: str
    step: str
    fault: Fault

    def prepare(self, scene: Scene) -> None:
        scene.force(self.role, {"step": self.step, "moment": "before", "action": "temporary"})
        self.fault.prepare(scene)

    def strike(self, scene: Scene) -> None:
        self.fault.strike(scene)
        scene.unforce(self.role)

    def heal(self, scene: Scene) -> None:
        self.fault.heal(scene)

    def tidy(self, scene: Scene) -> None:
        scene.unforce(self.role)
        self.fault.tidy(scene)


@dataclass(frozen=True)
class InRollback(Fault):
    """Another fault, in the rollback after a failure that was forced on the source before the copy began."""

    fault: Fault

    def prepare(self, scene: Scene) -> None:
        scene.force("source", {"step": "copy", "moment": "before", "action": "permanent"})
        self.fault.prepare(scene)

    def strike(self, scene: Scene) -> None:
        self.fault.strike(scene)

    def heal(self, scene: Scene) -> None:
        self.fault.heal(scene)

    def tidy(self, scene: Scene) -> None:
        scene.unforce("source")
        self.fault.tidy(scene)


@dataclass(frozen=True)
class Abort(Fault):
    """A user aborts; it must be accepted."""

    def strike(self, scene: Scene) -> None:
        answer = scene.fleet.api.post(f"/v1/migrations/{scene.migration}/abort")
        assert answer.status_code == 202, answer.text


@dataclass(frozen=True)
class Together(Fault):
    """Several faults at once."""

    faults: tuple[Fault, ...]

    def prepare(self, scene: Scene) -> None:
        for fault in self.faults:
            fault.prepare(scene)

    def strike(self, scene: Scene) -> None:
        for fault in self.faults:
            fault.strike(scene)

    def heal(self, scene: Scene) -> None:
        for fault in self.faults:
            fault.heal(scene)

    def tidy(self, scene: Scene) -> None:
        for fault in self.faults:
            fault.tidy(scene)


@dataclass(frozen=True)
class Then(Fault):
    """One fault, and another after a moment that follows it."""

    first: Fault
    moment: Moment
    second: Fault

    def prepare(self, scene: Scene) -> None:
        self.first.prepare(scene)
        self.second.prepare(scene)

    def strike(self, scene: Scene) -> None:
        self.first.strike(scene)
        scene.await_moment(self.moment)
        self.second.strike(scene)

    def heal(self, scene: Scene) -> None:
        self.first.heal(scene)
        self.second.heal(scene)

    def tidy(self, scene: Scene) -> None:
        self.first.tidy(scene)
        self.second.tidy(scene)
