"""Migrate a VM: judge the request, choose the destination, and ask the source's agent. The agents do the rest.

Every reason against it is given at once. The VM is taken by compare-and-swap before the source is asked, so two
controllers cannot both ask; the source's journal decides in the end. A request repeated with the same id gets
the same migration.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

import structlog

from sterna.controller import reasons
from sterna.controller.calls import AgentCalls, reading
from sterna.controller.intents import choose_host
from sterna.controller.intents.request import MigrateRequest, check_params, local_disks, proposal, start_params
from sterna.controller.reasons import about
from sterna.controller.records.forecasts import ForecastHistory
from sterna.controller.records.inventory import Inventory
from sterna.controller.records.registry import Host, Registry
from sterna.domain import untrusted
from sterna.domain.errors import Conflict, NotFound, Refused, SternaError, Temporary, Unknown, Unreachable
from sterna.domain.experience import Experience
from sterna.domain.fleet.rule_checks import Placed, RuleFacts
from sterna.domain.forecast import Expectations
from sterna.domain.hosts import namesake
from sterna.domain.journal import Migration
from sterna.domain.model import Data, GuestState, Refusal
from sterna.ports.clock import Clock
from sterna.ports.cloud import NovaReads
from sterna.ports.fleet import Fleet, MigrationRecord, VmRecord
from sterna.ports.identity import Permits

log = structlog.get_logger(__name__)

START_TRIES = 5
"""How often the source is asked when its answers are lost, before the request is left to be looked after later."""
ASK_AGAIN_S = 1.0
ASKING_S = 80.0
"""All of these tries together, the permit included: a source that hangs may go on sending heartbeats."""
JUDGE_S = 90.0
"""A request, and what a plan asks, is judged within this time, however slow hosts and database are: others wait for
it. The hosts take 80 s of it at most, twice 10 s to list their VMs and 60 s to check, or to choose among them."""
MOST_WAITING = 5_000
"""Requests that wait their turn; each is a connection and a few kB. More are refused with Retry-After."""
CHECK_SILENCE_S = 15.0
"""A check makes both agents look at disks and libvirt; they send heartbeats while they do."""
CHECK_LONGEST_S = 60.0
"""And no longer than this: one host whose libvirt hangs must not keep a VM from going to another."""


class MigrateVm:
    """The intent "this VM shall run elsewhere"."""

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        inventory: Inventory,
        calls: AgentCalls,
        clock: Clock,
        forecast_history: ForecastHistory,
        nova: NovaReads | None = None,
    ) -> None:
        """`nova`: one whose VMs are left alone; None where there is none."""
        self._fleet, self._registry, self._inventory, self._nova = fleet, registry, inventory, nova
        self._calls, self._clock, self._forecast_history = calls, clock, forecast_history
        self.permits: Permits | None = None
        """None: this controller has no certificate, and destinations believe the source."""
        self._gates: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        """By gate: how many requests are in it or wait before it."""
        self._under_way: dict[str, tuple[MigrateRequest, asyncio.Task[tuple[MigrationRecord, bool]]]] = {}

    async def start(self, request: MigrateRequest) -> tuple[MigrationRecord, bool]:
        """The migration, and whether the id was known already.

        Raises VmMissing, VmBusy, Refused, each with all reasons; Conflict where the id belongs to another request
        or another controller was faster; Unreachable where the source was never reached.
        """
        request = request.model_copy(update={"id": request.id or str(uuid4())})
        first, task = self._under_way.get(request.id, (None, None))
        if task is not None:
            if first is None or first.asking_as(request) != request:
                raise reasons.other_request(request.id)
            record, _ = await asyncio.shield(task)
            return record, True
        task = asyncio.create_task(self._start(request), name=f"start-{request.id}")
        self._under_way[request.id] = request, task
        task.add_done_callback(lambda _: self._under_way.pop(request.id, None))
        return await asyncio.shield(task)  # goes on when the user hangs up

    async def _start(self, request: MigrateRequest) -> tuple[MigrationRecord, bool]:
        known = await self._known(request)
        if known is not None:
            return known, True
        try:
            async with self._gate(request.vm):
                return await self._admit(await self._judged(request), ignore_rules=request.ignore_rules)
        except reasons.VmBusy:
            known = await self._known(request)  # another controller may have accepted this request in the meantime
            if known is None:
                raise
            return known, True

    @asynccontextmanager
    async def _gate(self, vm: str) -> AsyncIterator[None]:
        """One request at a time for one name of a VM: judging one means asking every host, and of a thousand that
        come at once only one can be admitted. Raises Temporary where too many wait already."""
        if self._waiting.total() >= MOST_WAITING:
            fix = "try again in a moment"
            raise Temporary(f"{self._waiting.total()} requests to migrate are already waiting", fix=fix)
        self._waiting[vm] += 1
        gate = self._gates.setdefault(vm, asyncio.Lock())
        try:
            async with gate:
                yield
        finally:
            self._waiting[vm] -= 1
            if not self._waiting[vm]:  # a lock that is open for an instant may have waiters
                del self._waiting[vm], self._gates[vm]

    async def _refuse_busy(self, request: MigrateRequest) -> None:
        """Say at once that a VM is taken, without asking any host. Raises VmBusy with what else is known here."""
        found = await self._fleet.vms_called(request.vm)
        if len(found) == 1 and found[0].migration_id is not None:
            busy = reasons.under_way(found[0].name, found[0].migration_id)
            more: list[Refusal] = []
            if request.destination is not None:
                more = await self._against_destination(request.destination, found[0])
            reasons.refuse([busy, *more])

    async def _judged(self, request: MigrateRequest) -> Migration:
        """What the source is asked to accept. Raises as `start`; Unreachable after JUDGE_S."""
        async with _in_time(request):
            await self._refuse_busy(request)
            vm, destination = await self._judge(request, accepting=True)
            expectations = await self._expectations(request, vm, destination)
        return proposal(request, vm, destination, expectations, self._clock.now().isoformat())

    async def _expectations(self, request: MigrateRequest, vm: VmRecord, destination: str) -> Expectations:
        """Without past migrations where the database does not return them: only a forecast is lost."""
        about, limit = (vm.uuid, vm.host, destination), request.asked.bandwidth_bytes_s
        try:
            return await self._forecast_history.expectations(*about, bandwidth_bytes_s=limit)
        except Unreachable as e:
            log.info("a migration starts without the results of past ones", migration=request.id, why=e.message)
            return self._forecast_history.expectations_from(Experience(), *about, bandwidth_bytes_s=limit)

    async def _admit(self, proposed: Migration, *, ignore_rules: bool) -> tuple[MigrationRecord, bool]:
        up = None if ignore_rules else self._registry.usable()
        try:
            record, repeated = await self._fleet.admit(proposed, proposed.created_at, up)
        except Conflict as e:
            raise reasons.VmBusy([Refusal(code=reasons.UNDER_WAY, message=e.message, fix=e.fix)]) from None
        if repeated:
            return record, True
        return await self._ask_source(record), False

    async def _known(self, request: MigrateRequest) -> MigrationRecord | None:
        try:
            known = await self._fleet.migration(request.id)
        except NotFound:
            return None
        migration = known.migration
        named = request.vm == migration.vm_name or request.vm.lower() == migration.vm_uuid
        if not named or request.destination not in (None, migration.destination):
            raise reasons.other_request(request.id)
        # its first request may still be refused: what a client was given must exist when it asks again
        return known if known.accepted or known.status.final else await self._fleet.promise(request.id)

    # ------------------------------------------------------------ may it go, and where to

    async def judge(self, request: MigrateRequest) -> tuple[VmRecord, str]:
        """The VM and where it would go, changing nothing. Raises as `start` does, every reason at once; Unreachable
        after JUDGE_S."""
        async with _in_time(request):
            return await self._judge(request)

    async def _judge(self, request: MigrateRequest, *, accepting: bool = False) -> tuple[VmRecord, str]:
        """The VM and its destination. Raises with every reason at once.

        `accepting`: the source is asked to accept right afterwards and checks everything itself; where nothing
        speaks against it here, it is not asked twice.
        """
        vm: VmRecord | None = None
        found: list[Refusal] = []
        try:
            vm = await self._inventory.find(request.vm)
        except (reasons.VmMissing, Refused) as e:
            found += e.refusals
        if request.destination is not None:
            found += await self._against_destination(request.destination, vm)
        if vm is None:
            reasons.refuse(found)
            raise NotFound(f"there is no VM {request.vm}")  # pragma: no cover - refuse() has raised
        if vm.migration_id is not None:
            # it is half-way already: what its hosts would say of another move means nothing
            reasons.refuse([reasons.under_way(vm.name, vm.migration_id), *found])
        owned, by_rules = await self._against_owner(vm), await self._by_rules(vm, request)
        found += [*owned, *await self._against_source(vm)]
        if not self._registry.is_up(vm.host):
            reasons.refuse(found)
        if request.destination is None:
            return vm, await self._choose(vm, request, owned, by_rules)
        found += by_rules(request.destination) if request.destination != vm.host else []
        unusable = {reasons.NO_SUCH_HOST, reasons.SAME_HOST, reasons.DESTINATION_DOWN}
        usable = not unusable & {r.code for r in found}
        if accepting and not found and vm.state is not GuestState.UNKNOWN and request.copies_disks:
            return vm, request.destination
        # where the destination cannot be asked, the source's reasons are still reported
        refusals = await self._check(vm, request.destination if usable else vm.host, request)
        covered = {reasons.SAME_HOST, reasons.DESTINATION_DOWN} if not usable else set()
        reasons.refuse(reasons.unique([*found, *(r for r in refusals if r.code not in covered)]))
        return vm, request.destination

    async def _against_source(self, vm: VmRecord) -> list[Refusal]:
        host = await self._registry.host(vm.host)
        trouble, found = host.not_usable(self._calls.bus_state()), self._against_name(vm.host)
        if trouble is None:
            return found
        if host.up:
            return [reasons.source_degraded(vm.name, vm.host, trouble), *found]
        return [reasons.source_down(vm.name, vm.host, vm.observed_at, trouble), *found]

    def _against_name(self, host: str) -> list[Refusal]:
        other = namesake(host, self._registry.described())
        return [reasons.network_host_shared(host, other)] if other else []

    async def _against_destination(self, name: str, vm: VmRecord | None) -> list[Refusal]:
        try:
            host = await self._registry.host(name)
        except NotFound:
            return [reasons.no_such_host(name)]
        return self._against(host, vm)

    def _against(self, host: Host, vm: VmRecord | None) -> list[Refusal]:
        name, found = host.name, list[Refusal]()
        if vm is not None and vm.host == name:
            found.append(reasons.same_host(vm.name, name))
        elif (trouble := host.not_usable(self._calls.bus_state())) is not None:
            against = reasons.destination_degraded if host.up else reasons.destination_down
            found.append(against(name, trouble))
        if host.maintenance and not (vm is not None and vm.host == name):
            found.append(reasons.in_maintenance(name, host.maintenance_reason))
        return found if vm is not None and vm.host == name else found + self._against_name(name)

    async def _against_owner(self, vm: VmRecord) -> list[Refusal]:
        """Nova made it, and may have it on a host of its own."""
        if self._nova is None or vm.nova is None:
            return []
        try:
            host = await self._nova.host_of(vm.uuid)
        except SternaError as e:
            return [reasons.nova_silent(vm.name, e.message)]
        return [] if host is None else [reasons.nova_owned(vm.name, host)]

    async def _by_rules(self, vm: VmRecord, request: MigrateRequest) -> Callable[[str], list[Refusal]]:
        """What placement rules have against each host."""
        facts = RuleFacts() if request.ignore_rules else await self._fleet.rule_facts(vm.uuid, vm.name)
        return facts.judge(Placed(uuid=vm.uuid, name=vm.name, host=vm.host), self._registry.usable()).against

    async def _check(self, vm: VmRecord, destination: str, request: MigrateRequest) -> list[Refusal]:
        """What the source's agent, and through it the destination's, has against it."""
        options = request.options.going_to(self._registry.enrolled_at(destination))
        params = check_params(vm, destination, options)
        try:
            ask = partial(self._calls.call, silence_s=CHECK_SILENCE_S, total_s=CHECK_LONGEST_S)
            answer = await ask(vm.host, "check_migration", params)
            with reading(vm.host, "check_migration"):
                found = [Refusal.model_validate(r) for r in answer.get("refusals", ())]
                local = [] if request.copies_disks else local_disks(answer)
                return [*found, reasons.copy_unwanted(vm.name, local)] if local else found
        except (Unreachable, Unknown) as e:
            message = f"{vm.host}, where {vm.name} runs, cannot be asked: {e.message}"
            return [Refusal(code=reasons.SOURCE_DOWN, message=message, fix=e.fix)]

    async def _choose(
        self,
        vm: VmRecord,
        request: MigrateRequest,
        against_vm: Sequence[Refusal],
        by_rules: Callable[[str], list[Refusal]],
    ) -> str:
        """The host with the most free memory among those without a reason against them. Raises with each one's
        reasons, and those against any move."""
        others = [h for h in await self._registry.hosts() if h.name != vm.host]
        if not others:
            refusals = await self._check(vm, vm.host, request)
            against = [r for r in refusals if r.code != reasons.SAME_HOST]
            reasons.refuse([*against_vm, reasons.no_destination(vm.name), *against])
        others.sort(key=lambda h: h.facts.memory_free_bytes, reverse=True)
        against_host = {host.name: [*self._against(host, vm), *by_rules(host.name)] for host in others}
        usable = [host for host, found in against_host.items() if not found]
        choice = await choose_host.choose(usable, lambda host: self._check(vm, host, request))
        if choice.host is not None:
            reasons.refuse(against_vm)
            return choice.host
        unusable = {host: found for host, found in against_host.items() if found}
        reasons.refuse([*against_vm, *choose_host.refusals(vm, choice, unusable)])
        raise NotFound("no destination")  # pragma: no cover - refuse() has raised

    # ------------------------------------------------------------ the request to the source

    async def _ask_source(self, record: MigrationRecord) -> MigrationRecord:
        proposed = record.migration
        began_ms, doubt = self._clock.monotonic_ms(), ""
        params = await self._start_params(proposed)
        for _ in range(START_TRIES):
            left_s = ASKING_S - (self._clock.monotonic_ms() - began_ms) / 1000
            if left_s <= 0:
                break
            try:
                accepted = await self._ask_once(proposed, params, left_s)
            except Unknown as e:
                doubt = e.message
            except Temporary as e:
                if not doubt:  # never delivered or turned away, so it was never begun
                    await self._withdraw(proposed, e)
                    raise
                doubt = e.message
            except Refused as e:
                await self._withdraw(proposed, e)
                reasons.refuse(reasons.unique(e.refusals))
                raise
            except SternaError as e:
                await self._withdraw(proposed, e)
                raise
            else:
                by = proposed.requested_by
                log.info("a migration was accepted", destination=proposed.destination, by=by, **about(proposed))
                return await self._accepted(record, accepted)
            await self._clock.sleep(ASK_AGAIN_S)
        log.warning("unknown whether the source has accepted the migration", why=doubt, **about(proposed))
        reason = f"waiting for {proposed.source} to confirm that it has accepted it: {doubt}"
        await self._fleet.explain(proposed.id, reason, self._clock.now().isoformat())
        return record.model_copy(update={"reason": reason})

    async def _accepted(self, record: MigrationRecord, accepted: Migration) -> MigrationRecord:
        """Whatever the database answers: the source has it, and the records get that from its journal a little
        later."""
        at = self._clock.now().isoformat()
        try:
            return await self._fleet.accepted(accepted, at)
        except SternaError as e:
            log.warning("an accepted migration is recorded as accepted later", why=e.message, **about(accepted))
            return record.model_copy(update={"migration": accepted, "accepted": True, "updated_at": at})

    async def _withdraw(self, proposed: Migration, error: SternaError) -> None:
        log.info("a migration was refused", destination=proposed.destination, why=error.message, **about(proposed))
        await self._fleet.withdraw(proposed.id, error.message, self._clock.now().isoformat())

    async def _start_params(self, proposed: Migration) -> Data:
        """Made once for all tries: an error here means that the source was not asked. Raises SternaError."""
        there = self._registry.enrolled_at(proposed.destination)
        try:
            permit = await self.permits.issue(self._named(proposed)) if self.permits is not None else ""
        except SternaError as e:
            await self._withdraw(proposed, e)
            raise
        asked = {"options": proposed.options.going_to(there), "permit": permit}
        return start_params(proposed.model_copy(update=asked))

    def _named(self, proposed: Migration) -> Migration:
        """With what the cloud calls both hosts, by their last heartbeats."""
        called = {facts.name: facts.in_cloud for facts in self._registry.described()}
        source, destination = (called.get(host, "") for host in (proposed.source, proposed.destination))
        return proposed.model_copy(update={"options": proposed.options.between((source, destination))})

    async def _ask_once(self, proposed: Migration, params: Data, total_s: float) -> Migration:
        answer = await self._calls.call(
            proposed.source,
            "start_migration",
            params,
            migration_id=proposed.id,
            silence_s=CHECK_SILENCE_S,
            total_s=total_s,
        )
        with reading(proposed.source, "start_migration"):
            accepted = untrusted.migration(answer["migration"])
            if not accepted.is_about_the_same(proposed):
                raise ValueError(f"it is about migration {accepted.id} of {accepted.vm_uuid}")
            return accepted


@asynccontextmanager
async def _in_time(request: MigrateRequest) -> AsyncIterator[None]:
    """Raises Unreachable after JUDGE_S."""
    try:
        async with asyncio.timeout(JUDGE_S):
            yield
    except TimeoutError as e:
        why = f"{request.vm} could not be checked within {JUDGE_S:g} s"
        raise Unreachable(why, fix="check that the controller's database and all hosts answer") from e
