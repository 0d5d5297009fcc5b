"""The doctor's looks: at this host, and at others on the way from here. They are judged in `domain/doctor`.

Called by the controller through `examine`, and by `sterna agent doctor` without a running agent. Nothing is changed
but for tokens, which are removed again.
"""

from __future__ import annotations

import posixpath
from typing import TypeVar

import structlog
from pydantic import Field

from sterna.agent.condition import FACTS_S
from sterna.agent.tokens import CheckTokens
from sterna.domain import untrusted
from sterna.domain.calls import Call, ExpectStream, SeesToken
from sterna.domain.doctor.looks import FolderSeen, HostLook, PeerLook, Seen
from sterna.domain.errors import SternaError
from sterna.domain.hosts import HostFacts, Transport
from sterna.domain.model import Data, Value
from sterna.kit.tasks import all_of
from sterna.kit.waiting import within
from sterna.migration.context import HostPorts
from sterna.migration.source.stream import control_uri
from sterna.ports.doctor import DoctorTools, Part
from sterna.rpc.client import RpcClient
from sterna.rpc.envelope import Request

log = structlog.get_logger(__name__)

MOST_PEERS = 16
"""Others that one request has a host look at."""
VMS_S = 10.0
A = TypeVar("A", bound=Value)
_BESIDE = ".sterna"
"""A name in a folder: tokens lie beside a path."""


class Other(Value):
    """A host to look at."""

    name: str = Field(max_length=63)
    address: str = Field(max_length=255)


class Examine(Value):
    """The parameters of `examine`."""

    peers: tuple[Other, ...] = Field(default=(), max_length=MOST_PEERS)


class Doctor:
    """One host's."""

    def __init__(
        self,
        host: HostPorts,
        tools: DoctorTools,
        client: RpcClient | None = None,
        tokens: CheckTokens | None = None,
    ) -> None:
        """Without `client` and `tokens`, what needs another host's answer is left out."""
        self._host, self._tools, self._client, self._tokens = host, tools, client, tokens

    async def examine(self, request: Request) -> Data:
        """`examine {peers: [{name, address}]}`: what this host sees of itself, and of each of these."""
        asked = Examine.model_validate(request.params)
        others = [(untrusted.named(one.name, "peer"), untrusted.address(one.address)) for one in asked.peers]
        return (await self.seen(others)).model_dump(mode="json")

    async def seen(self, others: list[tuple[str, str]]) -> Seen:
        """This host, and these others by name and address. Its clock is read at last: looks take a while."""
        clock = self._host.clock
        began_ms = clock.monotonic_ms()
        look = await self.look()
        peers = await all_of(self.look_at(name, address, look.facts) for name, address in others)
        took_s = (clock.monotonic_ms() - began_ms) / 1000
        last = look.model_copy(update={"now": clock.now().isoformat(), "took_s": took_s})
        return Seen(look=last, peers=tuple(peers))

    async def look(self) -> HostLook:
        """This host. Raises nothing: what cannot be looked at is named."""
        found: Data = {"host": self._host.name}
        unseen: list[str] = []
        own = (Part("libvirt's description of the host", self._facts), Part("its VMs", self._vms, of_libvirt=True))
        parts = [*own, *self._tools.parts]
        for part, answer in zip(parts, await all_of(_looked(part) for part in parts), strict=True):
            if not isinstance(answer, str):
                found |= answer
            elif not part.of_libvirt or "facts" in found:  # which come first
                unseen.append(f"{part.what}: {answer}")
        return HostLook.model_validate(found | {"unseen": tuple(unseen)})

    async def _facts(self) -> Data:
        try:
            return {"facts": await within(self._host.clock, FACTS_S, self._host.hypervisor.host())}
        except TimeoutError:
            fix = (
                "if libvirtd hangs, restart it while no migration from or to this host is running; guests keep "
                "running"
            )
            return {"libvirt_error": f"no answer within {FACTS_S:g} s", "libvirt_fix": fix}
        except SternaError as error:
            return {"libvirt_error": error.message, "libvirt_fix": error.fix}

    async def _vms(self) -> Data:
        vms = await within(self._host.clock, VMS_S, self._host.hypervisor.vms())
        return {"nova_vms": sum(vm.nova is not None for vm in vms)}

    async def look_at(self, peer: str, address: str, here: HostFacts | None) -> PeerLook:
        """Another host, from here. Raises nothing."""
        look = PeerLook(peer=peer, address=address)
        path = self._tools.path
        if path is not None and (why := await path.resolve(address)):
            return look.model_copy(update={"name_error": why})
        transport = here.abilities.transport if here is not None else None
        try:
            uri = control_uri(self._host, address, transport or Transport.TLS)
            found: Data = {"libvirt": await self._host.hypervisor.check_peer(uri)}
            if transport is not Transport.SSH:
                found |= await self._stream(peer, address)
            found["folders"] = tuple(await self._folders(peer))
        except SternaError as error:
            return look.model_copy(update={"error": error.message})
        return look.model_copy(update=found)

    async def _stream(self, peer: str, address: str) -> Data:
        """Does a stream reach it, and do packets of full size?"""
        probe, client = self._host.probe, self._client
        if probe is None or client is None:
            return {}
        port = await self._expected(client, peer)
        if not port:
            return {}
        refused = await probe.knock(address, port)
        found: Data = {"stream_tried": True, "stream": refused}
        if refused is not None or self._tools.path is None or not (port := await self._expected(client, peer)):
            return found
        sent = await self._tools.path.send(address, port)
        return found | {"frames": sent.frames, "segment": sent.segment}

    async def _expected(self, client: RpcClient, peer: str) -> int:
        """A port where the peer takes one connection; 0 for none."""
        return untrusted.port((await _asked(client, peer, ExpectStream())).port)

    async def _folders(self, peer: str) -> list[FolderSeen]:
        """Which folders both hosts see."""
        folders, client, tokens = self._tools.folders, self._client, self._tokens
        if folders is None or client is None or tokens is None or not self._tools.instances_dir:
            return []
        found = []
        for folder, shared in (await folders.shared((self._tools.instances_dir,))).items():
            seen = await self._sees(client, tokens, peer, folder)
            path = posixpath.join(folder, _BESIDE)
            local = bool(seen) and bool(await self._host.hypervisor.taken_for_local((path,)))
            found.append(FolderSeen(path=folder, network=shared, seen=seen, taken_for_local=local))
        return found

    async def _sees(self, client: RpcClient, tokens: CheckTokens, peer: str, folder: str) -> bool | None:
        """Does the peer see the same folder? None where that cannot be tried."""
        path, storage = posixpath.join(folder, _BESIDE), self._host.storage
        try:
            await tokens.sweep_beside(path)  # what an agent that was killed has left
            with tokens.fresh() as token:
                await storage.leave_token(path, token)
                try:
                    return (await _asked(client, peer, SeesToken(path=path, token=token))).seen
                finally:
                    await storage.drop_token(path, token)
        except SternaError as error:
            log.info("whether a folder is shared is not known", folder=folder, peer=peer, why=error.message)
            return None


async def _asked(client: RpcClient, peer: str, call: Call[A]) -> A:
    return untrusted.reply(call, await client.call(peer, call.method, call.to_wire()))


async def _looked(part: Part) -> Data | str:
    """What it saw, or why it could not look."""
    try:
        return await part.look()
    except SternaError as error:
        return error.message
    except (OSError, ValueError) as error:  # TimeoutError is one
        return str(error) or type(error).__name__
