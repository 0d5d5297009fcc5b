"""Bad input on real parts: every reason at once, what would fix it, and nothing changed."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from sterna.lab.guest_view import Guest
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab

CROWD = 1_000
IDLE = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os></domain>"""


@pytest.fixture(scope="module")
def guest(fleet: Fleet) -> Iterator[Guest]:
    """A guest with a local disk on host1."""
    guest = fleet.lab.create_vm("stay", "host1", memory_mib=256, dirty_mib_s=5, disks=("local",))
    yield guest
    fleet.remove(guest)


def refused(fleet: Fleet, vm: str, to: str, status: int) -> set[str]:
    """Ask; it must be refused with that HTTP status; the codes of its reasons."""
    before = fleet.snapshots()
    answer = fleet.start(vm, to)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    reasons = answer.json()["reasons"]
    assert all(r["message"] and r["fix"] for r in reasons), reasons
    assert fleet.snapshots() == before
    return {r["code"] for r in reasons}


def test_no_such_vm_and_no_such_host(fleet: Fleet, guest: Guest) -> None:
    assert refused(fleet, "nobody", "nowhere", 404) == {"no-such-vm", "no-such-host"}


def test_the_same_host(fleet: Fleet, guest: Guest) -> None:
    assert refused(fleet, guest.name, "host1", 422) == {"same-host"}


def test_a_paused_vm_whose_name_and_disk_are_taken_there(fleet: Fleet, guest: Guest) -> None:
    host1, host2 = fleet.lab.hosts["host1"], fleet.lab.hosts["host2"]
    taken = host2.root / "instances" / guest.uuid / "disk.qcow2"
    xml = host2.root / "state" / "idle.xml"
    xml.write_text(IDLE.format(name=guest.name))
    host2.virsh("define", "/srv/sterna/state/idle.xml")
    taken.parent.mkdir()
    taken.touch()
    host1.virsh("suspend", guest.name)
    try:
        assert refused(fleet, guest.uuid, "host2", 422) >= {"vm-paused", "name-taken", "disk-file-exists"}
    finally:
        host1.virsh("resume", guest.name)
        host2.virsh("undefine", guest.name)
        taken.unlink()
        taken.parent.rmdir()
        xml.unlink()


def test_a_vm_that_does_not_run(fleet: Fleet, guest: Guest) -> None:
    host1 = fleet.lab.hosts["host1"]
    xml = host1.root / "state" / "idle.xml"
    xml.write_text(IDLE.format(name="idle"))
    host1.virsh("define", "/srv/sterna/state/idle.xml")
    try:
        assert "vm-not-running" in refused(fleet, "idle", "host2", 422)
    finally:
        host1.virsh("undefine", "idle")
        xml.unlink()


def test_a_host_in_maintenance(fleet: Fleet, guest: Guest) -> None:
    fleet.api.patch("/v1/hosts/host2", json={"maintenance": True})
    try:
        assert refused(fleet, guest.name, "host2", 422) == {"destination-in-maintenance"}
    finally:
        fleet.api.patch("/v1/hosts/host2", json={"maintenance": False})


def test_a_vm_in_another_migration_and_the_same_id_again(fleet: Fleet, guest: Guest) -> None:
    migration = fleet.started(guest.name, "host2", bandwidth_bytes_s=8 << 20)
    busy = fleet.start(guest.name, "host2")
    assert busy.status_code == 409
    assert migration in busy.text
    again = fleet.api.post("/v1/migrations", json={"vm": guest.name, "destination": "host2", "id": migration})
    assert again.status_code == 200
    assert again.json()["id"] == migration
    fleet.api.post(f"/v1/migrations/{migration}/abort")
    assert fleet.wait(migration)["status"] == "cancelled"


def test_a_thousand_requests_at_once_make_one_migration(fleet: Fleet, guest: Guest) -> None:
    async def crowd() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=CROWD)
        base, access = str(fleet.api.base_url), fleet.lab.api_access
        async with httpx2.AsyncClient(base_url=base, timeout=120, limits=limits, **access) as http:
            bodies = [
                {"vm": guest.name, "destination": "host2", "bandwidth_bytes_s": 8 << 20, "id": str(uuid.uuid4())}
                for _ in range(CROWD)
            ]
            return await asyncio.gather(*(http.post("/v1/migrations", json=body) for body in bodies))

    began = time.monotonic()
    answers = asyncio.run(crowd())
    print(f"{CROWD} requests answered in {time.monotonic() - began:.1f} s")
    assert Counter(a.status_code for a in answers) == {202: 1, 409: CROWD - 1}
    (winner,) = [a.json()["id"] for a in answers if a.status_code == 202]
    assert all(winner in a.json()["reasons"][0]["message"] and a.json()["reasons"][0]["fix"] for a in answers
               if a.status_code == 409)  # fmt: skip
    assert fleet.api.get("/v1/migrations", params={"vm": guest.name}).json()["migrations"][0]["id"] == winner
    fleet.api.post(f"/v1/migrations/{winner}/abort")
    assert fleet.wait(winner)["status"] == "cancelled"
    fleet.wait_closed(winner)


def test_the_destinations_agent_is_down(fleet: Fleet, guest: Guest) -> None:
    fleet.lab.kill_agent("host2", signal.SIGKILL)
    try:
        at_once = fleet.start(guest.name, "host2")  # its beacon may still be fresh: the agents notice by themselves
        assert at_once.status_code == 422, at_once.text
        assert "destination-down" in {r["code"] for r in at_once.json()["reasons"]}
        wait_for_state(fleet, "host2", "down")
        assert refused(fleet, guest.name, "host2", 422) == {"destination-down"}
    finally:
        fleet.lab.start_agent("host2")
        wait_for_state(fleet, "host2", "up")


def wait_for_state(fleet: Fleet, host: str, state: str) -> None:
    deadline = time.monotonic() + 20
    while fleet.api.get(f"/v1/hosts/{host}").json()["state"] != state:
        assert time.monotonic() < deadline, f"{host} never became {state}"
        time.sleep(0.1)
