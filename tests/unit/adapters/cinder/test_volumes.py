"""Whatever Cinder answers or fails to: one attachment at the end, on the right host, the source's untouched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from sterna.domain.errors import Permanent, Temporary, Unknown, Unreachable
from sterna.domain.model import DiskKind, RbdSource, SecretRef
from sterna.domain.secrets import Secret
from tests.narrowing import not_none
from tests.scripted_cloud import Answer, ScriptedCloud
from tests.unit.adapters.cinder.scripted_cinder import VM, VOLUME, ScriptedCinder, disk, initiator, provider

ANOTHER = "0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11"
FAULTS = {
    "500, not done": (Answer(500, {"computeFault": {"code": 500, "message": "boom"}}), False),
    "500, done": (Answer(500, {"computeFault": {"code": 500, "message": "boom"}}), True),
    "503": (Answer(503, {}), False),
    "504, done": (Answer(504, {}), True),
    "lost before": (Answer(lost=True), False),
    "lost after": (Answer(lost=True), True),
}


async def insist(act: Callable[[], Awaitable[Any]]) -> Any:
    """As the runner does it: again after what is Temporary or Unknown."""
    for _ in range(5):
        try:
            return await act()
        except (Temporary, Unknown):
            continue
    raise AssertionError("it never held")


@pytest.mark.parametrize("request_hit", ["create", "complete", "delete"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_move_ends_with_one_attachment(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str, request_hit: str, fault: str
) -> None:
    host1, host2 = provider(cloud, "host1", qemu_img), provider(cloud, "host2", qemu_img)
    cinder.faults[request_hit] = FAULTS[fault]
    attached = await insist(lambda: host2.attach(disk(), "host1"))
    await insist(lambda: host2.connect(attached))
    assert cinder.hosts() == [("host1", "attached"), ("host2", "attached")]
    await insist(lambda: host1.detach(disk()))
    assert cinder.hosts() == [("host2", "attached")]
    assert cinder.faults == {}


@pytest.mark.parametrize("request_hit", ["create", "complete", "delete"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_rollback_leaves_the_sources_alone(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str, request_hit: str, fault: str
) -> None:
    (source,) = cinder.attachments
    host2 = provider(cloud, "host2", qemu_img)
    cinder.faults[request_hit] = FAULTS[fault]
    try:
        attached = await host2.attach(disk(), "host1")
        await host2.connect(attached)
    except (Temporary, Unknown):
        pass  # the migration is turned back there and then
    await insist(lambda: host2.detach(disk()))
    assert list(cinder.attachments) == [source]
    assert cinder.hosts() == [("host1", "attached")]
    assert not any(source in path for method, path in cloud.changes() if method != "GET")


async def test_a_conflict_turns_the_migration_back(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    host2 = provider(cloud, "host2", qemu_img)
    cinder.faults["create"] = (Answer(409, {"conflictingRequest": {"code": 409, "message": "duplicate"}}), False)
    with pytest.raises(Permanent) as caught:
        await host2.attach(disk(), "host1")
    assert "duplicate" in caught.value.message
    await host2.detach(disk())
    assert cinder.hosts() == [("host1", "attached")]


async def test_what_fell_over_inside_cinder_is_swept_away(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    cinder.add("host2", "reserved", connection_info={})
    cinder.add("host2", "error_attaching", connection_info={})
    host2 = provider(cloud, "host2", qemu_img)
    await host2.connect(await host2.attach(disk(), "host1"))
    assert cinder.hosts() == [("host1", "attached"), ("host2", "attached")]
    assert len(cinder.attachments) == 2


async def test_an_unfinished_one_of_a_third_host_is_not_taken_for_ours(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    cinder.add("host3", "attaching")
    cinder.volume["status"] = "attaching"
    with pytest.raises(Permanent) as caught:
        await provider(cloud, "host2", qemu_img).attach(disk(), "host1")
    assert "host1, host3" in caught.value.message
    await provider(cloud, "host2", qemu_img).detach(disk())
    assert cinder.hosts() == [("host1", "attached"), ("host3", "attached")]


async def test_a_token_that_is_revoked_meanwhile(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    host2 = provider(cloud, "host2", qemu_img)
    attached = await host2.attach(disk(), "host1")
    cloud.revoked = cloud.logins
    await host2.connect(attached)
    assert cinder.hosts() == [("host1", "attached"), ("host2", "attached")]


async def test_the_only_attachment_is_the_guests(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    with pytest.raises(Temporary) as caught:
        await provider(cloud, "host1", qemu_img).detach(disk())
    assert caught.value.fix
    assert cinder.hosts() == [("host1", "attached")]


async def test_a_volume_that_is_gone_needs_no_detaching(cloud: ScriptedCloud, qemu_img: str) -> None:
    gone = disk(volume_id="11111111-2222-4333-8444-555555555555")
    host2 = provider(cloud, "host2", qemu_img)
    await host2.detach(gone)
    assert not await host2.admitted(gone)
    assert [r.code for r in await host2.check(gone, "host1")] == ["volume-missing"]


async def test_size_is_compared(cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str) -> None:
    host2 = provider(cloud, "host2", qemu_img)
    attached = await host2.attach(disk(capacity_bytes=5), "host1")
    with pytest.raises(Permanent):
        await host2.connect(attached)
    assert cinder.hosts() == [("host1", "attached"), ("host2", "attaching")]


def connect(cinder: ScriptedCinder, **more: str) -> None:
    """The first attachment's connection is another one."""
    next(iter(cinder.attachments.values()))["connection_info"].update(more)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("volume-multiattach", lambda c: c.volume.update(multiattach=True)),
        ("volume-encrypted", lambda c: c.volume.update(encrypted=True)),
        ("volume-read-only", lambda c: c.volume.update(metadata={"readonly": "True"})),
        ("volume-state", lambda c: c.volume.update(status="error")),
        ("volume-state", lambda c: c.volume.update(status="attaching")),
        ("volume-state", lambda c: c.volume.update({"os-vol-mig-status-attr:migstat": "migrating"})),
        ("volume-attachments", lambda c: c.attachments.clear()),
        ("volume-attachments", lambda c: c.add("host3", "attached")),
        ("volume-transport", lambda c: connect(c, driver_volume_type="fibre_channel")),
        ("volume-transport", lambda c: connect(c, driver_volume_type="nfs")),
        ("volume-chap", lambda c: connect(c, auth_method="CHAP", auth_username="u", auth_password="verysecret")),
    ],
)
async def test_what_cannot_move_is_refused_with_a_fix(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str, code: str, change: Callable[[ScriptedCinder], None]
) -> None:
    change(cinder)
    host2 = provider(cloud, "host2", qemu_img)
    (refusal,) = await host2.check(disk(), "host1")
    assert refusal.code == code
    assert refusal.fix
    assert "verysecret" not in refusal.message + refusal.fix
    before = cinder.hosts()
    with pytest.raises(Permanent):
        await host2.attach(disk(), "host1")
    assert cinder.hosts() == before


CHAP = SecretRef(kind="iscsi", uuid="0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11", username="u")
LUKS = SecretRef(kind="volume", uuid="1b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11")


class Keys:
    """libvirt's secrets on the destination, as P9 finds them."""

    def __init__(self, value: bytes, *, private: bool = False) -> None:
        self.value, self.private = value, private
        self.made: list[tuple[Secret, bytes]] = []

    async def make_secret(self, secret: Secret, value: bytes) -> None:
        self.made.append((secret, value))

    async def remove_secret(self, uuid: str, vm_uuid: str, migration_id: str | None = None) -> bool:
        raise NotImplementedError

    async def unused_secrets(self) -> list[Secret]:
        raise NotImplementedError

    async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
        return [Secret(uuid=not_none(ref.uuid), kind=ref.kind, private=self.private) for ref in refs]

    async def secret_value(self, uuid: str) -> bytes:
        return self.value


@pytest.mark.parametrize(
    ("keys", "moves"),
    [(Keys(b"verysecret"), True), (Keys(b"", private=True), True), (Keys(b"another"), False)],
)
async def test_a_login_that_the_disk_brings_along_is_compared_with_what_cinder_wants(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str, keys: Keys, moves: bool
) -> None:
    for each in (cinder.connection, *(a["connection_info"] for a in cinder.attachments.values())):
        each.update(auth_method="CHAP", auth_username="u", auth_password="verysecret")
    host2 = provider(cloud, "host2", qemu_img, keys)
    named = disk(secrets=(CHAP,))
    assert await host2.check(named, "host1") == []
    attached = await host2.attach(named, "host1")
    assert "verysecret" not in attached.model_dump_json()
    if moves:
        assert await host2.connect(attached) == attached
        assert cinder.hosts() == [("host1", "attached"), ("host2", "attached")]
        return
    with pytest.raises(Permanent) as refused:
        await host2.connect(attached)
    told = refused.value.message + refused.value.fix
    assert "another CHAP password" in told
    assert "verysecret" not in told
    assert cinder.hosts() == [("host1", "attached"), ("host2", "attaching")]


async def test_a_login_of_its_own_takes_the_place_of_the_sources(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    (mine,) = cinder.attachments.values()
    mine["connection_info"].update(auth_method="CHAP", auth_username="u", auth_password="verysecret")
    cinder.connection.update(auth_method="CHAP", auth_username="of-host2", auth_password="otherword")
    keys = Keys(b"verysecret")
    host2 = provider(cloud, "host2", qemu_img, keys)
    named = disk(secrets=(CHAP, LUKS))
    assert await host2.check(named, "host1") == []
    attached = await host2.attach(named, "host1")
    own = SecretRef(kind="iscsi", uuid=attached.attachment_id, username="of-host2")
    assert attached.secrets == (own, LUKS)
    assert "word" not in attached.model_dump_json()
    assert await host2.attach(named, "host1") == attached
    for _ in range(2):
        assert await host2.connect(attached) == attached
    made = [(s.uuid, s.made_for, s.made_by, word) for s, word in keys.made]
    assert set(made) == {(attached.attachment_id, VM, attached.attachment_id, b"otherword")}
    other = CHAP.model_copy(update={"username": "somebody"})
    assert [r.code for r in await host2.check(disk(secrets=(other,)), "host1")] == ["volume-chap"]


async def test_an_encrypted_volume_that_qemu_decrypts_moves(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    cinder.volume.update(encrypted=True)
    host2 = provider(cloud, "host2", qemu_img, Keys(b"x"))
    assert await host2.check(disk(secrets=(LUKS,)), "host1") == []
    assert [r.code for r in await host2.check(disk(secrets=(CHAP,)), "host1")] == ["volume-encrypted"]


async def test_what_the_host_attached_is_refused(cloud: ScriptedCloud, qemu_img: str) -> None:
    block = disk(kind=DiskKind.BLOCK, iscsi=None, path="/dev/sdb")
    assert [r.code for r in await provider(cloud, "host2", qemu_img).check(block, "host1")] == [
        "volume-host-attached"
    ]


async def test_cinder_away_is_a_reason_too(cloud: ScriptedCloud, qemu_img: str) -> None:
    host2 = provider(cloud, "host2", qemu_img)
    assert await host2.check(disk(), "host1") == []
    cloud.stop()
    assert [r.code for r in await host2.check(disk(), "host1")] == ["volume-service-down"]
    with pytest.raises(Unreachable):
        await host2.admitted(disk())


def test_only_uuids_are_cinders(cloud: ScriptedCloud, qemu_img: str) -> None:
    host2 = provider(cloud, "host2", qemu_img)
    assert host2.handles(disk())
    assert host2.handles(disk(kind=DiskKind.FILE, iscsi=None, path="/x"))
    assert not host2.handles(disk(volume_id="WD-1234"))
    assert not host2.handles(disk(volume_id=None))
    assert not host2.handles(disk(kind=DiskKind.EMPTY))


@pytest.mark.parametrize("status", ["attaching", "attached", "reserved"])
@pytest.mark.parametrize("host", ["host1", "host2", "host3"])
async def test_a_volume_of_another_vm_is_refused_and_left_alone(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str, host: str, status: str
) -> None:
    """Whatever a source names: in the plan, at P4, and in the rollback."""
    cinder.attachments.clear()
    cinder.add(host, "attached", instance=ANOTHER)
    cinder.add("host2", status, instance=ANOTHER, connection_info={})
    before = cinder.hosts()
    host2 = provider(cloud, "host2", qemu_img)
    assert [r.code for r in await host2.check(disk(), "host1")] == ["volume-attachments"]
    with pytest.raises(Permanent, match="attached on no host, and the VM is on host1"):
        await host2.attach(disk(), "host1")
    await host2.detach(disk())
    assert cloud.changes() == [] and cinder.hosts() == before


@pytest.mark.parametrize("status", ["attaching", "attached"])
async def test_nor_is_one_taken_from_a_host_that_the_vm_does_not_come_from(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str, status: str
) -> None:
    cinder.add("host2", status)
    host2 = provider(cloud, "host2", qemu_img)
    with pytest.raises(Permanent, match="and the VM is on host3"):
        await host2.attach(disk(), "host3")
    assert "volume-attachments" in [r.code for r in await host2.check(disk(), "host3")]
    assert cloud.changes() == []


async def test_whose_volume_it_is_must_be_known(cloud: ScriptedCloud, qemu_img: str) -> None:
    """It is not taken for the VM's that has it attached."""
    host2 = provider(cloud, "host2", qemu_img)
    for act in (host2.attach(disk(vm_uuid=None), "host1"), host2.detach(disk(vm_uuid=None))):
        with pytest.raises(Permanent, match="is not known"):
            await act
    assert cloud.changes() == []


async def test_ipv6_portals(cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str) -> None:
    cinder.connection["target_portal"] = "[fd00::1]:3261"
    attached = await provider(cloud, "host2", qemu_img).attach(disk(), "host1")
    assert attached.iscsi is not None
    assert (attached.iscsi.portal_host, attached.iscsi.portal_port) == ("fd00::1", 3261)
    assert attached.iscsi.initiator == initiator("host2")


CEPH: dict[str, Any] = {
    "driver_volume_type": "rbd",
    "name": f"volumes/volume-{VOLUME}",
    "hosts": ["10.0.0.1", "10.0.0.2"],
    "ports": ["6789", "6789"],
    "auth_enabled": True,
    "auth_username": "cinder",
    "secret_type": "ceph",
    "keyring": "verysecret",
}


async def test_a_ceph_image_needs_no_initiator_and_no_key_of_ours(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    cinder.connection = dict(CEPH)
    cinder.attachments.clear()
    cinder.add("host1", "attached")
    ours = RbdSource(name=CEPH["name"], monitors=("10.0.0.9:6789",))
    ceph = disk(kind=DiskKind.RBD, iscsi=None, rbd=ours)
    host2 = provider(cloud, "host2", qemu_img)
    assert await host2.check(ceph, "host1") == []
    attached = await host2.connect(await host2.attach(ceph, "host1"))
    assert attached.rbd == RbdSource(name=CEPH["name"], monitors=("10.0.0.1:6789", "10.0.0.2:6789"))
    assert "verysecret" not in attached.model_dump_json()
    assert cinder.hosts() == [("host1", "attached"), ("host2", "attached")]
    assert [r.code for r in await host2.check(disk(), "host1")] == ["volume-host-attached"]


async def test_an_unfinished_attachment_that_goes_meanwhile_is_not_the_volume(
    cinder: ScriptedCinder, cloud: ScriptedCloud, qemu_img: str
) -> None:
    """A volume that is gone needs no detaching; this host's attachment does."""
    cinder.add("host2", "attached")
    cinder.add("host3", "attaching")
    cinder.faults["complete"] = (Answer(404, {"itemNotFound": {"code": 404, "message": "not here"}}), False)
    await provider(cloud, "host1", qemu_img).detach(disk())
    assert ("host1", "attached") not in cinder.hosts()
