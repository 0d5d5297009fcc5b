"""A cloud for the tests of the Compute API: users by token, ports, volumes, and four VMs on three hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from sterna.api.app import create_app
from sterna.api.compute.call import Setup
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.records.servers import Servers
from sterna.domain.errors import SternaError
from sterna.domain.hosts import VmSummary
from sterna.domain.model import Disk, DiskKind, GuestState
from sterna.domain.nova import Flavor, NovaFacts
from sterna.ports.cloud import CloudVolume, ServerPort, VolumeAttachment
from sterna.ports.users import ExternalUser

from ...controller.conftest import World
from ...controller.fakes import uuid
from ...domain.journals import good_destination, good_source
from ..clients import ACCESS

OURS, THEIRS = "b9d31071c22140c98214a11262d297e4", "f84103e230c646d09a81148ebebf7dc9"
USER = "48313f875abc4b309736f9c7da8b69e7"
WEB1, DB1, OFF1, LOST1 = uuid(1), uuid(2), uuid(3), uuid(4)
VOLUME, ATTACHMENT = "42bec667-7dd8-4de5-8734-b3b9164dc959", "49252e70-7a24-43fb-8346-36e2ae2e947e"
NETWORK, SUBNET = "346493cd-31a6-4fc4-bd4e-64e0fbc3b04a", "ecd08294-a64c-4f65-adf8-8f330c7f0f3f"
FLAVOR = "d86dc730-8404-45d8-bfb9-60427b0d961c"
LOCAL = Disk(target="vdb", kind=DiskKind.FILE, path="/images/web1.qcow2", local=True)
ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": (OURS, ("admin",)),
    "manager": (OURS, ("manager",)),
    "member": (OURS, ("member",)),
    "reader": (OURS, ("reader",)),
    "nobody": (OURS, ("gardener",)),
    "service": (THEIRS, ("service",)),
    "stranger": (THEIRS, ("manager",)),
    "unscoped": ("", ()),
    "of-a-domain": ("", ("admin", "manager", "service")),
}
"""By token: the project, and the roles in it."""


@dataclass
class FakeKeystone:
    """`ports.users.UserDirectory`."""

    fault: SternaError | None = None
    questions: int = 0

    async def user(self, token: str) -> ExternalUser | None:
        self.questions += 1
        if self.fault is not None:
            raise self.fault
        if token not in ROLES:
            return None
        project, roles = ROLES[token]
        return ExternalUser(
            name=f"{token}@Default",
            project="web@Default" if project else "",
            roles=roles,
            user_id=USER,
            project_id=project,
            expires_at="2100-01-01T00:00:00.000000Z",
        )


@dataclass
class FakeCloud:
    """`ports.cloud`: Neutron, Cinder, and another Nova."""

    listed: list[ServerPort] = field(default_factory=list)
    volumes: dict[str, CloudVolume] = field(default_factory=dict)
    owned: dict[str, str] = field(default_factory=dict)
    fault: SternaError | None = None
    asked: list[str] = field(default_factory=list)

    async def ports(self, servers: Sequence[str]) -> list[ServerPort]:
        self._ask("ports")
        await asyncio.sleep(0)
        return [port for port in self.listed if port.server in servers]

    async def volume(self, id: str) -> CloudVolume | None:
        self._ask(f"volume {id}")
        return self.volumes.get(id)

    async def host_of(self, server: str) -> str | None:
        self._ask(f"server {server}")
        return self.owned.get(server)

    async def hosts(self) -> list[str]:
        self._ask("hosts")
        return sorted(self.owned.values())

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.fault is not None:
            raise self.fault

    def attach(self, *ids: str, server: str = WEB1, status: str = "attached") -> None:
        attachments = tuple(VolumeAttachment(id=id, server=server, status=status) for id in ids)
        self.volumes[VOLUME] = CloudVolume(id=VOLUME, project_id=OURS, attachments=attachments)

    def has(self, volume: str, server: str) -> None:
        """Another volume, with one attachment."""
        attachment = VolumeAttachment(id=f"{volume[:-1]}f", server=server, status="attached")
        self.volumes[volume] = CloudVolume(id=volume, project_id=OURS, attachments=(attachment,))


@dataclass
class Cloud:
    """All of it, with clients."""

    world: World
    keystone: FakeKeystone
    services: FakeCloud
    setup: Setup
    http: httpx2.AsyncClient

    async def ask(
        self,
        path: str,
        version: str | None = "2.96",
        *,
        method: str = "GET",
        token: str | None = "admin",
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """One request below `/compute/v2.1`."""
        sent = {} if token is None else {"X-Auth-Token": token}
        sent |= {} if version is None else {"OpenStack-API-Version": f"compute {version}"}
        more: dict[str, Any] = {} if body is None else {"json": body}
        return await self.http.request(method, f"/compute/v2.1{path}", headers=sent | (headers or {}), **more)

    async def get(self, path: str, version: str | None = "2.96", token: str = "admin") -> Any:
        """The body of a good answer."""
        answer = await self.ask(path, version, token=token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def migrate(self, server: str = WEB1, host: str | None = "b", token: str = "admin") -> httpx2.Response:
        body = {"os-migrateLive": {"host": host, "block_migration": "auto"}}
        return await self.ask(f"/servers/{server}/action", "2.30", method="POST", token=token, body=body)

    async def run_twice(self) -> None:
        """`web1` runs on `b` as well, whoever has started it."""
        self.world.b.vms[WEB1] = self.world.a.vms[WEB1]
        for _ in range(2):  # the second time it is asked about again
            await self.world.controller.inventory.vms()

    async def arrive(self, server: str = WEB1) -> None:
        """Its migration is played to the end; the agents tell it."""
        (moving,) = [m for m in self.world.a.migrations.values() if m.vm_uuid == server]
        self.world.a.write(good_source(moving))
        self.world.b.write(good_destination(moving))
        await self.world.pull()


def fault_of(answer: httpx2.Response, name: str) -> str:
    """The sentence of an error, which has to be in Nova's shape."""
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    body = answer.json()
    assert set(body) == {name}, body
    assert set(body[name]) == {"code", "message"} and body[name]["code"] == answer.status_code
    return str(body[name]["message"])


def nova_facts(project: str, name: str) -> NovaFacts:
    flavor = Flavor(id=FLAVOR, name="f1", memory_mib=1024, vcpus=1, extra_specs={"hw:cpu_policy": "shared"})
    return NovaFacts(
        name=name, created_at="2026-01-01T06:43:22+00:00", user_id=USER, project_id=project, flavor=flavor
    )


def _vm(number: int, name: str, state: GuestState, project: str) -> VmSummary:
    return VmSummary(
        uuid=uuid(number),
        name=f"instance-{number:08x}",
        state=state,
        memory_bytes=2**30,
        vcpus=1,
        nova=nova_facts(project, name) if project else None,
        volumes=(VOLUME,) if name == "web1" else (),
    )


async def furnish(world: World) -> None:
    """`web1` with a volume and `db1` on host `a`, `off1` on `b`, and on `c` one whose project nobody knows."""
    world.a.vms = {WEB1: _vm(1, "web1", GuestState.RUNNING, OURS), DB1: _vm(2, "db1", GuestState.RUNNING, "")}
    world.b.vms = {OFF1: _vm(3, "off1", GuestState.SHUTOFF, OURS)}
    world.c.vms = {LOST1: _vm(4, "lost1", GuestState.RUNNING, "")}
    world.a.disks = {WEB1: (Disk(target="vda", kind=DiskKind.ISCSI, volume_id=VOLUME),)}
    await world.controller.inventory.vms()


def port(server: str, project: str, *addresses: str, network: str = "net1") -> ServerPort:
    return ServerPort(
        id=f"cccccccc{server[8:]}",
        server=server,
        project_id=project,
        network=network,
        mac="fa:16:3e:89:a3:36",
        addresses=addresses,
        subnets=(SUBNET,) * len(addresses),
        network_id=NETWORK,
        status="ACTIVE",
    )


def set_up(world: World, keystone: FakeKeystone, services: FakeCloud, **more: Any) -> Setup:
    return Setup(
        external_users=ExternalUsers(keystone, world.clock, "service@Default", {}),
        servers=Servers(world.fleet, world.clock, services, services),
        keystone="http://keystone.example/v3",
        volumes=services,
        **more,
    )


async def make(world: World, **more: Any) -> Cloud:
    await furnish(world)
    keystone, services = FakeKeystone(), FakeCloud()
    services.listed = [port(WEB1, OURS, "10.79.0.35", "2001:db8::35"), port(DB1, THEIRS, "10.79.0.36")]
    services.attach(ATTACHMENT)
    setup = set_up(world, keystone, services, **more)
    app = create_app(world.controller, ACCESS, compute=setup)
    http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app, raise_app_exceptions=False), base_url="http://cloud.example:8774"
    )
    return Cloud(world, keystone, services, setup, http)
