"""`sterna setup agent` and `sterna setup controller`, as they are typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from sterna.bootstrap.enrolling.common import BUS_FOLDER, CA_FOLDER, CaFolder, plain
from sterna.bootstrap.enrolling.libvirt import Overwrite, QemuGroup
from sterna.domain.errors import BadRequest
from sterna.setup import options
from sterna.setup.questions import typed

setup_app = typer.Typer(no_args_is_help=True, help="Set up an agent or a controller on this machine.")
AGENT_CONFIG, CONTROLLER_CONFIG = Path("/etc/sterna/agent.toml"), Path("/etc/sterna/controller.toml")


@contextmanager
def needing_libvirt() -> Iterator[None]:
    """Raises BadRequest where Python's bindings to libvirt are missing: on a controller's machine, perhaps."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "libvirt":
            raise
        fix = "install the package sterna-agent"
        raise BadRequest("Python's bindings to libvirt are not installed here", fix=fix) from error


@setup_app.command()
def agent(  # noqa: PLR0913 - one option per setting
    *,
    host: options.Host = None,
    address: options.HostAddress = None,
    bus: options.Bus = None,
    server: options.Server = None,
    token_file: options.TokenFile = None,
    enrol: options.EnrolOption = None,
    folder: options.Folder = None,
    ca_file: options.CaFile = None,
    cert_file: options.CertFile = None,
    key_file: options.KeyFile = None,
    state_dir: options.StateDir = None,
    instances_dir: options.InstancesDir = None,
    ovsdb: options.Ovsdb = None,
    insecure: options.Insecure = False,
    libvirt: options.LibvirtFiles = True,
    overwrite: Overwrite = False,
    qemu_group: QemuGroup = None,
    config: options.Config = AGENT_CONFIG,
    start: options.Start = True,
    check: options.Check = True,
    yes: options.Yes = False,
) -> None:
    """Set up the agent of this compute host: certificate, TLS files of libvirt, settings, systemd unit, checks.

    Run it as root. It asks for missing values, shows all changes, and asks for confirmation. Existing settings are
    kept. It can be run again. Exit code 3 if not confirmed, 11 if the checks find something wrong.
    """
    with plain(), needing_libvirt():
        from sterna.setup.agent import AgentOptions, set_up_agent

        given = AgentOptions(
            config=config, host=host, addresses=address or [], bus=bus, server=server, token_file=token_file,
            enrol=enrol, folder=folder, pki=(ca_file, cert_file, key_file), state_dir=state_dir,
            instances_dir=instances_dir, ovsdb=ovsdb, insecure=insecure, libvirt=libvirt, overwrite=overwrite,
            qemu_group=qemu_group, start=start, check=check,
        )  # fmt: skip
        set_up_agent(given, yes=yes)


@setup_app.command()
def controller(  # noqa: PLR0913 - one option per setting
    *,
    name: options.Name = None,
    listen: options.Listen = None,
    database: options.Database = None,
    bus: options.Bus = None,
    bus_here: options.BusHere = None,
    bus_name: options.BusName = "n1",
    bus_config: options.BusConfig = None,
    bus_folder: options.BusFolder = BUS_FOLDER,
    enrol: options.EnrolOption = None,
    ca: CaFolder = CA_FOLDER,
    domain: options.Domain = None,
    server: options.CaServer = None,
    folder: options.Folder = None,
    ca_file: options.CaFile = None,
    cert_file: options.CertFile = None,
    key_file: options.KeyFile = None,
    api_cert: options.ApiCert = None,
    api_key: options.ApiKey = None,
    api_name: options.ApiName = None,
    admin_token: options.AdminToken = None,
    admin_token_file: options.AdminTokenFile = None,
    config: options.Config = CONTROLLER_CONFIG,
    start: options.Start = True,
    yes: options.Yes = False,
) -> None:
    """Set up a controller on this machine: CA, certificates, nats-server's configuration, settings, systemd unit.

    Run it as root. It asks for missing values, shows all changes, and asks for confirmation. Existing settings and
    an existing CA are kept. It can be run again. Exit code 3 if not confirmed, 11 if the controller does not work
    afterwards.
    """
    with plain():
        from sterna.setup.controller import ControllerOptions, set_up_controller

        given = ControllerOptions(
            config=config, name=name, listen=listen, database=typed(database), bus=bus, bus_here=bus_here,
            bus_name=bus_name, bus_config=bus_config, bus_folder=bus_folder, enrol=enrol, ca=ca, server=server,
            domains=domain or [], folder=folder, pki=(ca_file, cert_file, key_file), api_cert=(api_cert, api_key),
            api_names=api_name or [], admin_token=admin_token, admin_token_file=admin_token_file, start=start,
        )  # fmt: skip
        set_up_controller(given, yes=yes)
