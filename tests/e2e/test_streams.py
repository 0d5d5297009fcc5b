"""How memory travels, and rehearsals, on the real lab: TLS, the tunnel, and everything undone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sterna.lab.credentials import link_certificates
from sterna.lab.enrolment import enrolled
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab


def rehearsed(fleet: Fleet, vm: str, to: str, **more: object) -> dict[str, Any]:
    body = {"vm": vm, "destination": to, "rehearse": True, **more}
    answer = fleet.api.post("/v1/plans", json=body, timeout=60).json()
    assert answer["blockers"] == [], answer
    return dict(answer["rehearsal"])


def migrated(fleet: Fleet, vm: str, to: str, **more: object) -> dict[str, Any]:
    """A migration that must complete; its report."""
    migration = fleet.started(vm, to, **more)
    ended = fleet.wait(migration)
    assert ended["status"] == "completed", ended
    fleet.wait_closed(migration)
    return dict(fleet.show(migration)["report"])


def test_a_rehearsal_leaves_both_hosts_as_they_were_and_the_real_one_goes_over_tls(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm(
        "rehearsed", "host1", memory_mib=192, dirty_mib_s=5, disks=("shared", "local", "iscsi")
    )
    boot, before = guest.status().boot_id, fleet.snapshots()
    for more in ({"transport": "tls"}, {"transport": "tls", "with_copy": True, "may": ["postcopy"]}):
        rehearsal = rehearsed(fleet, "rehearsed", "host2", **more)
        assert rehearsal["passed"], rehearsal
        assert rehearsal["copied"] is bool(more.get("with_copy"))
        assert any("TLS handshake" in what for what in rehearsal["tried"])
        fleet.wait_closed(rehearsal["migration_id"])
        assert fleet.snapshots() == before
        assert fleet.lab.hosts_running("rehearsed") == ["host1"]
    report = migrated(fleet, "rehearsed", "host2", transport="tls")
    assert report["stream"]["parameters"]["transport"] == "tls"
    parts = report["downtime"]
    print(f"downtime {report['downtime_ms']} ms: {parts}")
    assert None not in [parts[name] for name in parts if name.endswith("_ms")], parts
    assert parts["stop_ms"] + parts["device_state_ms"] <= report["downtime_ms"] + 50
    after = guest.status()
    assert after.clean and after.boot_id == boot
    fleet.remove(guest)


def test_nothing_travels_unencrypted_because_a_user_asks_for_it(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("private", "host1", memory_mib=192, dirty_mib_s=5, disks=("shared", "local"))
    body = {"vm": "private", "destination": "host2", "transport": "tcp"}
    blockers = fleet.api.post("/v1/plans", json=body, timeout=60).json()["blockers"]
    assert [b["code"] for b in blockers] == ["transport-unencrypted"]
    assert all(name in blockers[0]["message"] for name in fleet.lab.hosts)
    report = migrated(fleet, "private", "host2")
    assert report["stream"]["parameters"]["transport"] == "tls"
    assert guest.status().clean
    fleet.remove(guest)


def test_a_guest_goes_through_ssh(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("tunnelled", "host1", memory_mib=192, dirty_mib_s=5, disks=("shared", "iscsi"))
    boot = guest.status().boot_id
    report = migrated(fleet, "tunnelled", "host2", transport="ssh", may=["postcopy"])
    assert report["stream"]["parameters"]["transport"] == "ssh"
    assert any("postcopy is not used" in w for w in report["stream"]["warnings"])
    assert fleet.lab.hosts_running("tunnelled") == ["host2"]
    after = guest.status()
    assert after.clean and after.boot_id == boot
    fleet.remove(guest)


def test_certificates_that_do_not_match_are_found_by_a_rehearsal(fleet: Fleet, tmp_path: Path) -> None:
    guest = fleet.lab.create_vm("distrusted", "host1", memory_mib=192, disks=("shared",))
    host = fleet.lab.hosts["host2"]
    before = fleet.snapshots()
    stranger = enrolled(tmp_path, {"host2": host.address}) / "host2"
    pki = host.root / "etc/libvirt/pki"
    kept = pki.rename(pki.with_name("kept"))
    try:
        link_certificates(tmp_path / "links", stranger)
        shutil.copytree(tmp_path / "links", pki)
        rehearsal = rehearsed(fleet, "distrusted", "host2", transport="tls")
        assert not rehearsal["passed"]
        assert [r["code"] for r in rehearsal["refusals"]] == ["tls-handshake"]
        fleet.wait_closed(rehearsal["migration_id"])
        failed = fleet.started("distrusted", "host2", transport="tls")
        assert fleet.wait(failed)["status"] == "failed"
        fleet.wait_closed(failed)
    finally:
        shutil.rmtree(pki)
        kept.rename(pki)
    assert fleet.snapshots() == before
    assert guest.status().clean
    fleet.remove(guest)
