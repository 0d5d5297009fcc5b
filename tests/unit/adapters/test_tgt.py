"""tgtadm's text, as tgt 1.0.85 prints it; and what a tgtd that is away looks like."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.volumes.tgt import Target, TgtVolumes, parse_targets
from sterna.domain.errors import Permanent, Unreachable
from sterna.domain.model import Disk, DiskKind, IscsiSource, SecretRef
from sterna.domain.secrets import Secret

SHOWN = """Target 1: iqn.2026-11.lab.sterna:a
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 3
            Initiator: iqn.2026-11.lab.sterna:host1 alias: none
            Connection: 0
                IP Address: 10.73.0.11
    LUN information:
        LUN: 0
            Type: controller
            Backing store type: null
        LUN: 1
            Type: disk
            Backing store type: rdwr
            Backing store path: /x/a.img
    Account information:
    ACL information:
        iqn.2026-11.lab.sterna:host1
Target 2: iqn.2026-11.lab.sterna:b
    System information:
        Driver: iscsi
    I_T nexus information:
    LUN information:
        LUN: 0
            Type: controller
        LUN: 1
            Type: disk
        LUN: 2
            Type: disk
    Account information:
    ACL information:
"""


def disk(target: str, lun: int = 1) -> Disk:
    source = IscsiSource(target=f"iqn.2026-11.lab.sterna:{target}", lun=lun, portal_host="p")
    return Disk(target="vdc", kind=DiskKind.ISCSI, iscsi=source)


@pytest.fixture
def tgtadm(tmp_path: Path) -> str:
    (tmp_path / "shown").write_text(SHOWN)
    script = tmp_path / "tgtadm"
    script.write_text(f"#!/bin/sh\ncat {tmp_path}/shown\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_targets_with_their_luns_names_and_sessions() -> None:
    first, second = parse_targets(SHOWN)
    host1 = "iqn.2026-11.lab.sterna:host1"
    assert first == Target(1, "iqn.2026-11.lab.sterna:a", (1,), (host1,), ((3, 0, host1),))
    assert second == Target(2, "iqn.2026-11.lab.sterna:b", (1, 2))
    assert parse_targets("") == []


@pytest.fixture
def opens(tmp_path: Path) -> str:
    """A qemu-img that opens every LUN, and writes down what it is asked."""
    script = tmp_path / "qemu-img"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho \'{{"virtual-size": 100}}\'\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


async def test_refusals(tgtadm: str) -> None:
    volumes = TgtVolumes("iqn.x:me", tgtadm=tgtadm, qemu_img="false")
    assert await volumes.check(disk("a"), "host1") == []
    for wanted, code in (
        (disk("a", 7), "volume-missing"),
        (disk("b"), "target-shared"),
        (disk("z"), "volume-missing"),
    ):
        assert [r.code for r in await volumes.check(wanted, "host1")] == [code]
    assert [r.code for r in await TgtVolumes("", tgtadm=tgtadm).check(disk("a"), "host1")] == ["initiator-unknown"]
    away = TgtVolumes("iqn.x:me", tgt_socket="/no/such/socket", tgtadm="/no/such/tool")
    assert [r.code for r in await away.check(disk("a"), "host1")] == ["volume-service-down"]


OF_A_NAS = disk("z").model_copy(update={"capacity_bytes": 100})


@pytest.mark.parametrize("has_tgt", [True, False])
async def test_a_lun_of_another_machine_that_admits_the_host_is_used_as_it_is(
    has_tgt: bool, tgtadm: str, opens: str, tmp_path: Path
) -> None:
    volumes = TgtVolumes("iqn.x:me", tgtadm=tgtadm if has_tgt else "/no/such/tool", qemu_img=opens)
    assert await volumes.check(OF_A_NAS, "host1") == []
    assert "initiator-name=iqn.x:me" in (tmp_path / "asked").read_text()
    assert not await volumes.admitted(OF_A_NAS)
    attached = await volumes.attach(OF_A_NAS, "host1")
    assert attached.iscsi is not None and attached.iscsi.initiator == "iqn.x:me"
    assert await volumes.connect(attached) == attached
    await volumes.detach(attached)  # nothing is withdrawn: tgtadm would have failed


@pytest.mark.parametrize("has_tgt", [True, False])
async def test_one_that_does_not_admit_the_host_is_refused(has_tgt: bool, tgtadm: str) -> None:
    volumes = TgtVolumes("iqn.x:me", tgtadm=tgtadm if has_tgt else "/no/such/tool", qemu_img="false")
    (refusal,) = await volumes.check(OF_A_NAS, "host1")
    assert refusal.code == "volume-missing" and "cannot be opened" in refusal.message
    assert "admit iqn.x:me" in refusal.fix


async def test_another_disk_under_that_name_is_not_taken_for_the_vms(opens: str) -> None:
    volumes = TgtVolumes("iqn.x:me", tgtadm="/no/such/tool", qemu_img=opens)
    with pytest.raises(Permanent, match="100 bytes here"):
        await volumes.check(OF_A_NAS.model_copy(update={"capacity_bytes": 200}), "host1")


async def test_a_login_that_is_brought_along_later_is_not_tried_before(tmp_path: Path, opens: str) -> None:
    class Keys:
        async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
            return []

    with_chap = OF_A_NAS.model_copy(update={"secrets": (SecretRef(kind="iscsi", usage="a", username="fred"),)})
    keys: Any = Keys()
    volumes = TgtVolumes("iqn.x:me", tgtadm="/no/such/tool", qemu_img=opens, keyring=keys)
    assert await volumes.check(with_chap, "host1") == []
    assert not (tmp_path / "asked").exists()


async def test_tgtd_away() -> None:
    with pytest.raises(Unreachable, match="tgtd does not answer"):
        await TgtVolumes("iqn.x:me", tgtadm="false").targets()
    assert [r.code for r in await TgtVolumes("iqn.x:me", tgtadm="false").check(disk("a"), "host1")] == [
        "volume-service-down"
    ]
