"""The Compute API with the real Keystone, Neutron and Cinder as its neighbours: no lab, no VM.

A controller with three hosts that are not there listens where the catalog says that `compute` is.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from sterna.adapters.openstack import login, session
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.servers.reads import CinderReads, NeutronReads
from sterna.adapters.users.keystone import KeystoneUsers
from sterna.api.app import create_app
from sterna.api.compute.call import Setup
from sterna.api.compute.middleware import PREFIX
from sterna.api.server import Server
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.records.servers import Servers as Seen
from sterna.domain.model import Disk, DiskKind
from sterna.kit import threads
from sterna.lab.places import LAB_ADDRESS, initiator_name
from tests.openstack.inside import Inside, enter
from tests.openstack.servers import Servers, alone
from tests.openstack.texts import AUTH_URL, COMPUTE, PASSWORD
from tests.unit.api.clients import ACCESS
from tests.unit.api.compute.cloud import DB1, WEB1, furnish
from tests.unit.controller.conftest import World, world

__all__ = ["world"]
FOLDER = Path(".lab-test/openstack-compute").absolute()
ROLES = {"boss": ("admin",), "chief": ("manager", "member", "reader"), "mina": ("member", "reader"), "guest": ()}
"""Users of the project `web`."""


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with alone(FOLDER) as outer:
        up = Servers.up(outer, FOLDER / "servers")
        admin = Inside(outer, user="admin", project="admin")
        admin.ask(_make_people)
        yield up
        admin.close()
        up.close()


def _make_people(cloud: Any) -> None:
    identity = cloud.identity
    project = identity.create_project(name="web", domain_id="default")
    roles = {role.name: role for role in identity.roles()}
    for name in {"manager", "reader", "member"} - roles.keys():
        roles[name] = identity.create_role(name=name)
    for name, granted in ROLES.items():
        user = identity.create_user(
            name=name, password=PASSWORD, domain_id="default", default_project_id=project.id
        )
        for role in granted:
            identity.assign_project_role_to_user(project, user, roles[role])


@dataclass
class Scene:
    """A served controller; `web1` belongs to the project `web`, by its volume."""

    world: World
    servers: Servers

    async def ask(self, user: str, act: Callable[[Any], Any]) -> Any:
        """`act`'s answer, as that user of the project."""
        inside = Inside(self.servers.outer, user=user, project="web")
        try:
            return await asyncio.to_thread(inside.ask, act)
        finally:
            inside.close()

    async def openstack(self, *words: str, user: str = "boss") -> tuple[int, str]:
        """A command's exit code and what it has printed."""
        env = {
            "OS_AUTH_URL": AUTH_URL,
            "OS_USERNAME": user,
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": "web",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
        }
        argv = [sys.executable, "-m", "openstackclient.shell", *words]
        run = self.servers.outer.run
        done = await asyncio.to_thread(run, argv, check=False, timeout=180, extra_environment=env)
        return done.returncode, done.stdout + done.stderr

    async def volume(self) -> tuple[str, str]:
        """A volume of the project that `web1` uses on host a: its ID, and its attachment's."""

        def make(cloud: Any) -> str:
            storage = cloud.block_storage
            made = storage.create_volume(size=1, volume_type="plain")
            storage.wait_for_status(made, "available", interval=0.2, wait=60)
            return str(made.id)

        id = await self.ask("mina", make)
        connector = {
            "host": "a",
            "ip": "10.73.0.11",
            "initiator": initiator_name("a"),
            "multipath": False,
            "os_type": "linux",
            "platform": "x86_64",
        }

        def attach(cloud: Any) -> str:
            made = cloud.block_storage.create_attachment(id, instance=WEB1, connector=connector)
            cloud.block_storage.complete_attachment(made)
            return str(made.id)

        attachment = await self.ask("mina", attach)
        await self.use(id)
        return id, attachment

    async def use(self, *volumes: str) -> None:
        """From now on `web1` has these, as its host says."""
        a = self.world.a
        a.disks[WEB1] = tuple(
            Disk(target=f"vd{chr(97 + n)}", kind=DiskKind.ISCSI, volume_id=id) for n, id in enumerate(volumes)
        )
        a.vms[WEB1] = a.vms[WEB1].model_copy(update={"nova": None, "volumes": volumes})
        await self.world.controller.inventory.vms()

    async def delete(self, attachment: str) -> int:
        """The status of a user's own `DELETE`, without a service token."""

        def delete(cloud: Any) -> int:
            return int(cloud.block_storage.delete(f"/attachments/{attachment}", raise_exc=False).status_code)

        return int(await self.ask("mina", delete))


class _AtRoot:
    """The catalog names `/v2.1`, where Nova would be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(PREFIX):
            scope = {**scope, "path": f"{PREFIX}{scope['path']}"}
        await self._app(scope, receive, send)


@pytest.fixture
async def scene(servers: Servers, world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async def there(act: Callable[[], Any], **limits: Any) -> Any:
        def entered() -> Any:
            assert threading.current_thread() is not threading.main_thread()
            enter(servers.outer)
            return act()

        return await threads.in_thread(entered, **limits)

    for module in (session, login):
        monkeypatch.setattr(module, "in_thread", there)
    await furnish(world)
    cloud = Cloud(CloudAccess(auth_url=AUTH_URL, username="sterna", password=PASSWORD, interface="public"))
    volumes = CinderReads(cloud)
    external_users = ExternalUsers(KeystoneUsers(cloud, AUTH_URL), world.clock, "service@Default", {})
    seen = Seen(world.fleet, world.clock, NeutronReads(cloud), volumes)
    setup = Setup(external_users, seen, AUTH_URL, volumes, url=f"http://{LAB_ADDRESS}:{COMPUTE}")
    with servers.outer.open_socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LAB_ADDRESS, COMPUTE))
        listening.listen(64)
        server = Server(_AtRoot(create_app(world.controller, ACCESS, compute=setup)), lifespan="off")
        running = asyncio.create_task(server.serve(sockets=[listening]))
        yield Scene(world, servers)
        server.should_exit = True
        await running


async def test_cinder_refuses_to_delete_an_attachment_in_use(scene: Scene) -> None:
    """Bug 2004555: the guard asks the Compute API with the user's token."""
    _, attachment = await scene.volume()
    assert await scene.delete(attachment) == 409


async def test_nor_does_it_while_two_hosts_are_admitted_or_a_host_is_silent(scene: Scene) -> None:
    _, attachment = await scene.volume()
    scene.world.a.listening = False
    assert await scene.delete(attachment) >= 500
    scene.world.a.listening = True
    code, said = await scene.openstack("server", "migrate", "--live-migration", "--host", "b", WEB1)
    assert code == 0, said
    assert await scene.delete(attachment) >= 500


async def test_what_no_server_uses_can_be_deleted(scene: Scene) -> None:
    _, attachment = await scene.volume()
    await scene.use()
    assert await scene.delete(attachment) == 200


async def test_real_users_may_what_their_roles_allow(scene: Scene) -> None:
    await scene.volume()
    for user in ("boss", "chief", "mina"):
        code, said = await scene.openstack("server", "list", "-f", "json", user=user)
        assert code == 0, said
        assert [server["ID"] for server in json.loads(said)] == [WEB1], user
    code, said = await scene.openstack("server", "list", user="guest")
    assert code == 1, said
    for user, allowed in (("mina", False), ("chief", True)):
        code, said = await scene.openstack("server", "migrate", "--live-migration", WEB1, user=user)
        assert (code == 0) is allowed, said
    code, said = await scene.openstack("server", "show", DB1, user="chief")
    assert code == 1, said
    code, said = await scene.openstack("compute", "service", "list", "-f", "json")
    assert code == 0 and len(json.loads(said)) == 3, said
