"""Plan a migration: what is in the way, and what it would cost. Changes nothing.

A plan has every blocker, as `migrate_vm` would name them. It has the dirty rate, measured on the running guest. It
has the bandwidth: the requested one, or the one learnt from finished migrations between the two hosts. From these
follow time, downtime, bytes and odds for each way of ending the copy.
"""

from __future__ import annotations

from sterna.controller import reasons
from sterna.controller.calls import AgentCalls, reading
from sterna.controller.intents.migrate_vm import MigrateVm
from sterna.controller.intents.rehearse_migration import Rehearsal
from sterna.controller.intents.request import MigrateRequest, check_params
from sterna.controller.records.forecasts import ForecastHistory
from sterna.controller.records.inventory import Inventory
from sterna.controller.records.registry import Registry
from sterna.domain.capabilities import Capabilities, Guest, Pair
from sterna.domain.copying import GuestLoad
from sterna.domain.errors import NotFound, Refused, SternaError, Unreachable
from sterna.domain.experience import Accuracy, Experience, accuracy
from sterna.domain.forecast import Forecast, Link, Load, converges, forecasts
from sterna.domain.model import Data, GuestState, Refusal, Value, Vm
from sterna.domain.objective import Asked, Objective, Solution, objective, solve
from sterna.domain.working_set import working_set, writes_in_turn
from sterna.ports.fleet import VmRecord

MEASURE_SILENCE_S = 10.0
"""The agent sends heartbeats while it measures."""
MEASURE_LONGEST_S = 20.0
"""It measures for five seconds, and gives up by itself after ten more; a libvirt that hangs does neither."""


class Plan(Value):
    """Checks and forecasts of a migration."""

    vm: VmRecord
    destination: str | None
    """None if no host is possible."""
    blockers: tuple[Refusal, ...] = ()
    """Reasons why it would be refused now."""
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Reasons for the parameters of the copy."""
    load: Load | None = None
    load_reason: str = ""
    """Why the load is unknown."""
    bandwidth_bytes_s: int | None = None
    bandwidth_from: str = ""
    """`asked`, `learnt`, or why it is unknown. With a bandwidth limit in the request there is a forecast anyway."""
    forecasts: tuple[Forecast, ...] = ()
    rehearsal: Rehearsal | None = None
    """Result of the rehearsal, if one was requested and there are no blockers."""


class Forecasting(Value):
    """Forecasts compared with results, for migrations whose load and bandwidth were known before the copy."""

    time: Accuracy
    """From the request to the end."""
    downtime: Accuracy
    bytes_sent: Accuracy


class PlanMigration:
    """The intent "what if"."""

    def __init__(
        self,
        forecast_history: ForecastHistory,
        registry: Registry,
        inventory: Inventory,
        calls: AgentCalls,
        migrate: MigrateVm,
    ) -> None:
        self._forecast_history, self._registry, self._inventory = forecast_history, registry, inventory
        self._calls, self._migrate = calls, migrate

    async def plan(self, vm: str, destination: str | None, asked: Asked, *, ignore_rules: bool = False) -> Plan:
        """Raises VmMissing where there is no such VM; Refused where what is asked makes no sense."""
        wanted, wrong = objective(asked)
        if wanted is None:
            raise Refused(wrong)
        found, details = await self._inventory.show(vm)
        chosen, blockers = await self._judge(
            MigrateRequest(vm=found.uuid, destination=destination, asked=asked, ignore_rules=ignore_rules)
        )
        details = await self._with_local_disks(found, chosen, details, asked)
        plan = Plan(vm=found, destination=chosen, blockers=tuple(blockers))
        plan = await self._foreseen(plan, wanted, details)
        return await self._solved(plan, wanted, details)

    async def accuracy(self) -> Forecasting:
        """How good the forecasts of the last completed migrations were."""
        outcomes = await self._forecast_history.outcomes()
        return Forecasting(
            time=accuracy(outcomes, "total_ms"),
            downtime=accuracy(outcomes, "downtime_ms"),
            bytes_sent=accuracy(outcomes, "bytes_sent"),
        )

    async def _judge(self, request: MigrateRequest) -> tuple[str | None, tuple[Refusal, ...]]:
        try:
            _, chosen = await self._migrate.judge(request)
        except (Refused, reasons.VmBusy, reasons.VmMissing) as e:
            return request.destination, tuple(e.refusals)
        return chosen, ()

    async def _with_local_disks(
        self, vm: VmRecord, destination: str | None, details: Vm | None, asked: Asked
    ) -> Vm | None:
        """The VM with what only its host can see marked as such, as far as both hosts can be asked."""
        if details is None or destination is None:
            return details
        options = MigrateRequest(vm=vm.uuid, asked=asked).options
        options = options.going_to(self._registry.enrolled_at(destination))
        try:
            answer = await self._ask(vm.host, "check_migration", check_params(vm, destination, options))
            with reading(vm.host, "check_migration"):
                return Vm.model_validate(answer["vm"]) if "vm" in answer else details
        except SternaError:
            return details

    async def _solved(self, plan: Plan, wanted: Objective, details: Vm | None) -> Plan:
        """With what the copy would be made of, where both hosts and the VM are known."""
        hosts = await self._pair(plan, wanted)
        if hosts is None or details is None:
            return plan
        ends = converges(plan.forecasts[0] if plan.forecasts else None)
        answer: Solution = solve(wanted, hosts, Guest.of(details), converges=ends)
        return plan.model_copy(
            update={
                "blockers": tuple(reasons.unique([*plan.blockers, *answer.refusals])),
                "warnings": (*answer.warnings, *details.unjudged),
                "reasons": answer.reasons,
            }
        )

    async def _pair(self, plan: Plan, wanted: Objective) -> Pair | None:
        try:
            ends = [await self._registry.host(name) for name in (plan.vm.host, plan.destination or "")]
        except NotFound:
            return None
        source, destination = (Capabilities.of(host.facts) for host in ends)
        return Pair(source=source, destination=destination)

    async def _foreseen(self, plan: Plan, wanted: Objective, details: Vm | None) -> Plan:
        """With the forecasts, as far as load and bandwidth are known."""
        load, why = await self._measured(plan.vm, details)
        if load is not None:
            self._forecast_history.measured(plan.vm.uuid, load)
        link, unknown = await self._link(plan, wanted.bandwidth_bytes_s)
        seen: tuple[Forecast, ...] = ()
        if load is not None and link is not None:
            limits = {"max_downtime_ms": wanted.max_downtime_ms, "first_downtime_ms": wanted.first_downtime_ms}
            seen = forecasts(load, link, **limits, within_s=wanted.finish_within_s)
        return plan.model_copy(
            update={
                "load": load,
                "load_reason": why,
                "bandwidth_bytes_s": link.bandwidth_bytes_s if link else None,
                "bandwidth_from": unknown if link is None else "asked" if link.limited else "learnt",
                "forecasts": seen,
            }
        )

    async def _link(self, plan: Plan, limit: int | None) -> tuple[Link | None, str]:
        """The link that the forecast assumes; why it is not known where it is not."""
        about = plan.vm.uuid, plan.vm.host, plan.destination or ""
        try:
            expectations = await self._forecast_history.expectations(*about, bandwidth_bytes_s=limit)
        except Unreachable as e:
            return self._forecast_history.expectations_from(
                Experience(), *about, bandwidth_bytes_s=limit
            ).link, e.message
        return expectations.link, "no migration between these hosts has sent enough data to know it"

    async def _ask(self, host: str, method: str, params: Data) -> Data:
        return await self._calls.call(host, method, params, silence_s=MEASURE_SILENCE_S, total_s=MEASURE_LONGEST_S)

    async def _measured(self, vm: VmRecord, details: Vm | None) -> tuple[Load | None, str]:
        if details is None or not self._registry.is_up(vm.host):
            return None, f"{vm.host} does not answer"
        if details.state is not GuestState.RUNNING:
            return None, f"{vm.name} is {details.state}"
        try:
            answer = await self._ask(vm.host, "measure_load", {"vm": vm.uuid})
            with reading(vm.host, "measure_load"):
                return load_of(details, [GuestLoad.model_validate(w) for w in answer["windows"]]), ""
        except SternaError as e:
            return None, e.message


def load_of(vm: Vm, windows: list[GuestLoad]) -> Load:
    """The load from one measurement or several of different length."""
    short, long = min(windows, key=lambda w: w.period_s), max(windows, key=lambda w: w.period_s)
    looks = (short.period_s, short.dirty_bytes), (long.period_s, long.dirty_bytes)
    round_it = working_set(*looks)
    touched = vm.memory_bytes if short.allocated_bytes is None else short.allocated_bytes
    return Load(
        memory_bytes=vm.memory_bytes,
        allocated_bytes=short.allocated_bytes,
        dirty_bytes=long.dirty_bytes,
        dirty_period_s=long.period_s,
        working_set_bytes=round_it,
        in_turn=round_it is None and writes_in_turn(*looks, touched),
        disk_bytes=sum(d.allocation_bytes or 0 for d in vm.disks if d.local),
    )
