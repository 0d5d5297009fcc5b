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


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: use defaults, and do not wait for confirmation.")]
EnrolOption = Annotated[
    Enrol | None,
    typer.Option(
        "--enrol",
        help="Source of the certificate: sterna (Sterna's CA; the default for new settings), external (files from "
        "another CA), none (the bus does not authenticate senders).",
    ),
]
Bus = Annotated[
    str | None, typer.Option("--bus", metavar="URL", help="Address of the message bus, e.g. nats://10.0.0.1:4222.")
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder", metavar="FOLDER", help="Folder of key and certificate. Default: /etc/sterna/identity."
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="With --enrol external: the CA's certificates."),
]
CertFile = Annotated[
    Path | None,
    typer.Option("--cert-file", metavar="FILE", help="With --enrol external: the certificate of this machine."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="With --enrol external: the private key, mode 0600."),
]
Start = Annotated[bool, typer.Option("--start/--no-start", help="Enable and start the systemd unit.")]
Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The settings.")]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Check this host afterwards, like `sterna agent doctor`.")
]

# of an agent

Host = Annotated[
    str | None,
    typer.Option("--host", metavar="NAME", help="Name of this host in Sterna. Default: the short host name."),
]
HostAddress = Annotated[
    list[str] | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Migration address of this host. Repeat the option for addresses on other networks.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="URL of the controller to join, e.g. https://10.0.0.1:8774."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File with the token from `sterna host add`; - reads standard input. Default: ask for it.",
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="FOLDER", help="Folder of the journal. Default: /var/lib/sterna."),
]
InstancesDir = Annotated[
    Path | None, typer.Option("--instances-dir", metavar="FOLDER", help="Folder of local disks.")
]
Ovsdb = Annotated[
    str | None,
    typer.Option(
        "--ovsdb",
        metavar="REMOTE",
        help="Database of Open vSwitch; '' for none. Default: none if Open vSwitch is not running.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Allow unencrypted migrations: only on a network that nobody else can reach."),
]
LibvirtFiles = Annotated[
    bool, typer.Option("--libvirt/--no-libvirt", help="Also write the TLS files of libvirt and QEMU.")
]

# of a controller

Name = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of this controller in the CA. Default: the short host name."),
]
Listen = Annotated[
    str | None,
    typer.Option("--listen", metavar="ADDRESS", help="Address and port of the API, e.g. 10.0.0.1:8774."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="Database URL; - reads it from standard input, which keeps a password out of the process list. "
        "Default: a SQLite file.",
    ),
]
BusHere = Annotated[
    bool | None,
    typer.Option(
        "--bus-here/--no-bus-here",
        help="Configure nats-server on this machine. Default: yes, if it is installed and the CA is here.",
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
    typer.Option("--domain", metavar="DOMAIN", help="For a new CA: see `sterna ca init`; may be repeated."),
]
CaServer = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="URL of the controller with the CA, if the CA is on another machine."
    ),
]
ApiCert = Annotated[
    Path | None,
    typer.Option("--api-cert", metavar="FILE", help="Certificate for clients of the API, with its chain."),
]
ApiKey = Annotated[Path | None, typer.Option("--api-key", metavar="FILE", help="The key of --api-cert.")]
ApiName = Annotated[
    list[str] | None,
    typer.Option("--api-name", metavar="NAME", help="Host name of the API; may be repeated."),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token", metavar="NAME", help="Create a token with the role admin and this name, and print it."
    ),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option("--admin-token-file", metavar="FILE", help="Write the token to this file (0600) instead."),
]
