"""`sterna setup agent`: sets up the agent of a compute host."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import typer

from sterna.bootstrap.doctor import examine
from sterna.bootstrap.enrolling import libvirt
from sterna.bootstrap.identity import check_own
from sterna.cli.doctor import exit_of, show
from sterna.cli.exits import Exit, err
from sterna.cli.formatting import out
from sterna.config import AgentSettings
from sterna.domain.addresses import in_uri
from sterna.domain.errors import BadRequest
from sterna.domain.trust.identities import Kind
from sterna.domain.trust.join_token import JoinToken, read
from sterna.kit.loop import run as run_on_loop
from sterna.kit.urls import server_url
from sterna.setup import checks, identity, machine, services
from sterna.setup.actions import Action, carry_out
from sterna.setup.machine import Machine
from sterna.setup.options import Enrol
from sterna.setup.questions import Questions
from sterna.setup.settings_file import SettingsFile, key
from sterna.setup.toml_edit import Key, TomlValue

COMMAND = "sterna setup agent"
USUAL_FOLDER = Path("/etc/sterna/identity")


@dataclass(frozen=True)
class AgentOptions:
    """Options as typed; None if not given."""

    config: Path
    host: str | None = None
    addresses: list[str] = field(default_factory=list)
    bus: str | None = None
    server: str | None = None
    token_file: Path | None = None
    enrol: Enrol | None = None
    folder: Path | None = None
    pki: tuple[Path | None, Path | None, Path | None] = (None, None, None)
    """With `external`: the CA's certificates, the host's certificate and its key."""
    state_dir: Path | None = None
    instances_dir: Path | None = None
    ovsdb: str | None = None
    insecure: bool = False
    libvirt: bool = True
    overwrite: bool = False
    qemu_group: str | None = None
    start: bool = True
    check: bool = True


class AgentSetup:
    """One run. Methods raise SternaError."""

    def __init__(self, options: AgentOptions, questions: Questions, here: Machine) -> None:
        self._options, self._ask, self._machine = options, questions, here
        self._file = SettingsFile.read(options.config)
        self._token: JoinToken | None = None
        self._enrol = self._enrol_wanted()
        folder = options.folder or self._file.get("identity", "folder") or USUAL_FOLDER
        self._folder = Path(folder).absolute()

    def run(self) -> Exit:
        """All of it. Leaves with an exit code of its own where it is not wanted."""
        self._file.check_writable()
        if self._options.token_file is not None:
            self._token = identity.token_in(self._options.token_file)
        wanted = self._host_and_addresses() | self._identity()
        joins = self._joins(str(wanted[key("host")]), wanted)
        wanted |= self._rest(str(wanted.get(key("identity.server"), "")))
        self._ask.check_complete(COMMAND)
        changes = self._file.needed(wanted)
        text = self._file.with_changes(changes)
        settings = self._file.check(AgentSettings, text)
        if self._enrol == "external":
            check_own(settings.identity, Kind.AGENT, settings.host, [settings.migration.address])
        actions = [*joins, *self._copies(settings, joining=bool(joins))]
        if changes or self._file.is_open:
            written = Action.of(self._file.described(changes), lambda: self._file.write(text))
            actions.append(written)
        if not (journal := settings.state_dir).exists():
            words = f"create {journal}, the folder of the journal (mode 0700)"
            actions.append(Action.of(words, lambda: identity.folder_of(journal, "root")))
        instead = self._with_start(actions)
        carry_out(actions, self._ask)
        return self._finish(settings, instead)

    # ------------------------------------------------------------ what has to be known

    def _enrol_wanted(self) -> str:
        """Settings that are there and name none are left as they are."""
        asks_for_it = self._options.server is not None or self._options.token_file is not None
        return identity.enrol_wanted(self._options.enrol, self._file, otherwise=asks_for_it or not self._complete)

    @property
    def _complete(self) -> bool:
        """Could the agent start with the settings that are there? What they do not name has its default."""
        return bool(self._file.get("host") and self._file.get("migration", "address"))

    def _host_and_addresses(self) -> dict[Key, TomlValue]:
        options, file = self._options, self._file
        suggested = self._token.host if self._token is not None else checks.suggested_name(self._machine.host_name)
        wanted: dict[Key, TomlValue] = {}
        wanted[key("host")] = self._ask.answer(
            "--host",
            options.host,
            "Name of this host in Sterna",
            known=file.get("host"),
            default=suggested,
            check=checks.host_name,
        )
        wanted[key("migration.address")] = self._ask.answer(
            "--address",
            options.addresses[0] if options.addresses else None,
            "Address at which the other hosts reach this one",
            known=file.get("migration", "address"),
            check=checks.address,
        )
        if len(options.addresses) > 1:
            wanted[key("migration.more_addresses")] = [checks.address(one) for one in options.addresses[1:]]
        if options.insecure:
            wanted[key("migration.insecure")] = True
            wanted[key("migration.uri_template")] = "qemu+tcp://{address}/system"
        return wanted

    def _identity(self) -> dict[Key, TomlValue]:
        """[identity]. With an external CA the files have to be named."""
        options, wanted = self._options, dict[Key, TomlValue]()
        if self._enrol or self._file.get("identity", "enrol"):
            wanted[key("identity.enrol")] = self._enrol
        if self._enrol == "external":
            for name, given in zip(("ca_file", "cert_file", "key_file"), options.pki, strict=True):
                option, known = f"--{name.replace('_', '-')}", self._file.get("identity", name)
                text = str(given.absolute()) if given is not None else None
                wanted[key(f"identity.{name}")] = self._ask.answer(option, text, f"Path of {name}", known=known)
        if self._enrol == "sterna" and options.folder is not None:
            wanted[key("identity.folder")] = str(self._folder)
        if self._enrol == "sterna" and options.server is not None:
            wanted[key("identity.server")] = server_url(options.server)
        return wanted

    def _rest(self, server: str) -> dict[Key, TomlValue]:
        options, file = self._options, self._file
        near = checks.host_of(server)
        wanted: dict[Key, TomlValue] = {}
        if not self._complete or options.bus is not None:
            wanted[key("bus.url")] = self._ask.answer(
                "--bus",
                options.bus,
                "Address of the message bus, e.g. nats://10.0.0.1:4222",
                known=file.get("bus", "url"),
                default=checks.bus_url(f"nats://{in_uri(near)}:4222") if near and self._ask.has_terminal else "",
                check=checks.bus_url,
            )
        for name, folder in (("state_dir", options.state_dir), ("instances_dir", options.instances_dir)):
            if folder is not None:
                wanted[key(name)] = str(folder.absolute())
        if options.ovsdb is not None:
            wanted[key("network.ovsdb")] = options.ovsdb
        elif not self._complete and file.get("network", "ovsdb") is None and not self._machine.has_ovs:
            wanted[key("network.ovsdb")] = ""
        return wanted

    # ------------------------------------------------------------ what has to be done

    def _joins(self, host: str, wanted: dict[Key, TomlValue]) -> list[Action]:
        """Nothing where the host has joined already. Else the address of the controller and a token are needed."""
        if self._enrol != "sterna" or not host:
            return []
        present = identity.enrolled_as(self._folder, Kind.AGENT)
        if present == host:
            if self._token is not None:
                err.print(f"{host} has already joined: the token is not used")
            return []
        server = self._ask.answer(
            "--server",
            self._options.server,
            "URL of the controller, e.g. https://10.0.0.1:8774",
            known=self._file.get("identity", "server"),
            check=server_url,
        )
        token = self._token or self._typed_token(f"sterna host add {host} --address ADDRESS")
        if not server or token is None:
            return []
        wanted[key("identity.server")] = server
        if token.host != host:
            fix = f"run `sterna host add {host}` on the CA's machine, or set up this host as {token.host} (--host)"
            raise BadRequest(f"the token is for {token.host}, but this host is set up as {host}", fix=fix)
        replaced = f"; the certificate of {present} there is replaced" if present else ""
        words = f"join the fleet at {server}: key and certificate in {self._folder}{replaced}"
        return [Action.of(words, lambda: identity.join(self._folder, token, server))]

    def _typed_token(self, made_by: str) -> JoinToken | None:
        typed = self._ask.secret("--token-file", f"Token (printed by `{made_by}` on the CA's machine)")
        return read(typed) if typed else None

    def _copies(self, settings: AgentSettings, *, joining: bool) -> list[Action]:
        """The files of libvirt and QEMU, where they encrypt with this certificate and have none of it yet."""
        options = self._options
        if self._enrol != "sterna" or not options.libvirt or settings.migration.insecure:
            return []
        files = identity.libvirt_files(self._folder)
        if files.wanted and not joining:
            return []
        libvirt.look(files, overwrite=options.overwrite)
        libvirt.group_id(options.qemu_group)
        words = f"write the certificates of libvirt and QEMU below {libvirt.PKI}"
        foreign = [str(path) for path in files.foreign(libvirt.PKI)]
        if foreign:
            words += f", and keep as *.before-sterna: {', '.join(foreign)}"
        return [Action.of(words, lambda: libvirt.write(files, options.qemu_group))]

    def _with_start(self, actions: list[Action]) -> str:
        """The unit is started as well; or what to do instead."""
        config = self._file.path
        if not self._options.start:
            return f"start it with: sterna agent --config {config}"
        start, instead = services.starting(self._machine.units, services.AGENT, config, changed=bool(actions))
        if start is not None:
            actions.append(start)
        return instead

    # ------------------------------------------------------------ is it right?

    def _finish(self, settings: AgentSettings, instead: str) -> Exit:
        code = Exit.OK
        if self._options.check:
            logging.getLogger("asyncio").setLevel(logging.ERROR)  # it tells of each connection that a bus has ended
            findings = [one.model_dump(mode="json") for one in run_on_loop(examine(self._file.path, []))]
            show(findings, problems=True)
            code = exit_of(findings)
        if instead:
            err.print(instead, style="yellow", soft_wrap=True)
        if code is Exit.OK:
            out.print(f"{settings.host} is set up", markup=False)
        else:
            err.print(f"{settings.host} is set up; something is wrong, see above", style="yellow")
            err.print(f"check again with: sterna agent doctor --config {self._file.path}")
        return code


def set_up_agent(options: AgentOptions, *, yes: bool) -> None:
    """See AgentSetup. Leaves with an exit code where something is wrong."""
    here = machine.this_machine()
    code = AgentSetup(options, Questions(here.has_terminal, yes), here).run()
    if code is not Exit.OK:
        raise typer.Exit(code)
