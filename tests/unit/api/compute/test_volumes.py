"""Volumes of a server, as Cinder asks for them before it lets a user delete an attachment (bug 2004555).

Cinder deletes it after 404, and after the ID of another attachment. Neither may be said of one that is in use.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sterna.domain.compute.attachments import Say, Seen, judge, judge_unknown_server, live
from sterna.domain.errors import Unreachable
from sterna.domain.model import Disk, DiskKind

from .cloud import ATTACHMENT, DB1, LOST1, VOLUME, WEB1, Cloud, fault_of

OTHER = "00000000-0000-4000-8000-000000000000"
SECOND = "11111111-0000-4000-8000-000000000000"
PATH = f"/servers/{WEB1}/os-volume_attachments/{VOLUME}"


def deletes(status: int, body: object, attachment: str) -> bool:
    """What Cinder 29 makes of an answer at 2.89."""
    if status == 404:
        return True
    return status == 200 and isinstance(body, dict) and body["volumeAttachment"]["attachment_id"] != attachment


async def test_an_attachment_in_use_is_named(cloud: Cloud) -> None:
    shown = (await cloud.get(PATH, "2.89", "reader"))["volumeAttachment"]
    assert (shown["attachment_id"], shown["volumeId"], shown["serverId"]) == (ATTACHMENT, VOLUME, WEB1)
    assert (shown["device"], shown["delete_on_termination"], shown["tag"]) == ("/dev/vda", False, None)
    (listed,) = (await cloud.get(f"/servers/{WEB1}/os-volume_attachments", "2.89"))["volumeAttachments"]
    assert listed == shown
    old = (await cloud.get(PATH, "2.1"))["volumeAttachment"]
    assert old == {"id": VOLUME, "volumeId": VOLUME, "serverId": WEB1, "device": "/dev/vda"}


async def test_only_what_is_not_attached_is_not_found(cloud: Cloud) -> None:
    answer = await cloud.ask(f"/servers/{WEB1}/os-volume_attachments/{OTHER}", "2.89")
    assert answer.status_code == 404 and "is not attached" in fault_of(answer, "itemNotFound")
    cloud.world.a.disks[WEB1] = ()
    assert (await cloud.ask(PATH, "2.89")).status_code == 404
    assert (await cloud.get(f"/servers/{WEB1}/os-volume_attachments"))["volumeAttachments"] == []


async def test_a_disk_without_a_serial_may_be_the_volume(cloud: Cloud) -> None:
    """Whoever made the VM by hand may not have written the volume's ID into it. Cinder has the attachment."""
    unnamed = Disk(target="vda", kind=DiskKind.ISCSI, volume_id=None)
    cloud.world.a.disks[WEB1] = (unnamed,)
    answer = await cloud.ask(PATH, "2.89")
    assert answer.status_code == 503 and "no serial" in fault_of(answer, "serviceUnavailable")
    cloud.world.a.disks[WEB1] = (Disk(target="sda", kind=DiskKind.FILE, device="cdrom"),)
    assert (await cloud.ask(PATH, "2.89")).status_code == 404
    cloud.world.a.disks[WEB1] = (unnamed,)
    cloud.services.attach()
    assert (await cloud.ask(PATH, "2.89")).status_code == 404
    cloud.services.fault = Unreachable("Cinder does not answer")
    assert (await cloud.ask(PATH, "2.89")).status_code == 503


def named(serial: str, target: str = "vdb", **more: Any) -> Disk:
    return Disk(**{"target": target, "kind": DiskKind.ISCSI, "volume_id": serial} | more)


MAY_BE_ANY: dict[str, tuple[tuple[Disk, ...], tuple[str, ...]]] = {
    "a serial that Cinder does not know": ((named(OTHER),), ()),
    "a volume that is copied to another place": ((named(SECOND, mirrored=True),), ()),
    "an overlay over a network disk": ((named(SECOND, chain=("iscsi://iqn.2026-11.lab:x/1",)),), ()),
    "an overlay over a device": ((named(SECOND, chain=("/images/base", "/dev/dm-3")),), ()),
    "an image whose data is in a device": ((named(SECOND, data_file="/dev/dm-3"),), ()),
    "a drive with a network disk": ((named(SECOND), Disk(target="sda", kind=DiskKind.ISCSI, device="cdrom")), ()),
    "a device of the host": ((named(SECOND),), ("hostdev scsi",)),
}
"""What a VM has besides a volume that Cinder confirms."""


@pytest.mark.parametrize("case", MAY_BE_ANY)
async def test_what_may_be_the_volume_proves_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Cinder has an attachment of the volume for this server, and asks before it deletes that."""
    disks, immovable = MAY_BE_ANY[case]
    cloud.services.has(SECOND, WEB1)
    details = await cloud.world.controller.inventory.details((await cloud.setup.servers.one(WEB1)).vm)
    assert details is not None
    seen = details.model_copy(update={"disks": disks, "immovable": immovable})

    async def said(_vm: object) -> object:
        return seen

    monkeypatch.setattr(cloud.world.controller.inventory, "details", said)
    answer = await cloud.ask(PATH, "2.89")
    assert answer.status_code == 503 and "may be this volume" in fault_of(answer, "serviceUnavailable")
    cloud.services.attach()
    assert (await cloud.ask(PATH, "2.89")).status_code == 404


async def test_a_volume_is_not_another_one_that_cinder_confirms(cloud: Cloud) -> None:
    cloud.world.a.disks[WEB1] = (named(SECOND, chain=("/images/base",)),)
    cloud.services.has(SECOND, WEB1)
    assert (await cloud.ask(PATH, "2.89")).status_code == 404
    cloud.services.fault = Unreachable("Cinder does not answer")
    assert (await cloud.ask(PATH, "2.89")).status_code == 503


async def test_nor_of_a_server_that_runs_on_two_hosts(cloud: Cloud) -> None:
    """Each has a definition of its own, and is admitted to volumes of its own."""
    await cloud.run_twice()
    cloud.world.a.disks[WEB1] = ()
    for path in (PATH, f"/servers/{WEB1}/os-volume_attachments"):
        for version in ("2.1", "2.89"):
            answer = await cloud.ask(path, version)
            assert answer.status_code == 503 and "several hosts" in fault_of(answer, "serviceUnavailable")


async def test_a_disk_of_the_next_start_is_attached(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    details = await cloud.world.controller.inventory.details((await cloud.setup.servers.one(WEB1)).vm)
    assert details is not None
    cold = details.model_copy(update={"disks": (), "cold": details.disks})

    async def said(_vm: object) -> object:
        return cold

    monkeypatch.setattr(cloud.world.controller.inventory, "details", said)
    assert (await cloud.get(PATH, "2.89"))["volumeAttachment"]["attachment_id"] == ATTACHMENT


async def test_nothing_is_said_while_two_hosts_are_admitted(cloud: Cloud) -> None:
    assert (await cloud.migrate()).status_code == 202
    cloud.services.attach(ATTACHMENT, SECOND)
    answer = await cloud.ask(PATH, "2.89")
    assert answer.status_code == 503 and "is being migrated" in fault_of(answer, "serviceUnavailable")
    assert (await cloud.ask(f"/servers/{WEB1}/os-volume_attachments/{OTHER}", "2.89")).status_code == 503
    assert (await cloud.ask(f"/servers/{WEB1}/os-volume_attachments", "2.89")).status_code == 503
    assert (await cloud.get(PATH, "2.1"))["volumeAttachment"]["volumeId"] == VOLUME


async def test_nor_of_attachments_that_a_migration_left(cloud: Cloud) -> None:
    cloud.services.attach(ATTACHMENT, SECOND)
    answer = await cloud.ask(PATH, "2.89")
    assert answer.status_code == 503 and "2 attachments" in fault_of(answer, "serviceUnavailable")
    cloud.services.attach()
    assert (await cloud.ask(PATH, "2.89")).status_code == 503


@pytest.mark.parametrize("known", [True, False])
async def test_nor_while_cinder_or_the_host_does_not_answer(cloud: Cloud, known: bool) -> None:
    cloud.services.fault = Unreachable("Cinder does not answer")
    assert (await cloud.ask(PATH, "2.89")).status_code == 503
    cloud.services.fault = None
    cloud.world.a.listening = False
    for volume in (VOLUME, OTHER):
        answer = await cloud.ask(f"/servers/{WEB1}/os-volume_attachments/{volume}", "2.89" if known else "2.1")
        assert answer.status_code == 503, answer.text
    assert (await cloud.ask(f"/servers/{WEB1}/os-volume_attachments")).status_code == 503


async def test_another_projects_server_is_forbidden_and_not_unknown(cloud: Cloud) -> None:
    """To Cinder, unknown would mean: delete."""
    for server, token in ((DB1, "reader"), (LOST1, "manager"), (WEB1, "stranger")):
        answer = await cloud.ask(f"/servers/{server}/os-volume_attachments/{VOLUME}", "2.89", token=token)
        assert answer.status_code == 403, answer.text


async def test_a_server_that_sterna_does_not_have_may_be_another_novas(cloud: Cloud) -> None:
    path = f"/servers/{OTHER}/os-volume_attachments/{VOLUME}"
    cloud.services.attach(ATTACHMENT, server=OTHER)
    answer = await cloud.ask(path, "2.89")
    assert answer.status_code == 503 and "another's" in fault_of(answer, "serviceUnavailable")
    cloud.services.attach(ATTACHMENT, server=OTHER, status="detached")
    assert (await cloud.ask(path, "2.89")).status_code == 404
    cloud.services.fault = Unreachable("Cinder does not answer")
    assert (await cloud.ask(path, "2.89")).status_code == 503
    cloud.services.fault = None
    cloud.world.c.listening = False
    cloud.world.clock.ms += 60_000
    await cloud.world.bus.beat(cloud.world.controller)
    answer = await cloud.ask(path, "2.89")
    assert answer.status_code == 503 and "not every host answers" in fault_of(answer, "serviceUnavailable")


async def test_one_that_has_just_appeared_is_asked_about_again(cloud: Cloud) -> None:
    new = "aaaaaaaa-0000-4000-8000-000000000009"
    cloud.world.a.vms[new] = cloud.world.a.vms[WEB1].model_copy(update={"uuid": new})
    cloud.world.a.disks[new] = (Disk(target="vda", kind=DiskKind.ISCSI, volume_id=VOLUME),)
    cloud.services.attach(ATTACHMENT, server=new)
    path = f"/servers/{new}/os-volume_attachments/{VOLUME}"
    assert (await cloud.ask(path, "2.89")).status_code == 503
    assert (await cloud.get(path, "2.89"))["volumeAttachment"]["attachment_id"] == ATTACHMENT


@pytest.mark.parametrize("volume", ["web1", "x" * 300, VOLUME.replace("-", ""), "detail%3Fall=1", "..;"])
async def test_what_is_no_uuid_never_reaches_cinder(cloud: Cloud, volume: str) -> None:
    """404 would let Cinder delete, and the volume's ID becomes a part of an address that an administrator asks."""
    cloud.services.asked.clear()
    for server in (WEB1, OTHER):
        answer = await cloud.ask(f"/servers/{server}/os-volume_attachments/{volume}", "2.89", token="reader")
        assert answer.status_code == 400 and "is a UUID" in fault_of(answer, "badRequest")
    assert not [what for what in cloud.services.asked if what.startswith("volume")]


async def test_a_serial_that_cinder_does_not_have_spoils_no_list(cloud: Cloud) -> None:
    """Nova leaves out what has no attachment's ID from 2.89 on; before, it is there."""
    cloud.world.a.disks[WEB1] = (*cloud.world.a.disks[WEB1], named(OTHER), named(SECOND, "vdc"))
    cloud.services.has(SECOND, DB1)
    path = f"/servers/{WEB1}/os-volume_attachments"
    assert [a["volumeId"] for a in (await cloud.get(path, "2.89"))["volumeAttachments"]] == [VOLUME]
    listed = [a["volumeId"] for a in (await cloud.get(path, "2.88"))["volumeAttachments"]]
    assert listed == [VOLUME, OTHER, SECOND]
    cloud.services.attach(ATTACHMENT, SECOND)
    answer = await cloud.ask(path, "2.89")
    assert answer.status_code == 503 and "2 attachments" in fault_of(answer, "serviceUnavailable")
    cloud.services.attach(ATTACHMENT)
    cloud.services.fault = Unreachable("Cinder does not answer")
    assert (await cloud.ask(path, "2.89")).status_code == 503


async def test_a_list_is_limited(cloud: Cloud) -> None:
    cloud.world.a.disks[WEB1] = (*cloud.world.a.disks[WEB1], named(OTHER), named(SECOND, "vdc"))
    path = f"/servers/{WEB1}/os-volume_attachments"

    async def listed(query: str, version: str = "2.75") -> list[str]:
        return [a["volumeId"] for a in (await cloud.get(f"{path}?{query}", version))["volumeAttachments"]]

    assert await listed("limit=1") == [VOLUME]
    assert await listed("limit=1&offset=1") == [OTHER]
    assert await listed("offset=2") == [SECOND]
    assert await listed("limit=0") == [VOLUME, OTHER, SECOND]  # no limit
    assert await listed("foo=bar", "2.74") == [VOLUME, OTHER, SECOND]
    for query in ("foo=bar", "offset=-1", "limit=x"):
        answer = await cloud.ask(f"{path}?{query}", "2.75")
        assert answer.status_code == 400 and fault_of(answer, "badRequest")


def test_no_answer_lets_cinder_delete_what_is_in_use() -> None:
    """Of everything that can be seen: where a disk uses the volume, or a migration may, each attachment stays."""
    ids = [None, (), ("a",), ("a", "b")]
    both = [False, True]
    for used, unnamed, moving, twice, attachments in itertools.product([True, False, None], both, both, both, ids):
        seen = Seen(used=used, unnamed=unnamed, moving=moving, twice=twice, attachments=attachments)
        answer = judge(seen, with_id=True)
        status = {Say.ATTACHED: 200, Say.NOT_ATTACHED: 404, Say.UNKNOWN: 503}[answer.say]
        for mine in attachments or ():
            gone = deletes(status, {"volumeAttachment": {"attachment_id": answer.attachment_id}}, mine)
            assert not gone or (used is False and not (moving or unnamed or twice)), (seen, mine)
    for attachments, complete in itertools.product(ids, [True, False]):
        answer = judge_unknown_server(attachments, complete=complete)
        assert (answer.say is Say.NOT_ATTACHED) == (attachments == () and complete)
        assert answer.say is Say.NOT_ATTACHED or answer.why


def test_what_was_detached_admits_nobody() -> None:
    pairs = [
        ("a", "attached"),
        ("b", "detached"),
        ("c", "reserved"),
        ("d", "deleted"),
        ("e", "attaching"),
        ("f", "error_detaching"),  # what was to be detached is perhaps still connected
        ("g", "error_attaching"),
        ("h", "detaching"),
    ]
    assert live(pairs) == ("a", "c", "e", "f", "g", "h")
