"""`sterna vm show`: one VM, with its disks and NICs."""

from __future__ import annotations

import typer
from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json, path_of
from sterna.cli.console import safe
from sterna.cli.exits import err, plain_errors
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, VmArg, client_of, print_json
from sterna.domain.amounts import UNKNOWN, size

vm_app = typer.Typer(no_args_is_help=True, help="Show a VM.")


@vm_app.callback()
def _group() -> None:
    """A group, although it has one command."""


@vm_app.command()
def show(vm: VmArg, api: Api = None, as_json: AsJson = False) -> None:
    """Show a VM: its host, disks and NICs, and its migration.

    If its host does not answer, the VM is shown as last seen, without disks and NICs.
    """
    with plain_errors():
        answer = client_of(api).get(path_of("vms", vm))
        print_json(answer) if as_json else _show(answer)


def _show(vm: Json) -> None:
    details: Json = vm["details"] or {}
    formatting.show(_facts(vm, details))
    if not details:
        err.print(f"{vm['host']} cannot be asked now: as last seen, without disks and NICs", style="yellow")
        return
    if disks := [*details["disks"], *details["cold"]]:
        formatting.show(_disks(disks))
    if nics := details["nics"]:
        formatting.show(_nics(nics))
    for device in details["immovable"]:
        out.print(f"cannot be migrated: {device}", markup=False)


def _facts(vm: Json, details: Json) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in (
        ("VM", f"{vm['name']} ({vm['uuid']})"),
        ("host", vm["host"]),
        ("vCPUs", UNKNOWN if vm["vcpus"] is None else str(vm["vcpus"])),
        ("memory", size(vm["memory_bytes"]) + (", in huge pages" if details.get("hugepages") else "")),
        ("machine", " ".join(details[key] for key in ("virt_type", "arch", "machine") if details.get(key))),
        ("starts with its host", "" if not details else "yes" if details["autostart"] else "no"),
        ("defined", "" if not details or details["persistent"] else "no: it is gone when it is shut off"),
        ("migration", vm["migration_id"] or ""),
        ("reported", (vm["observed_at"] or "")[:19]),
    ):
        if value:
            made.add_row(name, safe(value))
    made.add_row("state", formatting.coloured(vm["state"]))
    return made


def _disks(disks: list[Json]) -> Table:
    made = formatting.table("DISK", "DEVICE", "FORMAT", ">SIZE", "STORAGE", "~WHERE")
    for disk in disks:
        storage = disk["kind"] + (", read-only" if disk["read_only"] else "")
        made.add_row(
            safe(disk["target"]),
            safe(disk["device"]),
            safe(disk["format"]),
            size(disk["capacity_bytes"]),
            safe(storage),
            safe(_where(disk)),
        )
    return made


def _where(disk: Json) -> str:
    """The file, the LUN or the image."""
    if iscsi := disk["iscsi"]:
        return f"{iscsi['target']} LUN {iscsi['lun']} at {iscsi['portal_host']}"
    if rbd := disk["rbd"]:
        return str(rbd["name"])
    return str(disk["path"] or disk["detail"] or UNKNOWN)


def _nics(nics: list[Json]) -> Table:
    made = formatting.table("NIC", "PLUG", "BRIDGE", ">VLAN", "DEVICE", "~ADDRESSES")
    for nic in nics:
        made.add_row(
            safe(nic["mac"]),
            safe(nic["plug"]),
            safe(nic["bridge"] or nic["parent"] or UNKNOWN),
            UNKNOWN if nic["vlan"] is None else str(nic["vlan"]),
            safe(nic["device"] or nic["pci"] or UNKNOWN),
            safe(", ".join(nic["addresses"])),
        )
    return made
