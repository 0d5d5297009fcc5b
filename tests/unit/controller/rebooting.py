"""Rolling operations on agents without hosts: a host that is called reboots, if nobody runs there any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sterna.domain.errors import SternaError
from sterna.domain.fleet.course import OperationKind, Order
from sterna.domain.fleet.stages import Between, HostStep, Stage
from sterna.ports.hooks import Notice, Right
from sterna.ports.operations import OperationRecord
from tests.unit.controller.operating import OPERATION
from tests.unit.controller.operating import Stage as Drains

HOOK = "https://jobs.example/reboot"
REBOOT_TICKS = 3


@dataclass
class Reboots:
    """Implements ports.hooks.Hooks: what is called reboots its host."""

    stage: Rebooting
    command: bool = False
    called: list[Notice] = field(default_factory=list)
    faults: list[SternaError | None] = field(default_factory=list)
    """To raise after the call has been taken; None: no error this time."""
    ignores: set[str] = field(default_factory=set)
    """Hosts whose calls lead to nothing."""

    def has_command(self) -> bool:
        return self.command

    def against(self, url: str) -> str:
        return "" if url == HOOK else "it is not on the list"

    async def call(self, url: str, notice: Notice, right: Right) -> None:
        assert url == HOOK
        await self.run(notice, 0.0, right)

    async def run(self, notice: Notice, limit_s: float, right: Right) -> None:
        seen = notice.key in {one.key for one in self.called}
        self.called.append(notice)
        if not seen and notice.host not in self.ignores:
            self.stage.reboot(notice.host)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault

    def keys(self) -> dict[str, set[str]]:
        """Host -> the keys that it was called with."""
        found: dict[str, set[str]] = {}
        for one in self.called:
            found.setdefault(one.host, set()).add(one.key)
        return found


@dataclass
class Rebooting(Drains):
    """Hosts a, b and c, with the VMs x1, x2 and x3 on a."""

    reboots: Counter[str] = field(default_factory=Counter)
    """How often each host has rebooted."""
    returns: dict[str, int] = field(default_factory=dict)
    """Hosts that boot, and in how many ticks they are up."""
    most_closed: int = 0
    """Hosts that took no VMs at the same time, at most."""

    def __post_init__(self) -> None:
        self.hooks = Reboots(self)
        self.controller.use_hooks(self.hooks)

    def reboot(self, host: str) -> None:
        """Its agent goes away and comes back as another one. No VM may be there."""
        agent = self.bus.agents[host]
        assert not agent.vms, f"{host} was rebooted under {agent.vms}"
        self.reboots[host] += 1
        agent.listening = False
        self.returns[host] = REBOOT_TICKS

    def boot(self) -> None:
        """Some seconds pass for those that boot."""
        for host in list(self.returns):
            self.returns[host] -= 1
            if not self.returns[host]:
                del self.returns[host]
                agent = self.bus.agents[host]
                agent.listening, agent.boot = True, f"life-{self.reboots[host] + 1}"

    async def tick(self) -> None:
        self.boot()
        await super().tick()
        await self.controller.operations.between.drained()
        closed = [host.name for host in await self.controller.registry.hosts() if host.maintenance]
        self.most_closed = max(self.most_closed, len(closed))

    async def roll(self, *hosts: str, between: Between | None = None, **more: object) -> OperationRecord:
        """Begin, by default with the webhook."""
        asked = {"kind": OperationKind.ROLLING, "between": between or Between(webhook=HOOK)}
        return await self.begin(*(hosts or ("a", "b", "c")), **asked | more)  # type: ignore[arg-type]

    async def steps(self, id: str = OPERATION) -> dict[str, HostStep]:
        return {step.host: step for step in await self.controller.fleet.host_steps(id)}

    async def stages(self) -> dict[str, str]:
        return {host: step.stage.value for host, step in (await self.steps()).items()}

    async def until(self, host: str, stage: Stage, ticks: int = 60, then: Callable[[], None] | None = None) -> None:
        """That host is so far. Migrations complete."""
        for _ in range(ticks):
            await self.tick()
            if (await self.steps())[host].stage is stage:
                return
            (then or self.complete_all)()
        raise AssertionError(f"{host} is {(await self.steps())[host]}")

    async def order(self, what: Order) -> None:
        await self.controller.operate.order(OPERATION, what, "token:ops")

    async def closed(self) -> set[str]:
        return {host.name for host in await self.controller.registry.hosts() if host.maintenance}
