"""`sterna vm show`."""

from __future__ import annotations

import re

import httpx2
import pytest
from typer.testing import CliRunner

from sterna.cli.client import Client
from sterna.cli.main import app
from tests.unit.cli.reading import document

from .served import Served

VM = {
    "uuid": "aaaaaaaa-0000-4000-8000-000000000001",
    "name": "db[1]",
    "host": "a",
    "state": "running",
    "memory_bytes": 2**30,
    "vcpus": 2,
    "task_state": None,
    "migration_id": None,
    "observed_at": "2026-11-30T10:00:00+00:00",
}
DISK = {"device": "disk", "format": "raw", "capacity_bytes": 2**30, "read_only": False, "detail": ""}
DISK |= {"path": None, "iscsi": None, "rbd": None}
DETAILS = {
    "virt_type": "kvm",
    "arch": "x86_64",
    "machine": "q35",
    "autostart": True,
    "persistent": False,
    "hugepages": True,
    "disks": [
        DISK
        | {"target": "vda", "kind": "iscsi", "iscsi": {"target": "iqn.x", "lun": 3, "portal_host": "10.0.0.9"}},
        DISK | {"target": "vdb", "kind": "rbd", "rbd": {"name": "vms/db"}},
    ],
    "cold": [DISK | {"target": "vdc", "kind": "file", "path": "/srv/[x].raw", "read_only": True}],
    "nics": [
        {"mac": "52:54:00:00:00:01", "plug": "ovs", "bridge": "br-int", "parent": None, "vlan": 12}
        | {"device": "vnet3", "pci": None, "addresses": ["10.1.0.4"]}
    ],
    "immovable": ["hostdev 0000:01:00.0"],
}


def test_a_vm_as_the_api_has_it(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    shown = sterna("vm", "show", "web1")
    assert re.search(r"^host +a *$", shown.stdout, re.M) and re.search(r"^state +running *$", shown.stdout, re.M)
    assert document(sterna("vm", "show", "web1", "--json"))["name"] == "web1"
    assert "none" in sterna("vm", "show", "none", code=5).stderr


def test_disks_and_nics(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx2.Response(200, json=VM | {"details": DETAILS})
    asked: list[str] = []

    def answered(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path.decode())
        return answer

    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(answered))
    monkeypatch.setattr("sterna.cli.vm.client_of", lambda api: Client("http://sterna", http))
    shown = CliRunner().invoke(app, ["vm", "show", "db[1]/x"])
    assert shown.exit_code == 0 and asked == ["/v1/vms/db%5B1%5D%2Fx"]
    lines = shown.stdout
    assert "db[1] (aaaaaaaa" in lines and "in huge pages" in lines and "gone when it is shut off" in lines
    assert re.search(r"^vda +disk +raw +1\.0 GiB +iscsi +iqn\.x LUN 3 at 10\.0\.0\.9 *$", lines, re.M)
    assert re.search(r"^vdb +.* +rbd +vms/db *$", lines, re.M)
    assert re.search(r"^vdc +.* +file, read-only +/srv/\[x\]\.raw *$", lines, re.M)
    assert re.search(r"^52:54:00:00:00:01 +ovs +br-int +12 +vnet3 +10\.1\.0\.4 *$", lines, re.M)
    assert "cannot be migrated: hostdev 0000:01:00.0" in lines


def test_a_vm_whose_host_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = httpx2.Response(200, json=VM | {"details": None, "state": "unknown", "vcpus": None})
    http = httpx2.Client(base_url="http://sterna", transport=httpx2.MockTransport(lambda _: answer))
    monkeypatch.setattr("sterna.cli.vm.client_of", lambda api: Client("http://sterna", http))
    shown = CliRunner().invoke(app, ["vm", "show", "db"])
    assert shown.exit_code == 0 and "as last seen" in shown.stderr and "DISK" not in shown.stdout
