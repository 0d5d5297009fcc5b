"""What a simulated agent answers to controllers: every request of an operation, of a single migration, and about
hosts that were declared dead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bench.fleetsim import incoming
from bench.fleetsim.host import SimHost
from bench.fleetsim.journal import Half
from bench.fleetsim.outgoing import Outgoing
from bench.fleetsim.steering import Act
from sterna.agent.params import migration_options, required_text
from sterna.domain.errors import BadRequest, Conflict, NotFound, Refused
from sterna.domain.journal import Migration, Role
from sterna.domain.model import Data, GuestState, Refusal, Vm
from sterna.domain.options import MigrationOptions
from sterna.domain.policies import May
from sterna.domain.status import Status
from sterna.domain.trust.callers import not_theirs
from sterna.rpc.envelope import Request
from sterna.rpc.server import RpcServer

if TYPE_CHECKING:
    from bench.fleetsim.crowd import Crowd

CHECK_S = 0.05
"""What both hosts take for a check."""
LEAST_BYTES_S = 2**20
GOES_BACK = (Status.ROLLING_BACK, Status.FAILED, Status.CANCELLED)


class Answers:
    """One host's."""

    def __init__(self, crowd: Crowd, host: SimHost) -> None:
        self._crowd, self._host, self._journal = crowd, host, host.journal
        self._methods: dict[str, Callable[[Request], Awaitable[Data]]] = {
            "ping": self._ping,
            "describe_host": self._describe_host,
            "list_vms": self._list_vms,
            "show_vm": self._show_vm,
            "journal_since": self._journal_since,
            "check_migration": self._check_migration,
            "start_migration": self._start_migration,
            "decline_migration": self._decline_migration,
            "abort_migration": self._abort_migration,
            "tune_migration": self._tune_migration,
            "switch_to_postcopy": self._switch_to_postcopy,
            "pause_guest": self._pause_guest,
            "fencing_plan": self._fencing_plan,
            "declare_dead": self._declare_dead,
            "declare_alive": self._declare_alive,
            "migration_ending": self._migration_ending,
            "refuse_migration": self._refuse_migration,
        }

    def register(self, server: RpcServer) -> None:
        """Answer what arrives there."""
        server.check_caller = self._check_caller
        for name, answer in self._methods.items():
            server.method(name, self._counting(name, answer))

    def _counting(
        self, name: str, answer: Callable[[Request], Awaitable[Data]]
    ) -> Callable[[Request], Awaitable[Data]]:
        async def count(request: Request) -> Data:
            self._crowd.calls[name] = self._crowd.calls.get(name, 0) + 1
            return await answer(request)

        return count

    def _check_caller(self, request: Request) -> None:
        why = not_theirs(request.method, request.sender, None)
        if why:
            raise BadRequest(f"{request.sender} asks for {request.method}: {why}")

    # ------------------------------------------------------------ about the host

    async def _ping(self, request: Request) -> Data:
        return {"boot": self._journal.boot}

    async def _describe_host(self, request: Request) -> Data:
        return {"host": self._host.described(), "cpu": self._host.cpu.model_dump(mode="json")}

    async def _list_vms(self, request: Request) -> Data:
        return await self._host.whole()

    async def _show_vm(self, request: Request) -> Data:
        return {"vm": self._vm(str(request.params.get("vm", ""))).model_dump(mode="json")}

    async def _journal_since(self, request: Request) -> Data:
        return self._journal.page(int(request.params.get("cursor", 0)), int(request.params.get("limit", 500)))

    def _vm(self, name_or_uuid: str) -> Vm:
        for vm in self._host.vms():
            if name_or_uuid in (vm.uuid, vm.name):
                return Vm(**vm.model_dump(include={"uuid", "name", "state", "memory_bytes", "vcpus"}))
        raise NotFound(f"{self._host.name}: no domain with matching name or UUID '{name_or_uuid}'")

    # ------------------------------------------------------------ may it go?

    def _against(self, vm: Vm, destination: str) -> list[Refusal]:
        if destination == self._host.name:
            return [Refusal(code="same-host", message=f"{vm.name} is on {destination} already")]
        found = []
        if vm.state is not GuestState.RUNNING:
            found.append(Refusal(code="vm-not-running", message=f"{vm.name} is {vm.state}"))
        there = self._crowd.hosts.get(destination)
        if there is None or not there.alive:
            message = f"{destination}'s agent does not answer"
            return [*found, Refusal(code="destination-down", message=message)]
        made = self._crowd.truth.made
        free = self._crowd.truth.free_bytes(destination) - self._claimed(destination)
        if free < vm.memory_bytes:
            message = f"{destination} has {free >> 20} MiB free, {vm.name} needs {vm.memory_bytes >> 20} MiB"
            found.append(Refusal(code="memory-short", message=message))
        if made.vms[vm.uuid].newer and not there.made.newer:
            message = f"{destination} has an older CPU than {vm.name} was started on"
            found.append(Refusal(code="cpu-incompatible", message=message))
        return found

    def _claimed(self, destination: str) -> int:
        """Memory of migrations on their way there, for which no QEMU has been started yet."""
        made, there = self._crowd.truth.made, self._crowd.hosts[destination]
        return sum(
            made.vms[one.migration.vm_uuid].memory_bytes
            for host in self._crowd.hosts.values()
            for one in host.outgoing.values()
            if one.target is there and not one.turned_back and one.migration.id not in there.journal.halves
        )

    async def _check_migration(self, request: Request) -> Data:
        vm = self._vm(required_text(request, "vm"))
        migration_options(request)
        await self._crowd.clock.sleep(CHECK_S)
        against = self._against(vm, required_text(request, "destination"))
        return {"vm": vm.model_dump(mode="json"), "refusals": [one.model_dump() for one in against]}

    # ------------------------------------------------------------ migrations that leave

    async def _start_migration(self, request: Request) -> Data:
        id = required_text(request, "id")
        known = self._journal.halves.get(id)
        if known is not None:
            return self._known(known)
        vm, options = self._vm(required_text(request, "vm")), migration_options(request)
        await self._crowd.clock.sleep(CHECK_S)
        if (known := self._journal.halves.get(id)) is not None:  # asked twice at once
            return self._known(known)
        if id in self._host.declined:
            raise Conflict(f"migration {id} was given up", fix="request it with a new ID")
        if holder := self._journal.holder(vm.uuid):
            raise Conflict(f"{vm.name} is in migration {holder} already")
        if against := self._against(self._vm(vm.uuid), required_text(request, "destination")):
            for one in against:
                self._crowd.refused[one.code] = self._crowd.refused.get(one.code, 0) + 1
            raise Refused(against)
        migration = self._journal.accept(self._proposal(request, vm, options), Role.SOURCE)
        self._crowd.drive(self._host, migration)
        return {"migration": migration.model_dump(mode="json"), "repeated": False}

    def _known(self, half: Half) -> Data:
        if half.role is not Role.SOURCE:
            raise Conflict(f"migration {half.migration.id} arrives here, it does not start here")
        return {"migration": half.wire, "repeated": True}

    def _proposal(self, request: Request, vm: Vm, options: MigrationOptions) -> Migration:
        there = self._crowd.hosts[required_text(request, "destination")]
        return Migration(
            id=required_text(request, "id"),
            epoch=there.journal.newest_epoch(vm.uuid),
            vm_uuid=vm.uuid,
            vm_name=vm.name,
            source=self._host.name,
            destination=there.name,
            source_address=self._host.facts.address,
            destination_address=there.facts.address,
            options=options.agreed(memory_bytes=vm.memory_bytes, network_hosts=("", "")),
            created_at=self._crowd.clock.now().isoformat(),
            requested_by=str(request.params.get("requested_by", "")),
        )

    async def _decline_migration(self, request: Request) -> Data:
        self._host.declined.add(required_text(request, "id"))
        return {}

    def _leaving(self, request: Request) -> Outgoing:
        """What drives it. Raises NotFound; Conflict after its end."""
        id = required_text(request, "id")
        half = self._journal.halves.get(id)
        if half is None or half.role is not Role.SOURCE:
            raise NotFound(f"no migration {id} starts on {self._host.name}")
        outgoing = self._host.outgoing.get(id)
        if outgoing is None:
            raise Conflict(f"{half.migration.vm_name} is no longer being copied")
        return outgoing

    async def _abort_migration(self, request: Request) -> Data:
        half = self._journal.halves.get(required_text(request, "id"))
        if half is not None and half.role is Role.SOURCE and half.status in GOES_BACK:
            return {"accepted": True}  # on its way back already
        outgoing = self._leaving(request)
        if outgoing.past_pivot:
            raise Conflict(f"{outgoing.migration.vm_name} runs on {outgoing.target.name} already")
        outgoing.abort_asked = True
        return {"accepted": True}

    def _copied(self, request: Request) -> Outgoing:
        """Raises Conflict where nothing is copied any more."""
        outgoing = self._leaving(request)
        if outgoing.turned_back or outgoing.past_pivot:
            raise Conflict(f"{outgoing.migration.vm_name} is no longer being copied")
        return outgoing

    async def _tune_migration(self, request: Request) -> Data:
        limit = request.params.get("bandwidth_bytes_s")
        if limit is not None and (not isinstance(limit, int) or limit < LEAST_BYTES_S):
            raise BadRequest(f"a limit of {limit} bytes/s is less than libvirt accepts", fix="give at least 1MiB/s")
        outgoing = self._copied(request)
        if outgoing.copy is None:
            raise Conflict(f"{outgoing.migration.vm_name} is not copied yet", fix="try again in a moment")
        outgoing.copy.cap = float("inf") if limit is None else float(limit)
        self._crowd.links.share()
        return {"accepted": True}

    async def _switch_to_postcopy(self, request: Request) -> Data:
        outgoing = self._copied(request)
        if May.POSTCOPY not in outgoing.migration.options.wanted.may:
            raise Conflict(
                f"the migration of {outgoing.migration.vm_name} was started without permission for post-copy"
            )
        outgoing.wanted = Act.POSTCOPY
        return {"accepted": True}

    async def _pause_guest(self, request: Request) -> Data:
        self._copied(request).wanted = Act.PAUSE
        return {"accepted": True}

    # ------------------------------------------------------------ hosts that were declared dead

    def _common(self, host: str) -> list[Half]:
        """Open halves whose other half is that host's."""
        return [
            half
            for half in self._journal.open()
            if host == (half.migration.destination if half.role is Role.SOURCE else half.migration.source)
        ]

    def _planned(self, half: Half) -> Data:
        will = "end it by what is true here"
        return {"id": half.migration.id, "vm": half.migration.vm_name, "role": half.role.value, "will": will}

    async def _fencing_plan(self, request: Request) -> Data:
        common = self._common(required_text(request, "host"))
        answers = bool(common) and self._crowd.hosts[required_text(request, "host")].alive
        return {"migrations": [self._planned(half) for half in common], "answers": answers}

    async def _declare_dead(self, request: Request) -> Data:
        host = required_text(request, "host")
        common = self._common(host)
        if common and self._crowd.hosts[host].alive:
            raise Refused([Refusal(code="host-answers", message=f"the agent of {host} answers")])
        planned = [self._planned(half) for half in common]
        for half in common:
            if half.role is Role.DESTINATION:
                incoming.settle(self._host, self._crowd.truth, half)
            elif (outgoing := self._host.outgoing.get(half.migration.id)) is not None:
                outgoing.fenced = True
        return {"migrations": planned}

    async def _declare_alive(self, request: Request) -> Data:
        back = []
        for half in self._common(required_text(request, "host")):
            outgoing = self._host.outgoing.get(half.migration.id)
            if outgoing is not None and outgoing.fenced:
                outgoing.fenced = False
                back.append(half.migration.id)
        return {"migrations": back}

    async def _migration_ending(self, request: Request) -> Data:
        half = self._journal.halves.get(request.migration_id)
        return {"ending": "unknown" if half is None else half.closed or "open"}

    async def _refuse_migration(self, request: Request) -> Data:
        half = self._journal.halves.get(request.migration_id)
        if half is None:
            self._host.refused.add(request.migration_id)
        return {"refused": half is None or half.closed is not None}
