"""A host that cannot take part, and a guest that was paused on its way, as users of real parts learn of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sterna.lab import sabotage
from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

STATE_DIR = "/srv/sterna/state"


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    guest = fleet.lab.create_vm("stay", "host1", memory_mib=256, dirty_mib_s=5, disks=("shared",))
    yield guest
    fleet.remove(guest)


def sterna(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a user types it, into a pipe."""
    command = [sys.executable, "-m", "sterna", *arguments]
    env = os.environ | {"STERNA_API": fleet.lab.controller_url or "", "STERNA_TOKEN": fleet.lab.controller_token}
    env |= {"STERNA_CA_FILE": fleet.lab.controller_ca}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def host(fleet: Fleet, name: str = "host2") -> dict[str, Any]:
    return dict(fleet.api.get(f"/v1/hosts/{name}").json())


def refusals(fleet: Fleet, guest: Guest) -> dict[str, str]:
    answer = fleet.start(guest.name, "host2")
    assert answer.status_code == 422, answer.text
    assert all(r["fix"] for r in answer.json()["reasons"])
    return {r["code"]: r["message"] for r in answer.json()["reasons"]}


def test_a_host_whose_libvirtd_is_away(fleet: Fleet, guest: Guest) -> None:
    sabotage.kill_libvirtd(fleet.lab, "host2")
    try:
        fleet.eventually(lambda: host(fleet)["state"] == "degraded")
        why = host(fleet)["reason"]
        assert why.startswith("libvirtd cannot be used since 20"), why
        listed = sterna(fleet, "hosts")
        assert listed.returncode == 0 and f"host2: {why}" in listed.stdout
        vms = sterna(fleet, "vms")
        assert (
            vms.returncode == 6 and guest.name in vms.stdout and "no answer, VMs as last seen: host2" in vms.stderr
        )
        audit = sterna(fleet, "audit")
        assert audit.returncode == 6 and "on the hosts that were asked" in audit.stdout and "host2" in audit.stderr
        health = fleet.api.get("/v1/health").json()
        assert health["status"] == "degraded" and health["problems"] == {"host2": host(fleet)["reason"]}
        assert "libvirtd cannot be used" in refusals(fleet, guest)["destination-down"]
    finally:
        sabotage.start_libvirtd(fleet.lab, "host2")
    fleet.eventually(lambda: host(fleet)["state"] == "up")
    assert sterna(fleet, "vms").returncode == 0
    assert fleet.api.get("/v1/health").json()["status"] == "ok"


def test_an_agent_that_starts_without_libvirtd_is_listed_by_a_controller_that_has_never_seen_it(
    fleet: Fleet,
) -> None:
    """Also a second agent of that name does not start."""
    lab = fleet.lab
    lab.kill_agent("host2", signal.SIGKILL)
    sabotage.kill_libvirtd(lab, "host2")
    try:
        lab.start_agent("host2")
        fleet.eventually(lambda: host(fleet)["state"] == "degraded")
    finally:
        sabotage.start_libvirtd(lab, "host2")
    fleet.eventually(lambda: host(fleet)["state"] == "up")


def test_a_host_whose_state_dir_is_full(fleet: Fleet, guest: Guest) -> None:
    lab, there = fleet.lab, fleet.lab.hosts["host2"]
    settings = [p for p in os.listdir(there.root / "state") if not p.startswith("journal")]
    lab.kill_agent("host2", signal.SIGKILL)
    there.run(["cp", "-a", STATE_DIR, "/run/state"])
    there.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", STATE_DIR])
    try:
        there.run(["cp", "-a", "/run/state/.", STATE_DIR])
        lab.start_agent("host2")
        fleet.eventually(lambda: host(fleet)["state"] == "up")
        there.run(["dd", "if=/dev/zero", f"of={STATE_DIR}/filler", "bs=64k"], check=False)
        fleet.eventually(lambda: host(fleet)["state"] == "degraded")
        assert "its journal cannot be written since 20" in host(fleet)["reason"], settings
        vms = sterna(fleet, "vms", "--json")
        assert vms.returncode == 0 and json.loads(vms.stdout)["complete"], "it can still be asked"
        assert "its journal cannot be written" in refusals(fleet, guest)["destination-degraded"]
        there.run(["rm", f"{STATE_DIR}/filler"])
        fleet.eventually(lambda: host(fleet)["state"] == "up")
    finally:
        lab.kill_agent("host2", signal.SIGKILL)
        there.run(["umount", STATE_DIR], check=False)
        lab.start_agent("host2")
    fleet.eventually(lambda: host(fleet)["state"] == "up")


def test_a_guest_that_an_operator_pauses_in_mid_copy(fleet: Fleet) -> None:
    guest = fleet.lab.create_vm("held", "host1", memory_mib=256, dirty_mib_s=20, disks=("shared",))
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=32 * 2**20)
    fleet.wait_for_row("host1", "copy-started", migration)
    fleet.eventually(lambda: fleet.show(migration)["progress"]["bytes_processed"] is not None)
    fleet.lab.hosts["host1"].virsh("suspend", guest.name)
    ended = fleet.wait(migration)
    report = fleet.api.get(f"/v1/migrations/{migration}").json()["report"]
    shown = sterna(fleet, "show", migration).stdout
    print(
        ended["status"], ended["reason"], report["downtime_ms"], report["downtime_reason"], report["guest"], shown
    )
    assert ended["status"] == "completed"
    assert report["downtime_ms"] is None and "paused on host1 before it, for " in report["downtime_reason"]
    assert "paused on host1 before it" in shown
    assert report["guest"] == "" and fleet.lab.hosts_running(guest.name) == ["host2"], "libvirt let it run on there"
    fleet.wait_closed(migration)
    assert guest.status().clean
    fleet.remove(guest)
