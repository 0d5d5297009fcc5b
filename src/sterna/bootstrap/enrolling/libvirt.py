"""What `sterna agent join --libvirt` does besides: the files with which libvirt and QEMU encrypt."""

from __future__ import annotations

import grp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sterna.cli.exits import err
from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.trust import pki
from sterna.domain.trust.pki import ALLOWED, ASIDE

if TYPE_CHECKING:
    from sterna.adapters.identity.pki_files import PkiFiles

PKI = Path(pki.PKI)
USUAL_GROUPS = ("libvirt-qemu", "qemu")
"""Debian's and Fedora's, of the user that QEMU runs as."""
DAEMONS = (Path("/etc/libvirt/libvirtd.conf"), Path("/etc/libvirt/virtproxyd.conf"))
ALLOW_LIST = "tls_allowed_dn_list"
SETTING = f'{ALLOW_LIST} = ["{ALLOWED}"]'

Libvirt = Annotated[
    bool,
    typer.Option("--libvirt", help="Also write the TLS files of libvirt and QEMU, now and after each renewal."),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help=f"Replace files that Sterna did not write; they are kept as *{ASIDE}."),
]
QemuGroup = Annotated[
    str | None,
    typer.Option(
        "--qemu-group",
        metavar="GROUP",
        help="Group that may read QEMU's keys. Default: the group in qemu.conf, otherwise libvirt-qemu or qemu.",
    ),
]


def look(files: PkiFiles, *, overwrite: bool) -> None:
    """Before the token is used. Raises Conflict for files of somebody else's that are not to be replaced."""
    foreign = files.foreign(PKI)
    if foreign and not overwrite:
        raise Conflict(
            f"not written by Sterna: {', '.join(map(str, foreign))}; the token was not used",
            fix=f"find out where they come from; --overwrite replaces them, and keeps them as *{ASIDE}",
        )


def write(files: PkiFiles, group: str | None) -> None:
    """Write them, and say what else is to be done."""
    from sterna.adapters.libvirt.qemu.certificates import of_migration

    number = group_id(group)
    for path in files.write(PKI, number, replace=True):
        err.print(f"replaced {path}; the earlier file is {path.name}{ASIDE}", style="yellow")
    err.print(f"libvirt and QEMU find their certificates in {PKI}; the agent renews them there")
    if number is None:
        err.print("only root can read QEMU's keys: give QEMU's group with --qemu-group", style="yellow")
    folder = of_migration().folder
    if folder != PKI / "qemu":
        err.print(f"QEMU reads its certificates from {folder}: see qemu.conf", style="yellow")
    for daemon in open_to_all():
        err.print(f"{daemon} accepts every certificate of the CA, controllers' too: set {SETTING}", style="yellow")
        err.print("then restart it while no migration of a guest on this host is running; guests keep running")
    err.print("reload libvirtd's certificates: virt-admin server-update-tls libvirtd, or restart it")


def open_to_all() -> list[Path]:
    """The settings of daemons that listen for TLS, where these do not say that hosts alone may connect."""
    from sterna.adapters.libvirt.qemu.conf import list_of

    there = [file for file in DAEMONS if file.exists()]
    return [file for file in there if list_of(file.read_text(errors="replace"), ALLOW_LIST) is None]


def group_id(name: str | None) -> int | None:
    """The group of QEMU's user. Raises BadRequest for a name that is none; None where nobody has named one, and no
    usual one is there."""
    from sterna.adapters.libvirt.qemu.conf import settings_of

    named = name or settings_of().get("group", "")
    for one in (named,) if named else USUAL_GROUPS:
        try:
            return int(one.lstrip("+")) if one.lstrip("+").isdecimal() else grp.getgrnam(one).gr_gid
        except KeyError:
            continue
    if named:
        raise BadRequest(f"there is no group {named!r}", fix="give the group of QEMU's user with --qemu-group")
    return None
