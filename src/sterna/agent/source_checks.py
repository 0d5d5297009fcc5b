"""May this VM go there? Every reason at once (invariant 4 of the protocol). Changes nothing.

Called by the controller through `check_migration` before it admits a migration, and again by the source agent
when it accepts one: between the two the world may have changed.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import structlog

from sterna.agent.tokens import CheckTokens
from sterna.agent.vm_checks import (
    OWN_FILE,
    check_address,
    check_initiators,
    check_maximum,
    check_stream,
    check_vm,
    in_use,
    not_believed,
    not_known_as_shared,
    volumes_in_use,
)
from sterna.domain import bridge_vlans, plugs, untrusted
from sterna.domain.calls import Call, CheckDestination, ExpectStream, SeesFile
from sterna.domain.claims import left_behind
from sterna.domain.errors import Permanent, SternaError, StorageSilent, Temporary, Unknown, Unreachable
from sterna.domain.hosts import HostFacts, Transport
from sterna.domain.journal import leaps
from sterna.domain.model import Disk, DiskKind, GuestState, Refusal, StateFile, Value, Vm
from sterna.domain.objective import Objective
from sterna.domain.policies import Accept
from sterna.domain.references import Reference
from sterna.kit.tasks import both
from sterna.migration import secrets
from sterna.migration.context import HostPorts
from sterna.migration.sharing import (
    PeersFiles,
    against_shared_tpm,
    decide_local,
    prove_state,
    prove_written,
    silent_on,
)
from sterna.migration.source import stream
from sterna.ports.records import Journal
from sterna.rpc.client import RpcClient

log = structlog.get_logger(__name__)

A = TypeVar("A", bound=Value)


def _cannot_tell(error: SternaError, destination: str) -> Refusal:
    """The check itself could not be made: that is a reason, too."""
    return Refusal(code="check-failed", message=f"{destination} cannot be checked: {error.message}", fix=error.fix)


def _silent(error: StorageSilent) -> Refusal:
    """Until it answers, other reasons are not known."""
    return Refusal(code="path-silent", message=error.message, fix=error.fix)


def _left_behind(disks: tuple[Disk, ...], destination: str) -> Iterator[str]:
    """Media without which the guest goes on, in words."""
    for disk in disks:
        if path := left_behind(disk):
            yield (
                f"{disk.device} {disk.target}: {path} is optional (startupPolicy), {destination} does not have it, "
                "and it is not sent along: from the switch-over on the guest's drive is empty. The file stays here"
            )


class SourceChecks:
    """The source agent's side of a check; asks the destination's side itself."""

    def __init__(self, host: HostPorts, journal: Journal, client: RpcClient) -> None:
        self._host, self._journal, self._client = host, journal, client
        self.tokens = CheckTokens(host.name, host.hypervisor, host.storage, host.clock)

    async def check(
        self, name_or_uuid: str, destination: str, wanted: Objective, addresses: tuple[str, ...] | None = None
    ) -> tuple[Vm, HostFacts | None, list[Refusal]]:
        """The VM (disks with `local` decided where the destination answered), the destination's facts, and why not.
        `addresses`: where the destination may be; None: where it says. No other place is connected to.

        Raises NotFound where this host has no such VM.
        """
        vm, here = await both(self._host.hypervisor.vm(name_or_uuid), self._host.hypervisor.host())
        vm, not_plugged = await self._as_plugged(vm)
        vm = self._believed(await self._startable_here(vm))
        vm, facts, refusals = await self._against(vm, here, destination, wanted, addresses)
        return vm, facts, [*refusals, *not_plugged]

    async def _against(
        self, vm: Vm, here: HostFacts, destination: str, wanted: Objective, addresses: tuple[str, ...] | None
    ) -> tuple[Vm, HostFacts | None, list[Refusal]]:
        if destination == self._host.name:
            message = f"{vm.name} is on {destination} already"
            same = Refusal(code="same-host", message=message, fix="choose another host")
            return vm, None, [same, *await self._own(vm)]
        try:
            facts, vm = await both(self._facts(destination), self._with_local(vm, destination))
            if elsewhere := check_address(facts, addresses):
                return vm, None, [*await self._own(vm), *elsewhere]
            transport, against = check_stream(vm, here, facts, wanted)
            needs = await secrets.needs_of(self._host, vm)
            asked = CheckDestination(
                vm=vm,
                may=tuple(sorted(wanted.may)),
                definition=await self._host.hypervisor.definition_without_devices(vm.uuid),
                needs=needs,
                cpu="" if Accept.CPU in wanted.accept else await self._host.hypervisor.host_cpu(vm),
                network_host=self._host.network_host,
            )
            answer, unreachable = await both(
                self._ask(destination, asked),
                self._host.hypervisor.check_peer(stream.control_uri(self._host, facts.address, transport)),
            )
        except (Unreachable, Unknown) as error:
            message = f"{destination}'s agent does not answer: {error.message}"
            down = Refusal(code="destination-down", message=message, fix=f"start the Sterna agent on {destination}")
            return vm, None, [*await self._own(vm), down]
        except StorageSilent as error:
            return vm, None, [*await self._own(vm), _silent(error.on(destination))]
        except (Temporary, Permanent) as error:  # an agent answered that it cannot tell now
            return vm, None, [*await self._own(vm), _cannot_tell(error, destination)]
        own = await self._own(vm)
        vm, lies = self._with_epoch(vm, answer.epoch, destination)
        refusals = [*own, *lies, *answer.refusals]
        refusals += against + check_initiators(vm, here, facts) + check_maximum(vm, here, facts, wanted)
        refusals += bridge_vlans.against_libvirt((*vm.nics, *vm.next_start.nics), facts)
        refusals += secrets.cannot_bring(needs, answer.lacking, here.name, facts.name)
        refusals += [unreachable] if unreachable is not None else []
        refusals += await self._check_probe(facts, transport)
        refusals += await volumes_in_use(self._host, vm)
        refusals += [*await self._check_sources(vm, destination), *await self._check_tpm(vm, destination)]
        return vm, facts, refusals + await self._check_network(vm, facts)

    async def _startable_here(self, vm: Vm) -> Vm:
        """Without NICs of its next start that could not be plugged here either: no move makes that worse."""
        kept = []
        for nic in vm.next_start.nics:
            with contextlib.suppress(SternaError):
                if not plugs.is_supported(nic) or await self._host.vif.check(plugs.as_bound(nic)):
                    continue
            kept.append(nic)
        return vm.model_copy(update={"next_start": vm.next_start.model_copy(update={"nics": tuple(kept)})})

    def _with_epoch(self, vm: Vm, theirs: object, destination: str) -> tuple[Vm, list[Refusal]]:
        """A VM that came here by other means has no known past: its next epoch must be new there, too."""
        if not isinstance(theirs, int) or isinstance(theirs, bool):
            return vm, [not_believed(destination, vm, theirs)]
        if leaps(theirs, max(vm.epoch, self._journal.newest_epoch(vm.uuid))):
            return vm, [not_believed(destination, vm, theirs)]
        return vm.model_copy(update={"epoch": max(vm.epoch, theirs)}), []

    async def _with_local(self, vm: Vm, destination: str) -> Vm:
        """With `local` of its disks decided, and what speaks against them. Raises StorageSilent, with the host."""
        with silent_on(self._host.name):
            disks = await self._left_where_they_are(await self._decide_local(vm.disks, destination))
            disks = tuple([await self._measured(disk) for disk in disks])
            cold = await self._decide_local(await self._there_at_all(vm.cold), destination)
            references, firmware = await self._proven(vm, destination)
            kept = [*await self._kept(disks), *_left_behind(disks, destination)]
        found = {"disks": disks, "cold": cold, "references": references, "firmware": firmware}
        return vm.model_copy(update=found | {"unjudged": (*vm.unjudged, *kept)})

    async def _measured(self, disk: Disk) -> Disk:
        """With what its copy will hold, if it is copied with the memory."""
        if not disk.local or disk.carried:
            return disk
        return disk.model_copy(update={"data_bytes": await self._host.storage.data_bytes(disk)})

    async def _kept(self, disks: tuple[Disk, ...]) -> list[str]:
        """Files that will not be removed after the move, in words: a third host may use them, and is not asked."""
        found = []
        for disk in disks:
            if disk.local and disk.path:
                why = (await self._host.storage.sight(disk.path, "none")).of_others
                words = f"disk {disk.target}: {disk.path} stays on {self._host.name} after the migration"
                found += [f"{words}: {why}"] if why else []
        return found

    async def _left_where_they_are(self, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        """With a reason against each file that both hosts see and that the hypervisor takes for this host's own."""
        stay = [d for d in disks if d.kind is DiskKind.FILE and d.local is False and d.path and not d.read_only]
        paths = tuple(disk.path for disk in stay if disk.path)
        own = await self._host.hypervisor.taken_for_local(paths) if paths else ()
        alone = {disk.target: not_known_as_shared(disk, self._host.name) for disk in stay if disk.path in own}
        return tuple(
            disk.model_copy(update={"against": (*disk.against, alone[disk.target])})
            if disk.target in alone
            else disk
            for disk in disks
        )

    async def _own(self, vm: Vm) -> list[Refusal]:
        """What the VM and its own hypervisor say against moving it now."""
        against: list[Refusal] = []
        if self._journal.holder(vm.uuid) is None:  # else the job is that migration's
            try:
                against = await self._host.hypervisor.check_outgoing(vm.uuid)
            except SternaError as error:
                message = f"whether a job is under way with {vm.name} is not known: {error.message}"
                against = [Refusal(code="check-failed", message=message, fix=error.fix)]
        return check_vm(vm, self._journal.holder(vm.uuid), against)

    def _believed(self, vm: Vm) -> Vm:
        """Without the epoch of its metadata where that cannot be true: the next one is this journal's."""
        newest = self._journal.newest_epoch(vm.uuid)
        if not leaps(vm.epoch, newest):
            return vm
        log.warning("ignoring the epoch in a VM's metadata", vm=vm.name, epoch=vm.epoch, newest=newest)
        return vm.model_copy(update={"epoch": newest})

    async def _in_use_there(self, disks: tuple[Disk, ...], destination: str) -> list[Refusal]:
        """Local disks that a domain of the destination uses anyway, under another path."""
        found = []
        for disk in disks:
            path = disk.path or ""
            with self.tokens.fresh() as token:
                await self._host.storage.leave_token(path, token)
                try:
                    asked = SeesFile(path=path, token=token, name=posixpath.basename(path))
                    with silent_on(destination):
                        answer = await self._ask(destination, asked)
                finally:
                    await self._host.storage.drop_token(path, token)
            if answer.users:
                message = f"disk {disk.target}: {path} is used on {destination} by {', '.join(answer.users)}"
                found.append(Refusal(code="disk-in-use", message=message, fix=OWN_FILE))
        return found

    async def _check_probe(self, facts: HostFacts, transport: Transport) -> list[Refusal]:
        """Can a stream reach the destination? Its ports may all be taken just now: the migration waits for one."""
        if self._host.probe is None or transport is Transport.SSH:
            return []
        try:
            port = untrusted.port((await self._ask(facts.name, ExpectStream())).port)
        except SternaError as error:
            return [] if isinstance(error, Temporary | Unknown) else [_cannot_tell(error, facts.name)]
        refused = await self._host.probe.knock(untrusted.address(facts.address), port) if port else None
        return [refused] if refused is not None else []

    async def _check_tpm(self, vm: Vm, destination: str) -> list[Refusal]:
        there = PeersFiles(partial(self._client.call, destination), destination)
        try:
            with self.tokens.fresh() as token:
                return await against_shared_tpm(self._host.storage, there, vm, token)
        except (Temporary, Permanent) as error:
            return [_cannot_tell(error, destination)]

    async def _check_sources(self, vm: Vm, destination: str) -> list[Refusal]:
        """A disk that F10 may not remove here would leave the migration open for ever, the guest long gone."""
        try:
            with silent_on(self._host.name):
                return await self._against_removal(vm, destination)
        except StorageSilent as error:
            return [_silent(error)]

    async def _against_removal(self, vm: Vm, destination: str) -> list[Refusal]:
        local = tuple(d for d in vm.disks if d.local)
        found: list[Refusal] = []
        removable = []
        for disk in local:
            against = await self._host.storage.check_sources((disk,))
            found += against
            removable += [] if against else [disk]
        found += await in_use(self._host, vm, "it would be removed here once the VM has moved")
        try:
            found += await self._in_use_there(tuple(removable), destination)
        except StorageSilent:
            raise
        except SternaError as error:
            found.append(_cannot_tell(error, destination))
        return [r.model_copy(update={"message": f"{self._host.name}: {r.message}"}) for r in found]

    async def _check_network(self, vm: Vm, facts: HostFacts) -> list[Refusal]:
        source, destination = self._host.network_host or self._host.name, facts.network_host or facts.name
        if self._host.network.service and source == destination:  # else its only binding is taken for the other one
            message = f"the network service knows {self._host.name} and {facts.name} by one name, {source}"
            fix = "set the name of each host's network agent: `host` in `[openstack]` of its agent's settings"
            return [Refusal(code="network-host-shared", message=message, fix=fix)]
        try:
            return await self._host.network.check(vm, source, destination)
        except SternaError as error:
            message = f"the network service cannot be asked: {error.message}"
            return [Refusal(code="network-service", message=message, fix=error.fix)]

    async def _as_plugged(self, vm: Vm) -> tuple[Vm, list[Refusal]]:
        """Its NICs as they are plugged here, which the domain's XML need not say; as P2 does it. And a reason
        against each that is not found here, unless its description gives another one."""
        nics, missing = [], []
        for nic in vm.nics:
            try:
                seen = await self._host.vif.describe(nic)
            except SternaError:
                nics.append(nic)  # P2 will say so; what is known of it can be checked
                continue
            nics.append(seen or nic)
            if seen is None and vm.state is GuestState.RUNNING and not (plugs.refusals(nic) or plugs.unknowns(nic)):
                missing.append(plugs.not_plugged(nic))
            elif seen is not None and bridge_vlans.has_vlan(nic) and seen.vlan is None:
                missing.append(bridge_vlans.without_effect(nic, self._host.name))
        return vm.model_copy(update={"nics": tuple(nics)}), missing

    async def _there_at_all(self, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        """Without the files that are missing here: a VM that cannot be started here loses nothing by its move."""
        missing = [d for d in disks if d.path and await self._host.storage.identity(d.path) is None]
        return tuple(d for d in disks if d not in missing)

    async def _ask(self, host: str, call: Call[A]) -> A:
        """Raises as `RpcClient.call`; BadRequest where the answer cannot be read."""
        return untrusted.reply(call, await self._client.call(host, call.method, call.to_wire()))

    async def _facts(self, destination: str) -> HostFacts:
        reply = await self._client.call(destination, "describe_host", {})
        return untrusted.host_facts(reply.get("host"), name=destination)

    async def _proven(self, vm: Vm, destination: str) -> tuple[tuple[Reference, ...], tuple[StateFile, ...]]:
        """What its definition names and its state, with what of both is proven to be shared (as P2 does it)."""
        there = PeersFiles(partial(self._client.call, destination), destination)
        with self.tokens.fresh() as token:
            references = await prove_written(self._host.storage, there, vm.references, token)
            return references, await prove_state(self._host.storage, there, vm.firmware, token)

    async def _decide_local(self, disks: tuple[Disk, ...], destination: str) -> tuple[Disk, ...]:
        """`local` of each disk, by what the destination sees (as P2 does it)."""
        there = PeersFiles(partial(self._client.call, destination), destination)
        with self.tokens.fresh() as token:
            return await decide_local(self._host.storage, there, disks, token)
