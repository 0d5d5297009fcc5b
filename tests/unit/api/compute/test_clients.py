"""The clients that people have, as they are: `openstack` and openstacksdk, over HTTP, with a Keystone beside.

Each command is a process. What it prints is not tested: that it ends well, or with Sterna's sentence.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from openstack.connection import Connection

from openstack import exceptions
from sterna.adapters.openstack.session import Cloud as Session
from sterna.adapters.openstack.session import CloudAccess
from sterna.adapters.users.keystone import KeystoneUsers
from sterna.api.app import create_app
from sterna.api.compute.call import Setup
from sterna.api.server import Server
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.records.servers import Servers
from sterna.domain.journal import Role
from tests.keystone import Keystone

from ...controller.conftest import World
from ...domain.journals import Book, good_destination, good_source
from ..clients import ACCESS
from .cloud import ATTACHMENT, DB1, OURS, THEIRS, WEB1, FakeCloud, furnish, port

COMMAND_S = 300.0
"""A command needs two seconds of a processor. Where others want it as well, it may take minutes."""
USERS = {
    "sterna": ("service", ("admin", "service")),
    "admin": (OURS, ("admin", "manager", "member", "reader")),
    "manager": (OURS, ("manager", "member", "reader")),
    "reader": (OURS, ("reader",)),
    "nobody": (OURS, ()),
}


@dataclass
class Said:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        return json.loads(self.out)


@dataclass
class Stack:
    """A served controller and its Keystone."""

    world: World
    keystone: Keystone

    async def openstack(self, *words: str, user: str = "admin", columns: bool = False) -> Said:
        """Run a command; `columns`: its rows as JSON."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("OS_")} | {
            "OS_AUTH_URL": self.keystone.url,
            "OS_USERNAME": user,
            "OS_PASSWORD": user,
            "OS_PROJECT_NAME": "web",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        }
        program = [sys.executable, "-m", "openstackclient.shell", *words, *(("-f", "json") if columns else ())]
        pipe = asyncio.subprocess.PIPE
        running = await asyncio.create_subprocess_exec(*program, env=env, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(COMMAND_S):
                out, err = await running.communicate()
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
        return Said(running.returncode or 0, out.decode(), err.decode())

    async def good(self, *words: str, user: str = "admin") -> Any:
        """The rows of a command that ends well."""
        said = await self.openstack(*words, user=user, columns=True)
        assert said.code == 0, f"{words}: {said.out}{said.err}"
        return said.rows

    async def bad(self, *words: str, user: str = "admin") -> str:
        """What a command says that ends badly."""
        said = await self.openstack(*words, user=user)
        assert said.code == 1, f"{words}: {said.out}{said.err}"
        return said.err

    async def copying(self) -> None:
        """The agent has begun to copy."""
        (migration,) = self.world.a.migrations.values()
        self.world.a.write(Book(Role.SOURCE, migration=migration).status("preparing").status("migrating"))
        await self.world.pull()

    async def arrive(self) -> None:
        (migration,) = self.world.a.migrations.values()
        self.world.a.write(good_source(migration))
        self.world.b.write(good_destination(migration))
        await self.world.pull()


@pytest.fixture
def keystone() -> Iterator[Keystone]:
    with Keystone(dict(USERS)) as keystone:
        yield keystone


@asynccontextmanager
async def serving(app: Any, listening: socket.socket) -> AsyncIterator[None]:
    server = Server(app, lifespan="off")
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


@pytest.fixture
async def stack(world: World, keystone: Keystone) -> AsyncIterator[Stack]:
    await furnish(world)
    services = FakeCloud(listed=[port(WEB1, OURS, "10.79.0.35"), port(DB1, THEIRS)])
    services.attach(ATTACHMENT)
    session = Session(CloudAccess(auth_url=keystone.url, username="sterna", password="sterna", timeout_s=30))
    external_users = ExternalUsers(KeystoneUsers(session, keystone.url), world.clock, "service@Default", {})
    setup = Setup(external_users, Servers(world.fleet, world.clock, services, services), keystone.url, services)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        keystone.endpoints["compute"] = f"http://127.0.0.1:{listening.getsockname()[1]}/compute/v2.1"
        async with serving(create_app(world.controller, ACCESS, compute=setup), listening):
            yield Stack(world, keystone)


def sdk(stack: Stack, user: str = "admin") -> Connection:
    return Connection(
        auth={
            "auth_url": stack.keystone.url,
            "username": user,
            "password": user,
            "project_name": "web",
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
        region_name="RegionOne",
        interface="public",
    )


# ------------------------------------------------------------ openstack


async def test_an_administrator_lists_shows_and_migrates(stack: Stack) -> None:
    servers = await stack.good("server", "list", "--all-projects", "--long")
    assert {(s["Name"], s["Status"], s["Host"]) for s in servers} >= {
        ("web1", "ACTIVE", "a"),
        ("off1", "SHUTOFF", "b"),
    }
    assert [s["Name"] for s in await stack.good("server", "list", "--host", "b")] == ["off1"]
    assert (await stack.good("server", "show", "web1"))["id"] == WEB1
    assert (await stack.openstack("server", "migrate", "--live-migration", "--host", "b", "web1")).code == 0
    assert (await stack.good("server", "show", "web1"))["status"] == "MIGRATING"
    await stack.copying()
    (listed,) = await stack.good("server", "migration", "list", "--server", "web1")
    assert (listed["Status"], listed["Source Compute"], listed["Dest Compute"]) == ("running", "a", "b")
    shown = await stack.good("server", "migration", "show", "web1", listed["UUID"])
    assert shown["ID"] == listed["Id"]
    assert (await stack.openstack("server", "migration", "force", "complete", "web1", "1")).code == 0
    assert (await stack.openstack("server", "migration", "abort", "web1", listed["UUID"])).code == 0
    assert [stack.world.bus.asked(what) for what in ("pause_guest", "abort_migration")] == [1, 1]
    await stack.arrive()
    shown = await stack.good("server", "show", "web1")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"]) == ("ACTIVE", "b")
    events = await stack.good("server", "event", "list", "web1", "--long")
    assert [e["Action"] for e in events] == [
        "live_migration_cancel",
        "live_migration_force_complete",
        "live-migration",
    ]
    assert (await stack.good("server", "event", "show", "web1", events[-1]["Request ID"]))["events"]


async def test_wait_waits_until_the_server_is_elsewhere(stack: Stack) -> None:
    waiting = asyncio.create_task(
        stack.openstack("server", "migrate", "--live-migration", "--shared-migration", "--wait", "web1")
    )
    async with asyncio.timeout(COMMAND_S):
        while not stack.world.a.migrations:
            assert not waiting.done(), waiting.result()
            await asyncio.sleep(0.05)  # the process tells nobody
    await stack.arrive()
    said = await waiting
    assert said.code == 0 and "Complete" in said.out, said


async def test_an_administrator_sees_to_the_hosts(stack: Stack) -> None:
    services = await stack.good("compute", "service", "list", "--long")
    assert [(s["Binary"], s["Host"], s["Status"], s["State"]) for s in services] == [
        ("nova-compute", name, "enabled", "up") for name in ("a", "b", "c")
    ]
    disable = ("compute", "service", "set", "--disable", "--disable-reason", "new fans", "b", "nova-compute")
    assert (await stack.openstack(*disable)).code == 0
    assert "(new fans)" in await stack.bad("server", "migrate", "--live-migration", "--host", "b", "web1")
    refused = await stack.bad("compute", "service", "set", "--down", "b", "nova-compute")
    assert "Failed to set service state to down" in refused  # it answers; this client does not print why
    assert (await stack.openstack("compute", "service", "set", "--enable", "b", "nova-compute")).code == 0
    hypervisors = await stack.good("hypervisor", "list", "--long")
    assert [h["Hypervisor Hostname"] for h in hypervisors] == ["a", "b", "c"]
    assert (await stack.good("hypervisor", "show", "a"))["service_host"] == "a"
    assert (await stack.good("hypervisor", "stats", "show"))["count"] == 3
    assert len(await stack.good("host", "list")) == 3
    assert len(await stack.good("availability", "zone", "list", "--compute", "--long")) == 3
    assert await stack.good("aggregate", "list") == []
    assert {f["Name"] for f in await stack.good("flavor", "list", "--all")} == {"f1", "v1-r1024-d0"}
    versions = await stack.good("versions", "show", "--service", "compute")
    assert versions[0]["Max Microversion"] == "2.96"


async def test_what_cannot_be_is_said_with_every_reason(stack: Stack) -> None:
    assert "nope" in await stack.bad("server", "show", "nope")
    assert "there is no host nohost" in await stack.bad(
        "server", "migrate", "--live-migration", "--host", "nohost", "web1"
    )
    assert "is already on a" in await stack.bad("server", "migrate", "--live-migration", "--host", "a", "web1")
    assert "vm_state stopped" in await stack.bad("server", "migrate", "--live-migration", "off1")
    assert "Sterna does not do 'migrate'" in await stack.bad("server", "migrate", "web1")
    assert "Sterna does not do 'evacuate'" in await stack.bad("server", "evacuate", "web1")
    assert "does not migrate" in await stack.bad("server", "migration", "abort", "web1", "1")


async def test_a_manager_migrates_and_sees_no_host(stack: Stack) -> None:
    assert {s["Name"] for s in await stack.good("server", "list", user="manager")} == {"web1", "off1"}
    assert "OS-EXT-SRV-ATTR:host" not in {
        k for k, v in (await stack.good("server", "show", "web1", user="manager")).items() if v is not None
    }
    migrate = ("server", "migrate", "--live-migration")
    assert "migrate_live:host" in await stack.bad(*migrate, "--host", "b", "web1", user="manager")
    assert (await stack.openstack(*migrate, "web1", user="manager")).code == 0
    await stack.copying()
    assert (
        await stack.openstack("server", "migration", "force", "complete", "web1", "1", user="manager")
    ).code == 0
    assert "403" in await stack.bad("compute", "service", "list", user="manager")


async def test_a_reader_reads(stack: Stack) -> None:
    assert (await stack.good("server", "show", "web1", user="reader"))["status"] == "ACTIVE"
    assert await stack.good("server", "event", "list", "web1", user="reader") == []
    assert len(await stack.good("availability", "zone", "list", "--compute", user="reader")) == 1
    for words in (("server", "migrate", "--live-migration", "web1"), ("server", "list", "--all-projects"),
                  ("hypervisor", "list")):  # fmt: skip
        assert "403" in await stack.bad(*words, user="reader")


async def test_nobody_may_nothing(stack: Stack) -> None:
    assert "403" in await stack.bad("server", "list", user="nobody")
    assert "403" in await stack.bad("server", "migrate", "--live-migration", "web1", user="nobody")
    assert "401" in await stack.bad("server", "list", user="unknown")
    assert stack.world.bus.asked("start_migration") == 0


# ------------------------------------------------------------ openstacksdk


async def test_the_sdk_migrates(stack: Stack) -> None:
    def work() -> tuple[list[str], str]:
        compute = sdk(stack).compute
        names = sorted(server.name for server in compute.servers(all_projects=True))
        compute.live_migrate_server(WEB1, host="b", block_migration="auto")
        (moving,) = compute.server_migrations(WEB1)
        assert (moving.status, moving.server_id) == ("queued", WEB1)
        compute.abort_server_migration(moving, WEB1, ignore_missing=False)
        assert [m.status for m in compute.migrations(instance_uuid=WEB1)] == ["queued"]
        return names, compute.get_server(WEB1).status

    names, status = await asyncio.to_thread(work)
    assert names == ["instance-00000002", "instance-00000004", "off1", "web1"] and status == "MIGRATING"
    assert stack.world.bus.asked("abort_migration") == 1


async def test_the_sdk_shows_sternas_sentence(stack: Stack) -> None:
    def work() -> None:
        sdk(stack).compute.live_migrate_server(WEB1, host="nohost", block_migration="auto")

    with pytest.raises(exceptions.BadRequestException, match="there is no host nohost"):
        await asyncio.to_thread(work)


async def test_the_sdk_reads_everything_it_has_names_for(stack: Stack) -> None:
    def work() -> dict[str, int]:
        compute = sdk(stack).compute
        (attached,) = compute.volume_attachments(WEB1)
        assert attached.attachment_id == ATTACHMENT
        return {
            "hypervisors": len(list(compute.hypervisors(details=True))),
            "services": len(list(compute.services())),
            "zones": len(list(compute.availability_zones(details=True))),
            "flavors": len(list(compute.flavors(get_extra_specs=True))),
            "aggregates": len(list(compute.aggregates())),
            "actions": len(list(compute.server_actions(WEB1))),
            "pages": len(list(compute.servers(all_projects=True, limit=1))),
        }

    found = await asyncio.to_thread(work)
    assert found == {
        "hypervisors": 3, "services": 3, "zones": 1, "flavors": 2, "aggregates": 0, "actions": 0, "pages": 4,
    }  # fmt: skip
