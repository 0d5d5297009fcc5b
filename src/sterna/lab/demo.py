"""`make demo`: a running VM moves between two hosts, while it is pinged and while it writes. It has no other
caller.

Uses the lab and the `sterna` command exactly as a person would; decides nothing about migrations itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest, GuestStatus, Ping
from sterna.lab.lab import Lab

STATE = Path(".lab-demo")
OUT = Path("out")
DIRTY_MIB_S = 20
MEMORY_MIB = 384
console = Console(soft_wrap=True, emoji=False)


def sterna(lab: Lab, *arguments: str, live: bool = False) -> str:
    """Run the `sterna` command against the lab's controller; its standard output ('' if shown live).

    Raises LabError with what it printed when it fails.
    """
    command = [sys.executable, "-m", "sterna", *arguments]
    api = {"STERNA_API": lab.controller_url or "", "STERNA_TOKEN": lab.controller_token}
    environment = os.environ | api | {"STERNA_CA_FILE": lab.controller_ca}
    done = subprocess.run(
        command, env=environment, text=True, check=False, stdout=None if live else subprocess.PIPE
    )
    if done.returncode != 0:
        raise LabError(f"sterna {' '.join(arguments)} ended with exit code {done.returncode}")
    return done.stdout or ""


def main() -> int:
    """The demo; its exit code is 0 only if everything it shows held."""
    try:
        return run()
    except LabError as error:
        console.print(f"[red]demo failed:[/] {error}")
        return 1


def run() -> int:
    """Build, boot, migrate, report, take down."""
    console.rule("Sterna: a running VM moves between two hosts")
    console.print("Building two hosts on this machine (namespaces; nothing of the machine's own is touched) ...")
    lab = Lab.up(STATE, owner=True)
    try:
        console.print(f"Up: {', '.join(lab.hosts)}; guests run under {lab.accelerator.upper()}.")
        console.print(f"Until it ends, a browser on this machine sees it at {lab.controller_url}/")
        console.print(f"  sign in with the token {lab.controller_token}", markup=False, highlight=False)
        sterna(lab, "hosts", live=True)
        empty = lab.snapshot("host1")
        console.print(f"Booting a Linux guest on host1: {MEMORY_MIB} MiB, writing {DIRTY_MIB_S} MiB/s of memory, ")
        console.print("and three disks: one on shared storage, one local to the host, one iSCSI volume ...")
        guest = lab.create_vm(
            "tern", "host1", memory_mib=MEMORY_MIB, dirty_mib_s=DIRTY_MIB_S, disks=("shared", "local", "iscsi")
        )
        sterna(lab, "vms", live=True)
        before = guest.status()
        console.rule("sterna migrate tern --to host2 --watch")
        with lab.ping(guest) as ping:
            sterna(lab, "migrate", "tern", "--to", "host2", "--watch", live=True)
        after = guest.status()
        return report(lab, guest, ping, before, after, leftovers(lab, empty))
    finally:
        console.print("Taking the lab down ...")
        lab.down()


def report(lab: Lab, guest: Guest, ping: Ping, before: GuestStatus, after: GuestStatus, left: list[str]) -> int:
    """Print what was seen from outside and from inside the guest; 0 if all of it is as it should be."""
    migration = json.loads(sterna(lab, "migrations", "--json"))["migrations"][0]["id"]
    OUT.mkdir(exist_ok=True)
    diagram = OUT / "demo.svg"
    sterna(lab, "show", migration, "--diagram", str(diagram))
    console.rule("Every step of both agents")
    sterna(lab, "show", migration, "--timeline", live=True)
    checks = {
        "runs on host2, and only there": lab.hosts_running(guest.name) == ["host2"],
        "the same boot, no reboot": before.boot_id == after.boot_id,
        "memory and disk checks of the guest are clean": after.clean,
        "it went on writing memory": after.pages_verified > before.pages_verified,
        "it went on writing its disks": after.blocks_verified > before.blocks_verified,
        "no ping gap over 1 s": ping.longest_gap_ms < 1000,
        "nothing of it is left on host1": not left,
    }
    table = Table(title="Seen from outside, and by the guest itself", show_header=False)
    table.add_row("pings sent, lost (5 ms apart)", f"{ping.sent}, {ping.lost}")
    table.add_row("network blackout (longest gap)", f"{ping.longest_gap_ms:.0f} ms")
    table.add_row("pages verified by the guest", f"{after.pages_verified:,} ({after.page_errors} wrong)")
    table.add_row(
        "disk blocks verified", f"{after.blocks_verified:,} ({after.block_errors + after.io_errors} wrong)"
    )
    for name, held in checks.items():
        table.add_row(name, "[green]yes[/]" if held else "[red]NO[/]")
    console.print(table)
    for thing in left:
        console.print(f"[red]left on host1:[/] {thing}")
    console.print(f"The run as a sequence diagram: {diagram}")
    return 0 if all(checks.values()) else 1


def leftovers(lab: Lab, empty: dict[str, object]) -> list[str]:
    """What is on the host the guest left that was not there before it came, asked of that host itself."""
    now = lab.snapshot("host1")
    return [
        f"{kind}: {json.dumps(now[kind])}, was {json.dumps(empty[kind])}"
        for kind in now
        if now[kind] != empty[kind]
    ]


if __name__ == "__main__":
    sys.exit(main())
