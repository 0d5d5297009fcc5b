"""Options of `sterna setup`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Enrol(StrEnum):
    """Where the certificate of the process comes from."""

    STERNA = "sterna"
    EXTERNAL = "external"
    NONE = "none"


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: take defaults, and do what is shown.")]
EnrolOption = Annotated[
    Enrol | None,
    typer.Option(
        "--enrol",
        help="Where the certificate comes from: sterna (Sterna's CA; the default of new settings), external (files "
        "of your CA), none (the bus does not authenticate senders).",
    ),
]
Bus = Annotated[
    str | None, typer.Option("--bus", metavar="URL", help="Address of the message bus, as nats://10.0.0.1:4222.")
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder", metavar="FOLDER", help="Folder of key and certificate. Default: /etc/sterna/identity."
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="With --enrol external: the certificates of your CA."),
]
CertFile = Annotated[
    Path | None, typer.Option("--cert-file", metavar="FILE", help="The same: the certificate of this machine.")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="The same: its key, mode 0600.")]
Start = Annotated[bool, typer.Option("--start/--no-start", help="Enable and start the systemd unit.")]
Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The settings.")]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Check this host afterwards, as `sterna agent doctor` does.")
]

# of an agent

Host = Annotated[
    str | None,
    typer.Option("--host", metavar="NAME", help="Name of this host in Sterna. Default: its own, without domain."),
]
HostAddress = Annotated[
    list[str] | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Address at which the other hosts reach this one; repeated: addresses on further networks.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="The controller at which the host joins, as https://10.0.0.1:8774."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="What `sterna host add` printed; - is standard input. Without it, it is asked for.",
    ),
]
InstancesDir = Annotated[
    Path | None, typer.Option("--instances-dir", metavar="FOLDER", help="Folder of local disks.")
]
Ovsdb = Annotated[
    str | None,
    typer.Option(
        "--ovsdb",
        metavar="REMOTE",
        help="Open vSwitch's database; '' for none. Default: none where it does not run now.",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Migrate unencrypted: on a network that nobody else can reach.")
]
LibvirtFiles = Annotated[
    bool, typer.Option("--libvirt/--no-libvirt", help="Give the certificate to libvirt and QEMU as well.")
]

# of a controller

Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of this controller in the CA. Default: the machine's."),
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen", metavar="ADDRESS", help="Address and port of the API, for hosts and users, as 10.0.0.1:8774."
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="Database of the records; - reads it from standard input: no list of processes shows its password "
        "then. Default: a SQLite file.",
    ),
]
BusHere = Annotated[
    bool | None,
    typer.Option(
        "--bus-here/--no-bus-here",
        help="Configure nats-server on this machine. Default: where it is installed and the CA is here.",
    ),
]
BusName = Annotated[str, typer.Option("--bus-name", metavar="NAME", help="Name of the bus server in the CA.")]
BusConfig = Annotated[
    Path | None,
    typer.Option(
        "--bus-config",
        metavar="FILE",
        help="Configuration of nats-server to be written. Default: /etc/sterna/bus/nats-server.conf.",
    ),
]
BusFolder = Annotated[
    Path, typer.Option("--bus-folder", metavar="FOLDER", help="Folder of nats-server's key and certificate.")
]
Domain = Annotated[
    list[str] | None,
    typer.Option("--domain", metavar="DOMAIN", help="Of a new CA: see `sterna ca init`; may be repeated."),
]
CaServer = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="The controller that has the CA, where it is not on this machine."
    ),
]
ApiCert = Annotated[
    Path | None,
    typer.Option("--api-cert", metavar="FILE", help="Another certificate for the API's clients, with its chain."),
]
ApiKey = Annotated[Path | None, typer.Option("--api-key", metavar="FILE", help="Its key.")]
ApiName = Annotated[
    list[str] | None,
    typer.Option(
        "--api-name", metavar="NAME", help="Host name under which clients reach the API; may be repeated."
    ),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token", metavar="NAME", help="Create a token of the role admin with this name, and print it."
    ),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option("--admin-token-file", metavar="FILE", help="Write that token to this file (0600) instead."),
]
