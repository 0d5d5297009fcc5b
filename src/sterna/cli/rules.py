"""`sterna rules ...`: placement rules for VMs, and rules about hosts that must not be down together."""

from __future__ import annotations

from typing import Annotated

import typer

from sterna.cli import completion, formatting
from sterna.cli.client import Json, path_of
from sterna.cli.console import safe
from sterna.cli.exits import err, plain_errors, print_more
from sterna.cli.formatting import out
from sterna.cli.options import Api, AsJson, PageCursor, PageLimit, client_of, print_json, words_of
from sterna.domain.fleet.rules import RuleKind
from sterna.domain.fleet.snapshot import Scope

rules_app = typer.Typer(no_args_is_help=True, help="List, write and remove placement rules.")
NameArg = Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.")]
Vms = Annotated[
    list[str] | None,
    typer.Option(
        "--vm",
        metavar="VM",
        help="Name or UUID of a VM: several with commas, or repeated.",
        autocompletion=completion.vms,
    ),
]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        metavar="HOST",
        help="Name of a host; several in the same way.",
        autocompletion=completion.hosts,
    ),
]


@rules_app.command("list")
def list_rules(
    kind: Annotated[list[RuleKind] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    vm: Annotated[
        str | None,
        typer.Option(metavar="VM", help="Only rules for this VM (name or UUID).", autocompletion=completion.vms),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Only rules that name this host.", autocompletion=completion.hosts),
    ] = None,
    limit: PageLimit = None,
    cursor: PageCursor = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List the placement rules, and the problems of each one now, such as violations."""
    kinds = [one.value for one in kind] if kind else None
    with plain_errors():
        answer = client_of(api).pages("/v1/rules", "rules", limit, cursor, kind=kinds, vm=vm, host=host)
        print_json(answer) if as_json else _show(answer["rules"])
        print_more(answer, as_json)


@rules_app.command()
def show(name: NameArg, api: Api = None, as_json: AsJson = False) -> None:
    """Show a placement rule, and its problems now, such as violations."""
    with plain_errors():
        answer = client_of(api).get(path_of("rules", name))
        print_json(answer) if as_json else _show([answer])


@rules_app.command()
def add(  # noqa: PLR0913 - one option per setting
    kind: Annotated[RuleKind, typer.Argument(metavar="KIND", help=f"One of {', '.join(RuleKind)}.")],
    name: NameArg,
    *,
    vm: Vms = None,
    host: Hosts = None,
    scope: Annotated[
        Scope | None,
        typer.Option(help="For `apart`: no two VMs on the same `host` (default) or in the same `failure-domain`."),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="For `priority`: VMs with higher numbers are moved first.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, shown with the rule.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace the rule with this name.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Add a placement rule. It applies to migrations and operations from now on, and moves no VM by itself.

    apart, together, never-move and priority take VMs. only-on and never-on take VMs and hosts. not-down-together
    and failure-domain take hosts. The VMs and hosts need not exist yet.
    """
    body: Json = {"kind": kind.value, "vms": words_of(vm) or [], "hosts": words_of(host) or []}
    body |= {"scope": scope.value if scope else None, "priority": priority, "reason": reason}
    with plain_errors():
        client = client_of(api)
        if replace:
            answer = client.put(path_of("rules", name), body)
        else:
            answer = client.post("/v1/rules", {"name": name} | body)
        if as_json:
            print_json(answer)
            return
        out.print(f"{answer['name']}: saved ({answer['kind']})", markup=False)
        for problem in answer["problems"]:
            err.print(f"{answer['name']}: {problem}", style="yellow")


@rules_app.command()
def remove(name: NameArg, api: Api = None, as_json: AsJson = False) -> None:
    """Remove a placement rule. It no longer applies."""
    with plain_errors():
        removed = client_of(api).delete(path_of("rules", name))
        print_json(removed) if as_json else out.print(
            f"removed {removed['name']} ({removed['kind']})", markup=False
        )


def _show(rules: list[Json]) -> None:
    """Print the table, and below it the problems."""
    made = formatting.table("~NAME", "KIND", "~VMS", "~HOSTS", "SCOPE", ">PRIORITY", "~BY", "~REASON")
    for rule in rules:
        made.add_row(
            safe(rule["name"]),
            safe(rule["kind"]),
            safe(", ".join(rule["vms"])),
            safe(", ".join(rule["hosts"])),
            rule["scope"] or "",
            "" if rule["priority"] is None else str(rule["priority"]),
            safe(rule["changed_by"]),
            safe(rule["reason"]),
        )
    formatting.show(made)
    for rule in rules:
        for problem in rule["problems"]:
            out.print(f"{rule['name']}: {problem}", markup=False)
