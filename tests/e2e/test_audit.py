"""`sterna audit` on real parts: leftovers planted by hand, found, repaired, and nothing else touched."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.sql.journal import SqlJournal
from sterna.domain.files import Created
from sterna.domain.journal import Kind, Migration, Role
from sterna.lab.guest_view import Guest
from sterna.lab.places import initiator_name
from sterna.ports.records import Envelope
from tests.e2e.conftest import Fleet

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def moved(fleet: Fleet) -> Iterator[tuple[Guest, str]]:
    """A guest on host1 that has been on host2; and the migration back."""
    guest = fleet.lab.create_vm("left", "host1", memory_mib=256, dirty_mib_s=5, disks=("shared", "local", "iscsi"))
    for to in ("host2", "host1"):
        migration = fleet.started(guest.name, to)
        fleet.wait(migration)
        fleet.wait_closed(migration)
    yield guest, migration
    fleet.remove(guest)


@pytest.fixture(scope="module")
def guest(moved: tuple[Guest, str]) -> Guest:
    return moved[0]


def audit(fleet: Fleet, **body: object) -> Any:
    answer = fleet.api.post("/v1/audit", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def kinds(found: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((f["host"], f["kind"]) for f in found["leftovers"])


def test_a_clean_lab_has_none(fleet: Fleet, guest: Guest) -> None:
    found = audit(fleet)
    assert found["clean"] and not found["leftovers"] and not found["silent_hosts"], found


def plant_tap(fleet: Fleet, vm_uuid: str) -> None:
    host = fleet.lab.hosts["host2"]
    host.run(["ip", "tuntap", "add", "tapleft", "mode", "tap"])
    ids = {"made-by": "sterna", "iface-id": "left", "attached-mac": "52:54:00:aa:bb:cc", "vm-uuid": vm_uuid}
    words = [f"external_ids:{key}={value}" for key, value in ids.items()]
    argv = ["ovs-vsctl", "add-port", "br-int", "tapleft", "--", "set", "Interface", "tapleft", *words]
    host.run(argv)


def plant_definition(fleet: Fleet, name: str) -> None:
    xml = fleet.lab.hosts["host1"].virsh("dumpxml", "--inactive", name)
    host = fleet.lab.hosts["host2"]
    (host.root / "state" / "left.xml").write_text(xml)
    host.virsh("define", "/srv/sterna/state/left.xml")
    (host.root / "state" / "left.xml").unlink()


def plant_files(fleet: Fleet, guest: Guest) -> Path:
    """A half that was given up, not undone: P8's intent in the journal, no R7, and the file."""
    root = fleet.lab.hosts["host2"].root
    path = root / "state" / "journal.db"
    folder = f"/srv/sterna/instances/{guest.uuid}"
    made = Created(directories=(folder,), files=(f"{folder}/disk.qcow2",))
    with sqlite3.connect(path) as db:
        (newest,) = db.execute("select newest from epochs where vm_uuid = ?", (guest.uuid,)).fetchone()
    journal = SqlJournal.at(path)
    about: dict[str, Any] = {
        "vm_uuid": guest.uuid,
        "vm_name": guest.name,
        "source": "host1",
        "destination": "host2",
    }
    known = Migration(id="00000000-0000-4000-8000-0000000000aa", epoch=newest + 1, **about)
    journal.accept(known, Role.DESTINATION)
    journal.append(known.id, Kind.INTENT, row="P8", name="create-instance-directory", data=made.model_dump())
    journal.append(known.id, Kind.CLOSED)
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("update epochs set newest = ? where vm_uuid = ?", (newest, guest.uuid))
    planted = root / "instances" / guest.uuid / "disk.qcow2"
    planted.parent.mkdir()
    planted.write_bytes(b"left over")
    return planted


def test_each_kind_is_found_and_exactly_that_is_repaired(
    fleet: Fleet, guest: Guest, moved: tuple[Guest, str]
) -> None:
    clean = fleet.snapshots()
    lab = fleet.lab
    shared = lab.state_dir / "shared"
    token, others = shared / f".sterna-{moved[1]}-source", shared / ".sterna-somebody-elses"
    volume = next(d.id for d in lab.guest_records()[guest.name].disks if d.kind == "iscsi")
    planted = plant_files(fleet, guest)
    token.write_text("x")
    others.write_text("x")
    lab.iscsi.admit(volume, initiator_name("host2"))
    found = audit(fleet)
    assert kinds(found) == [("host2", "admission"), ("host2", "files"), ("host2", "token")], found
    assert not found["clean"] and planted.exists() and token.exists()
    plant_definition(fleet, guest.name)
    plant_tap(fleet, guest.uuid)
    # the definition names the volume and the disk: now they are its own, until it is gone
    assert kinds(audit(fleet)) == [("host2", "definition"), ("host2", "tap"), ("host2", "token")]
    done = audit(fleet, host="host2", repair=True)
    assert kinds(done)[-1] == ("host2", "token") and {"definition", "files", "admission"} <= {
        f["kind"] for f in done["leftovers"]
    }
    assert done["clean"] and {f["done"] for f in done["leftovers"]} == {"done"}, done
    fleet.eventually(lambda: fleet.snapshots() == clean)
    assert not token.exists() and others.exists()
    others.unlink()
    assert audit(fleet)["clean"]
    assert guest.status().clean
    again = fleet.started(guest.name, "host2")
    assert fleet.wait(again)["status"] == "completed"
    fleet.wait_closed(again)


def test_a_cast_that_waits_is_told_and_is_no_leftover(fleet: Fleet, guest: Guest) -> None:
    path = fleet.lab.hosts["host1"].root / "state" / "journal.db"
    journal = SqlJournal.at(path)
    cast = Envelope(id="x/R4", to="host9", sender="host1", method="rollback", migration_id="x", epoch=1)
    journal.outbox_put(cast)
    try:
        found = audit(fleet)
        assert found["clean"] and kinds(found) == [("host1", "cast")]
        assert "until host9 is back" in found["leftovers"][0]["why"]
    finally:
        journal.outbox_done(cast.id)
        journal.close()
