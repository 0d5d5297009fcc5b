"""Options and arguments that several commands share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sterna.cli import completion
from sterna.cli.api_address import find_apis
from sterna.cli.client import Client
from sterna.cli.quantities import duration_ms, rate_bytes_s
from sterna.domain.plain_text import json_safe

Api = Annotated[
    list[str] | None,
    typer.Option(
        "--api",
        metavar="URL",
        help="URL of the controller, or unix:PATH. Several, with commas or repeated: the next one is used if one "
        "cannot be reached. Default: the first of STERNA_API, a lab in this folder, `api` in "
        "~/.config/sterna/cli.toml, and unix:/run/sterna/api.sock.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON, and nothing else on stdout.")]
MigrationArg = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="ID of a migration, or its first characters.", autocompletion=completion.migrations
    ),
]
OperationArg = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="ID of an operation, or its first characters.", autocompletion=completion.operations
    ),
]
VmArg = Annotated[str, typer.Argument(metavar="VM", help="Name or UUID.", autocompletion=completion.vms)]
OnHost = Annotated[
    str | None,
    typer.Option("--host", metavar="HOST", help="Only on this host.", autocompletion=completion.hosts),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="HOST",
        help="Destination. Without it, Sterna chooses.",
        autocompletion=completion.hosts,
    ),
]
PageLimit = Annotated[int | None, typer.Option("--limit", min=1, max=500, help="Maximum number. Default: all.")]
PageCursor = Annotated[str | None, typer.Option("--cursor", help="`next_cursor` of the previous page.")]
HostArg = Annotated[str, typer.Argument(metavar="NAME", help="Name of the host.", autocompletion=completion.hosts)]

Bandwidth = Annotated[
    int | None,
    typer.Option(
        "--bandwidth",
        parser=rate_bytes_s,
        metavar="RATE",
        help="Bandwidth limit for the copy, e.g. 200MiB/s (a plain number is MiB/s).",
    ),
]
MaxDowntime = Annotated[
    float | None,
    typer.Option(
        "--max-downtime",
        parser=duration_ms,
        metavar="TIME",
        help="Maximum time the guest may be paused at the switch-over, e.g. 300ms.",
    ),
]
FinishWithin = Annotated[
    float | None,
    typer.Option(
        "--finish-within",
        parser=duration_ms,
        metavar="TIME",
        help="Abort the migration if the copy has not finished within this time, e.g. 10m.",
    ),
]
MayDo = Annotated[
    list[str] | None,
    typer.Option(
        "--may",
        metavar="WHAT",
        help="Allowed if the copy does not converge: any of throttle,postcopy,pause. May be repeated.",
    ),
]
Accepted = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="RISK",
        help="Accept a risk: cpu (the guest sees the host's CPU, and the destination's CPU is different).",
    ),
]
IgnoreRules = Annotated[
    bool,
    typer.Option("--ignore-rules", help="Migrate although a placement rule forbids it. All other checks apply."),
]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", metavar="NAME", help="Policy for everything not set here: gentle, default or urgent."),
]


TransportName = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="NAME",
        help="Transport for memory: tcp, tls or ssh. Default: as configured on the hosts.",
    ),
]


def client_of(api: list[str] | None) -> Client:
    """A client for the controller. Raises ApiAway if an address is not valid, BadRequest if the token is not."""
    return Client.of(*find_apis(api))


def print_json(document: Any) -> None:
    """Print a document on stdout as JSON."""
    typer.echo(json_safe(json.dumps(document, indent=2, ensure_ascii=False)))


def words_of(values: list[str] | None) -> list[str] | None:
    """The sorted set of values that were given repeatedly or with commas; None if the option was not given."""
    return (
        None if values is None else sorted({w.strip() for words in values for w in words.split(",") if w.strip()})
    )
