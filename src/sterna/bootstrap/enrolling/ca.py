"""`sterna ca ...`: a CA of one's own, for a fleet that has none."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sterna.bootstrap.enrolling.common import (
    BUS_FOLDER,
    CA_FOLDER,
    OWN_FOLDER,
    Addresses,
    CaFolder,
    OutFile,
    authority_in,
    plain,
    read_file,
    write_out,
)
from sterna.cli import formatting
from sterna.cli.console import safe
from sterna.cli.exits import err
from sterna.cli.formatting import out
from sterna.cli.options import AsJson, print_json
from sterna.domain import amounts
from sterna.domain.trust.identities import Identity, Kind, domains_of, identity
from sterna.kit.clock import SystemClock

if TYPE_CHECKING:
    from sterna.adapters.identity.authority import Authority

ca_app = typer.Typer(no_args_is_help=True, help="Run your own certificate authority (CA).")


class Issuable(StrEnum):
    """What `sterna ca issue` makes certificates for. Hosts join with tokens."""

    CONTROLLER = "controller"
    BUS = "bus"


DEFAULT_FOLDER = {Issuable.CONTROLLER: OWN_FOLDER, Issuable.BUS: BUS_FOLDER}

KindArg = Annotated[Issuable, typer.Argument(metavar="KIND", help="controller, or bus (a server of the bus).")]
NameArg = Annotated[
    str, typer.Argument(metavar="NAME", help="A name of your choice, written like a host name: c1, n1.")
]
Enrolled = Annotated[str, typer.Argument(metavar="NAME", help="Its name, as in `sterna ca show`.")]
IssueFolder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help=f"Folder of key and certificate. Default: {OWN_FOLDER} for a controller, {BUS_FOLDER} for bus.",
    ),
]


@ca_app.command()
def init(
    ca: CaFolder = CA_FOLDER,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            "--domain",
            metavar="DOMAIN",
            help="Domain of migration addresses that are names; may be repeated. IP addresses do not need it.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a CA: a key that stays in its folder, and a certificate that is valid for ten years.

    It cannot sign another CA. It signs only Sterna's own DNS names and those below --domain.
    """
    with plain():
        from sterna.adapters.identity.authority import Authority

        made = Authority.make(ca.absolute(), domains_of(domain or []))
        if as_json:
            print_json({"folder": str(ca.absolute()), "fingerprint": made.fingerprint})
            return
        out.print(f"created a CA in {ca.absolute()}", markup=False)
        out.print(f"fingerprint: {made.fingerprint}", markup=False)
        err.print("keep a backup of the folder: without its key every host has to join again")


@ca_app.command()
def sign(
    request: Annotated[
        Path, typer.Argument(metavar="FILE", help="Output of `sterna agent request`; - reads standard input.")
    ],
    ca: CaFolder = CA_FOLDER,
    out_file: OutFile = None,
) -> None:
    """Sign the request of a host that cannot reach the controller. Add the host with `sterna host add` first.

    Use the output on the host: `sterna agent join - --certificate FILE`.
    """
    with plain():
        authority = authority_in(ca)
        made = authority.sign(read_file(request), str(request))
        write_out(out_file, made.pem + authority.pem)
        err.print(f"signed for {made.who.name}: certificate {made.certificate.serial_number:x}")
        err.print(
            "nats-server accepts it once its configuration is updated: by `[bus_server]`, or `sterna bus config`"
        )


@ca_app.command()
def issue(
    kind: KindArg,
    name: NameArg,
    address: Addresses = None,
    folder: IssueFolder = None,
    if_due: Annotated[
        bool,
        typer.Option(
            "--if-due",
            help="Do nothing until two thirds of the certificate's validity have passed. For use in a timer.",
        ),
    ] = False,
    ca: CaFolder = CA_FOLDER,
) -> None:
    """Create a key and a certificate for a controller or a server of the bus, on the CA's machine.

    The files belong to the folder's owner. For a server that runs as another user, create its folder first:
    install -d -m 0700 -o nats -g nats /etc/nats/identity
    """
    with plain():
        who = identity(Kind(kind.value), name)
        authority = authority_in(ca)
        place = (folder or DEFAULT_FOLDER[kind]).absolute()
        if if_due and not _is_due(place, who):
            err.print(f"the certificate of {name} is not due yet")
            return
        _issue(authority, who, address, place)
        err.print(f"key, certificate and CA are in {place / 'current'}: own.key, own.crt, ca.crt")
        if who.kind is Kind.BUS:
            err.print("reload nats-server so that it reads them: nats-server --signal reload")


def _is_due(folder: Path, who: Identity) -> bool:
    """Also where there is none, or one of another name."""
    from sterna.adapters.identity.own import OwnFiles
    from sterna.domain.errors import NotFound
    from sterna.domain.trust.certificates import is_due

    own = OwnFiles(folder, who.kind)
    own.check_kind()
    try:
        return own.name() != who.name or is_due(*own.validity(), SystemClock().now())
    except NotFound:
        return True


def _issue(authority: Authority, who: Identity, addresses: list[str] | None, folder: Path) -> None:
    from sterna.adapters.identity.own import OwnFiles
    from sterna.domain.trust.joining import JoinAnswer

    own = OwnFiles(folder, who.kind)
    made = authority.issue(who, addresses, own.request(who.name).encode())
    answer = JoinAnswer(certificate=made.pem.decode(), ca=authority.pem.decode())
    own.accept(answer, who.name, authority.fingerprint, SystemClock().now())


@ca_app.command()
def remove(kind: KindArg, name: Enrolled, ca: CaFolder = CA_FOLDER) -> None:
    """Revoke the certificates of a controller or a server of the bus."""
    with plain():
        authority_in(ca).remove(identity(Kind(kind.value), name))
        print_revoked(name, ca)


@ca_app.command()
def show(ca: CaFolder = CA_FOLDER, as_json: AsJson = False) -> None:
    """List all enrolled hosts, controllers and bus servers, and the expiry dates of their certificates."""
    with plain():
        authority = authority_in(ca)
        members = authority.register().members
        if as_json:
            listed = [m.model_dump(mode="json", exclude={"invitation"}) for m in members]
            print_json({"fingerprint": authority.fingerprint, "members": listed})
            return
        table = formatting.table("KIND", "~NAME", "STATE", "VALID UNTIL", "~ADDRESSES")
        for member in members:
            until = max((c.not_after for c in member.certificates if c.revoked is None), default=None)
            state = "removed" if member.removed else "joined" if member.joined else "invited"
            table.add_row(
                member.kind.value,
                safe(member.name),
                state,
                f"{until:%Y-%m-%d}" if until else amounts.UNKNOWN,
                safe(", ".join(member.addresses) or amounts.UNKNOWN),
            )
        out.print(f"fingerprint: {authority.fingerprint}", markup=False)
        formatting.show(table)


def print_revoked(name: str, ca: Path) -> None:
    """What an operator does next."""
    from sterna.adapters.identity.authority import REVOKED

    err.print(f"{name} is removed; its certificates are revoked in {ca / REVOKED}")
    err.print("a running controller with `ca_folder` sends that list to every agent, within seconds")
    err.print(
        "without `[bus_server]` in its settings, remove it from the bus now: run `sterna bus config` again, then "
        "nats-server --signal reload",
        soft_wrap=True,
    )
