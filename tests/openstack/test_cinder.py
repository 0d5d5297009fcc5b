"""The `cinder` provider against the real Cinder: no lab, no VM; QEMU's own iSCSI initiator proves what is open."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.openstack import login, session
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.volumes.cinder.volumes import CinderVolumes, Connector
from sterna.domain.errors import Temporary, Unknown
from sterna.domain.model import Disk, DiskKind, IscsiSource
from sterna.kit import threads
from sterna.lab.iscsi import IscsiTarget
from sterna.lab.places import LAB_ADDRESS, initiator_name, target_name
from tests.openstack.inside import enter
from tests.openstack.servers import Servers, alone
from tests.openstack.texts import AUTH_URL, PASSWORD
from tests.openstack.transcript import Transcript

FOLDER = Path(".lab-test/openstack-alone").absolute()
RECORDED = Path(__file__).parents[1] / "unit/adapters/cinder/recorded"


class Scene:
    """A volume of a VM that runs on host1, and the provider as host1 and host2 have it."""

    def __init__(self, servers: Servers, qemu_img: str) -> None:
        self.servers = servers
        self.tgt = IscsiTarget(servers.outer, FOLDER)
        access = CloudAccess(auth_url=AUTH_URL, username="sterna", password=PASSWORD, interface="public")
        self.cloud = Cloud(access)
        self.host1, self.host2 = (
            CinderVolumes(self.cloud, Connector(h, f"10.73.0.1{i}", initiator_name(h)), qemu_img=qemu_img)
            for i, h in enumerate(("host1", "host2"), start=1)
        )

    def volume(self, kind: str = "plain") -> Disk:
        """As Nova would leave it: created, attached to a VM on host1, complete."""
        vm = str(uuid.uuid4())

        def make(cloud: Any) -> str:
            storage = cloud.block_storage
            made = storage.create_volume(size=1, volume_type=kind)
            storage.wait_for_status(made, "available", interval=0.2, wait=60)
            words = Connector("host1", "10.73.0.11", initiator_name("host1")).words()
            storage.complete_attachment(storage.create_attachment(made, instance=vm, connector=words))
            return str(made.id)

        volume = self.servers.ask(make)
        source = IscsiSource(
            target=target_name(volume), lun=1, portal_host=LAB_ADDRESS, initiator=initiator_name("host1")
        )
        return Disk(
            target="vda", kind=DiskKind.ISCSI, volume_id=volume, vm_uuid=vm, iscsi=source, capacity_bytes=1 << 30
        )

    def attachments(self, disk: Disk) -> list[tuple[str, str]]:
        """(host, status) of each, by Cinder's own word."""

        def read(cloud: Any) -> list[tuple[str, str]]:
            hosts = {
                a["attachment_id"]: a["host_name"]
                for a in cloud.block_storage.get_volume(disk.volume_id).attachments
            }
            found = cloud.block_storage.attachments(volume_id=disk.volume_id, all_projects=True)
            return sorted((hosts.get(a.id, "?"), a.status) for a in found)

        return self.servers.ask(read)

    def admitted(self, disk: Disk) -> list[str]:
        """By tgt's own word."""
        return self.tgt.admitted(target_name(str(disk.volume_id)))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with alone(FOLDER) as outer:
        up = Servers.up(outer, FOLDER / "servers")
        yield up
        up.close()


@pytest.fixture
def scene(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The provider's threads and its qemu-img live in the servers' network."""

    async def there(act: Callable[[], Any], **limits: Any) -> Any:
        def entered() -> Any:
            assert threading.current_thread() is not threading.main_thread()
            enter(servers.outer)
            return act()

        return await threads.in_thread(entered, **limits)

    for module in (session, login):
        monkeypatch.setattr(module, "in_thread", there)
    script = tmp_path / "qemu-img"
    script.write_text(f'#!/bin/sh\nexec nsenter --target {servers.outer.init.pid} --net qemu-img "$@"\n')
    script.chmod(0o755)
    return Scene(servers, str(script))


async def test_there_and_back(scene: Scene) -> None:
    disk = scene.volume()
    transcript = Transcript(scene.cloud)
    assert await scene.host2.check(disk, "host1") == []
    attached = await scene.host2.attach(disk, "host1")
    assert attached.iscsi is not None and attached.iscsi.initiator == initiator_name("host2")
    assert await scene.host2.attach(disk, "host1") == attached  # a repeat finds it
    assert await scene.host2.connect(attached) == attached
    assert await scene.host2.connect(attached) == attached
    assert scene.attachments(disk) == [("host1", "attached"), ("host2", "attached")]
    assert scene.admitted(disk) == [initiator_name("host1"), initiator_name("host2")]
    assert await scene.host1.admitted(disk) and await scene.host2.admitted(disk)
    await scene.host1.detach(disk)
    await scene.host1.detach(disk)
    assert scene.attachments(disk) == [("host2", "attached")]
    assert scene.admitted(disk) == [initiator_name("host2")]
    assert not await scene.host1.admitted(disk)
    with pytest.raises(Temporary):
        await scene.host2.detach(disk)  # nobody else is attached: it is the guest's own
    assert scene.attachments(disk) == [("host2", "attached")]
    back = await scene.host1.attach(attached, "host2")
    await scene.host1.connect(back)
    await scene.host2.detach(attached)
    assert scene.attachments(disk) == [("host1", "attached")]
    assert scene.admitted(disk) == [initiator_name("host1")]
    if os.environ.get("STERNA_RECORD"):
        transcript.save(RECORDED / "there-and-back.json")


@pytest.mark.parametrize("connected", [False, True])
async def test_rollback_leaves_the_source_alone(scene: Scene, connected: bool) -> None:
    disk = scene.volume()
    before = scene.attachments(disk)
    attached = await scene.host2.attach(disk, "host1")
    if connected:
        await scene.host2.connect(attached)
    await scene.host2.disconnect(disk)
    for _ in range(2):
        await scene.host2.detach(disk)
    assert scene.attachments(disk) == before == [("host1", "attached")]
    assert scene.admitted(disk) == [initiator_name("host1")]
    assert await scene.host2.check(disk, "host1") == []


async def test_an_attachment_whose_answer_was_lost_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = scene.volume()
    transcript = Transcript(scene.cloud)
    create = scene.host2._cinder.create

    async def lose(*args: Any) -> Any:
        await create(*args)
        raise Unknown("the answer was lost")

    with monkeypatch.context() as patched, pytest.raises(Unknown):
        patched.setattr(scene.host2._cinder, "create", lose)
        await scene.host2.attach(disk, "host1")
    assert scene.attachments(disk) == [("?", "attaching"), ("host1", "attached")]
    assert await scene.host2.check(disk, "host1") == []
    attached = await scene.host2.attach(disk, "host1")
    await scene.host2.connect(attached)
    assert scene.attachments(disk) == [("host1", "attached"), ("host2", "attached")]
    await scene.host2.detach(disk)
    with monkeypatch.context() as patched, pytest.raises(Unknown):
        patched.setattr(scene.host2._cinder, "create", lose)
        await scene.host2.attach(disk, "host1")
    await scene.host1.detach(disk.model_copy(update={"vm_uuid": str(uuid.uuid4())}))  # another VM: nothing of ours
    await scene.host2.detach(disk)
    assert scene.attachments(disk) == [("host1", "attached")]
    if os.environ.get("STERNA_RECORD"):
        transcript.save(RECORDED / "lost-answer.json")


async def test_wrong_kinds_of_volume_are_refused(scene: Scene) -> None:
    codes = {}
    for kind in ("chap", "multi"):
        disk = scene.volume(kind)
        codes[kind] = [r.code for r in await scene.host2.check(disk, "host1")]
        assert scene.attachments(disk) == [("host1", "attached")]
    assert codes == {"chap": ["volume-chap"], "multi": ["volume-multiattach"]}
    disk = scene.volume().model_copy(update={"vm_uuid": str(uuid.uuid4())})
    assert [r.code for r in await scene.host2.check(disk, "host1")] == ["volume-attachments"]
    unknown = disk.model_copy(update={"volume_id": str(uuid.uuid4())})
    assert [r.code for r in await scene.host2.check(unknown, "host1")] == ["volume-missing"]
