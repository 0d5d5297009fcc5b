"""`sterna lab`: make a lab, look at it, put guests in it, run commands on its hosts, take it down."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sterna.lab.ending import take_down
from sterna.lab.errors import LabError
from sterna.lab.lab import Lab

app = typer.Typer(no_args_is_help=True, help="A lab on this machine: hosts made of namespaces, for trials.")
vm_app = typer.Typer(no_args_is_help=True, help="The lab's guests, which check their own memory and disks.")
app.add_typer(vm_app, name="vm")

StateDir = Annotated[Path, typer.Option("--state-dir", envvar="STERNA_LAB_DIR", help="Folder of the lab's files.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
GuestName = Annotated[str, typer.Argument(help="Name of the guest.")]
DEFAULT_STATE = Path(".lab")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Shows a LabError as one line on stderr and exits with 1."""
    try:
        yield
    except LabError as failure:
        typer.echo(f"sterna lab: {failure}", err=True)
        raise typer.Exit(1) from None


@app.command()
def up(
    hosts: Annotated[int, typer.Option(help="Number of hosts.")] = 2,
    agents: Annotated[bool, typer.Option(help="Start the controller, and an agent on each host.")] = True,
    insecure: Annotated[
        bool, typer.Option(help="Encrypt neither libvirt's connections nor the migrations.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Start a lab that stays until `down`. Does nothing if it is already up."""
    with _plain_errors():
        begin = time.monotonic()
        was_up = _is_up(state_dir)
        lab = Lab.up(state_dir, hosts=hosts, agents=agents, insecure=insecure)
        if was_up:
            typer.echo(f"A lab is up already in {lab.state_dir}: {', '.join(lab.hosts)}.")
            return
        took = time.monotonic() - begin
        typer.echo(f"Up in {took:.1f} s: {', '.join(lab.hosts)} (guests run under {lab.accelerator}).")
        if lab.controller_url:
            typer.echo(f"Controller: {lab.controller_url}")


@app.command()
def status(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show the hosts, their agents and their guests."""
    with _plain_errors():
        lab = Lab.attach(state_dir)
        rows = [
            {
                "host": host.name,
                "address": host.address,
                "pid1": host.inside.init.pid,
                "agent_pid": host.agent_pid(),
                "guests": host.virsh("list", "--name").split(),
            }
            for host in lab.hosts.values()
        ]
        facts = {
            "state_dir": str(lab.state_dir),
            "accelerator": lab.accelerator,
            "controller_url": lab.controller_url,
            "controller_pid": lab.controller_pid(),
            "hosts": rows,
        }
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
            return
        typer.echo(f"Lab in {lab.state_dir}, guests under {lab.accelerator}")
        running = "running" if facts["controller_pid"] else "not running"
        typer.echo(f"Controller: {running} {lab.controller_url or ''}".rstrip())
        _table(rows)


@app.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(
    host: Annotated[str, typer.Argument(help="A host of the lab, or `lab` for its outer namespaces.")],
    command: Annotated[list[str], typer.Argument(help="Command to run, after `--`.")],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Run a command on a host, in this terminal. Exits with the command's exit code."""
    with _plain_errors():
        lab = Lab.attach(state_dir)
        inside = lab.outer if host == "lab" else lab.host(host).inside
        argv = inside.interactive_command(command[1:] if command[0] == "--" else command)
    raise typer.Exit(subprocess.run(argv, check=False).returncode)


@app.command()
def down(state_dir: StateDir = DEFAULT_STATE) -> None:
    """Take the lab down, even if it is incomplete or damaged. Logs stay until the next `up`."""
    with _plain_errors():
        typer.echo("The lab is down." if take_down(state_dir) else f"No lab is up in {state_dir.absolute()}.")


@vm_app.command("create")
def vm_create(  # noqa: PLR0913, PLR0917 - each is an option of the command
    name: GuestName,
    host: Annotated[str, typer.Option(help="Host to start it on.")] = "host1",
    memory: Annotated[int, typer.Option(help="Memory in MiB.")] = 256,
    dirty: Annotated[int, typer.Option(help="Memory that the guest writes, in MiB/s.")] = 20,
    disk: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind of disk: shared (the default), local, iscsi, overlay, luks, chap, or volume:ID; may be "
            "repeated."
        ),
    ] = None,
    autostart: Annotated[bool, typer.Option(help="Start it whenever its host starts.")] = False,
    nic: Annotated[
        list[str] | None,
        typer.Option(help="Additional NIC: ovs-hybrid, bridge, macvtap, macvtap-passthrough; may be repeated."),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Boot a guest, and wait until it responds."""
    with _plain_errors():
        lab = Lab.attach(state_dir)
        disks, nics = tuple(disk or ("shared",)), tuple(nic or ())
        guest = lab.create_vm(name, host, memory, dirty, disks, autostart=autostart, nics=nics)
        typer.echo(f"{guest.name} {guest.uuid} runs on {host} with address {guest.address}.")


@vm_app.command("list")
def vm_list(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List the guests, their hosts, and the results of their own checks."""
    with _plain_errors():
        lab = Lab.attach(state_dir)
        rows: list[dict[str, object]] = []
        for name, record in lab.guest_records().items():
            row: dict[str, object] = {"name": name, "uuid": record.uuid, "hosts": lab.hosts_running(name)}
            row |= {"address": record.address, "disks": [disk.kind for disk in record.disks]}
            rows.append(row | {"checks": _checks(lab, name)})
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            _table(rows)


@vm_app.command("status")
def vm_status(name: GuestName, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Print the guest's own report as JSON."""
    with _plain_errors():
        typer.echo(Lab.attach(state_dir).guest(name).status().model_dump_json(indent=2))


@vm_app.command("remove")
def vm_remove(name: GuestName, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Destroy a guest and its disks, on whichever host it runs."""
    with _plain_errors():
        Lab.attach(state_dir).remove_vm(name)


def _checks(lab: Lab, name: str) -> str:
    try:
        report = lab.guest(name).status(timeout=1.0)
    except LabError:
        return "no answer"
    return "clean" if report.clean else report.last_error


def _is_up(state_dir: Path) -> bool:
    try:
        Lab.attach(state_dir)
    except LabError:
        return False
    return True


def _table(rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        typer.echo("none")
        return
    table = Table(*rows[0])
    for row in rows:
        shown = (", ".join(value) if isinstance(value, list) else value for value in row.values())
        table.add_row(*("-" if value is None else str(value) for value in shown))
    Console(file=sys.stdout, emoji=False).print(table)


if __name__ == "__main__":
    app()
