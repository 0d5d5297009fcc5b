"""tgtadm's text, as tgt 1.0.85 prints it; and what a tgtd that is away looks like."""

import stat
from pathlib import Path

import pytest

from sterna.adapters.volumes.tgt import Target, TgtVolumes, parse_targets
from sterna.domain.errors import Unreachable
from sterna.domain.model import Disk, DiskKind, IscsiSource

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


async def test_refusals(tgtadm: str) -> None:
    volumes = TgtVolumes("iqn.x:me", tgtadm=tgtadm)
    assert await volumes.check(disk("a"), "host1") == []
    for wanted, code in (
        (disk("a", 7), "volume-missing"),
        (disk("b"), "target-shared"),
        (disk("z"), "volume-missing"),
    ):
        assert [r.code for r in await volumes.check(wanted, "host1")] == [code]
    assert [r.code for r in await TgtVolumes("", tgtadm=tgtadm).check(disk("a"), "host1")] == ["initiator-unknown"]
    assert [r.code for r in await TgtVolumes("iqn.x:me", tgtadm="/no/such/tool").check(disk("a"), "host1")] == [
        "volume-service-down"
    ]


async def test_tgtd_away() -> None:
    with pytest.raises(Unreachable, match="tgtd does not answer"):
        await TgtVolumes("iqn.x:me", tgtadm="false").targets()
    assert [r.code for r in await TgtVolumes("iqn.x:me", tgtadm="false").check(disk("a"), "host1")] == [
        "volume-service-down"
    ]
