"""`sterna setup controller`: sets up a controller, with a CA and the message bus if they are on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import typer

from sterna.adapters.identity.authority import Authority
from sterna.adapters.sql.fleet_database import open_database
from sterna.bootstrap.identity import check_own
from sterna.cli.exits import Exit, err
from sterna.cli.formatting import out
from sterna.config import ControllerSettings
from sterna.domain.addresses import in_uri
from sterna.domain.errors import BadRequest, Unreachable
from sterna.domain.trust.identities import Identity, Kind, domains_of, identity, is_ip, may_be_signed
from sterna.kit import redaction
from sterna.kit.urls import server_url
from sterna.setup import checks, machine, running, services
from sterna.setup.actions import Action, carry_out
from sterna.setup.bus import CONFIG, FOLDER, BusBeside, BusSetup
from sterna.setup.identity import authority_in, enrol_wanted, enrolled_as, folder_of, is_of, issue
from sterna.setup.machine import Machine
from sterna.setup.options import Enrol
from sterna.setup.questions import Questions
from sterna.setup.settings_file import SettingsFile, key
from sterna.setup.toml_edit import Key, TomlValue

COMMAND = "sterna setup controller"
USUAL_FOLDER, USUAL_CA = Path("/etc/sterna/identity"), Path("/etc/sterna/ca")
API_PORT, LOCAL_BUS = 8774, "nats://127.0.0.1:4222"


@dataclass(frozen=True)
class ControllerOptions:
    """Options as typed; None if not given."""

    config: Path
    name: str | None = None
    listen: str | None = None
    database: str | None = None
    bus: str | None = None
    bus_here: bool | None = None
    bus_name: str = "n1"
    bus_config: Path | None = None
    bus_folder: Path = FOLDER
    enrol: Enrol | None = None
    ca: Path = USUAL_CA
    domains: list[str] = field(default_factory=list)
    server: str | None = None
    folder: Path | None = None
    pki: tuple[Path | None, Path | None, Path | None] = (None, None, None)
    api_cert: tuple[Path | None, Path | None] = (None, None)
    api_names: list[str] = field(default_factory=list)
    admin_token: str | None = None
    admin_token_file: Path | None = None
    start: bool = True


class ControllerSetup:
    """One run. Methods raise SternaError."""

    def __init__(self, options: ControllerOptions, questions: Questions, here: Machine) -> None:
        self._options, self._ask, self._here = options, questions, here
        self._file = file = SettingsFile.read(options.config)
        self._unit = here.units.look(services.CONTROLLER) if here.units.present() else machine.Unit()
        self._enrol = self._enrol_wanted()
        self._folder = Path(options.folder or file.get("identity", "folder") or USUAL_FOLDER).absolute()
        elsewhere = options.server is not None or (
            file.get("identity", "enrol") is not None and file.get("access", "ca_folder") is None
        )
        self._has_ca = self._enrol == "sterna" and not elsewhere
        self._ca = Path(file.get("access", "ca_folder") or options.ca).absolute()
        self._tokens: list[str] = []

    def run(self) -> Exit:
        """All of it. Leaves with an exit code of its own where it is not wanted."""
        self._file.check_writable()
        if self._unit.dynamic and self._has_ca:
            fix = "set a user for the unit (User=), or set up the CA on another machine and give it with --server"
            raise BadRequest(
                f"{services.CONTROLLER} has no lasting user (DynamicUser): it cannot use a CA", fix=fix
            )
        name = self._name()
        wanted = self._addresses() | self._identity()
        self._ask.check_complete(COMMAND)
        bus = self._bus_beside(wanted)
        wanted |= self._bus_settings(bus)
        changes = self._file.needed(wanted)
        text = self._file.with_changes(changes)
        settings = self._file.check(ControllerSettings, text)
        if self._enrol == "external":
            check_own(settings.identity, Kind.CONTROLLER)
        actions = [*self._database(settings.database, changed=key("database") in changes)]
        enrolling = list(self._enrolling(name, settings))
        actions += enrolling
        if bus is not None:
            actions += bus.actions(enrols=bool(enrolling))
        if changes or self._file.is_open:
            group = self._reader
            words = self._file.described(changes, group)
            actions.append(Action.of(words, lambda: self._file.write(text, group)))
        instead = self._with_start(actions)
        self._with_token(actions, settings, runs=not instead)
        carry_out(actions, self._ask)
        return self._finish(settings, instead)

    # ------------------------------------------------------------ what has to be known

    def _enrol_wanted(self) -> str:
        """Settings that are there and name none are left as they are."""
        asks_for_it = self._options.server is not None
        return enrol_wanted(self._options.enrol, self._file, otherwise=asks_for_it or self._file.is_new)

    def _name(self) -> str:
        """Of this controller, as the CA calls it."""
        if self._enrol != "sterna":
            return ""
        present = enrolled_as(self._folder, Kind.CONTROLLER)
        return self._ask.answer(
            "--name",
            self._options.name,
            "Name of this controller",
            known=present or None,
            default=checks.suggested_name(self._here.host_name) or "c1",
            check=checks.host_name,
        )

    def _addresses(self) -> dict[Key, TomlValue]:
        """Where the API listens, the database and the bus."""
        options, file, ask = self._options, self._file, self._ask
        wanted: dict[Key, TomlValue] = {}
        listen = ""
        if self._has_ca or options.listen is not None or file.get("listen"):
            listen = ask.answer(
                "--listen",
                options.listen,
                f"Address and port of the API, for hosts and users, e.g. 10.0.0.1:{API_PORT}",
                known=file.get("listen"),
                check=checks.listening,
            )
            wanted[key("listen")] = listen
        if file.is_new or options.database is not None:
            wanted[key("database")] = ask.answer(
                "--database",
                options.database,
                "Database",
                known=file.get("database") if options.database is None else None,
                default=f"sqlite:////var/lib/{self._state_folder}/controller.db",
                check=checks.database,
            )
        wanted |= self._bus_url(checks.host_to_reach(listen))
        return wanted

    def _bus_url(self, near: str) -> dict[Key, TomlValue]:
        """`near`: where the API listens. Settings that are there and name no bus have the default one."""
        options, known = self._options, self._file.get("bus", "url")
        if options.bus is None and known is None and not self._file.is_new:
            return {}
        default = f"nats://{in_uri(near)}:4222" if near else ""
        question = "Address of the message bus"
        url = self._ask.answer("--bus", options.bus, question, known=known, default=default, check=checks.bus_url)
        return {key("bus.url"): url}

    @property
    def _state_folder(self) -> str:
        """Below /var/lib: the one that systemd makes for the unit."""
        found: list[str] = re.findall(r"^\s*StateDirectory\s*=\s*(\S+)", self._unit.text, re.MULTILINE)
        return found[-1] if found else "sterna"

    @property
    def _reader(self) -> int | None:
        """The group that has to read the settings: of the unit's user, where systemd does not hand them over."""
        user = self._unit.user
        if user == "root" or "LoadCredential" in self._unit.text:
            return None
        import pwd

        try:
            return pwd.getpwnam(user).pw_gid
        except KeyError:
            raise BadRequest(
                f"there is no user {user}, as which {services.CONTROLLER} runs", fix="add it"
            ) from None

    def _identity(self) -> dict[Key, TomlValue]:
        """[identity] and [access]."""
        options, file = self._options, self._file
        wanted: dict[Key, TomlValue] = {}
        if self._enrol or file.get("identity", "enrol"):
            wanted[key("identity.enrol")] = self._enrol
        if self._enrol == "external":
            for name, given in zip(("ca_file", "cert_file", "key_file"), options.pki, strict=True):
                text = str(given.absolute()) if given is not None else None
                option, known = f"--{name.replace('_', '-')}", file.get("identity", name)
                wanted[key(f"identity.{name}")] = self._ask.answer(option, text, f"Path of {name}", known=known)
        if self._enrol == "sterna" and options.folder is not None:
            wanted[key("identity.folder")] = str(self._folder)
        if self._enrol == "sterna" and options.server is not None:
            wanted[key("identity.server")] = server_url(options.server)
        if self._has_ca:
            wanted[key("access.ca_folder")] = str(self._ca)
        for name, file_given in zip(("cert_file", "key_file"), options.api_cert, strict=True):
            if file_given is not None:
                wanted[key(f"access.{name}")] = str(file_given.absolute())
        if options.api_names:
            wanted[key("access.names")] = options.api_names
        return wanted

    # ------------------------------------------------------------ the bus

    def _bus_beside(self, wanted: dict[Key, TomlValue]) -> BusSetup | None:
        """The server of the bus, where it runs here and Sterna's CA says who may use it."""
        options, file = self._options, self._file
        known = file.get("bus_server", "config_file")
        here = options.bus_here
        if here is None:
            here = known is not None or (file.is_new and self._here.nats_server is not None)
        if here and not self._has_ca:
            if options.bus_here:
                fix = "leave out --bus-here, and write its configuration with `sterna bus config`"
                raise BadRequest("the CA is not on this machine, so the users of the bus are unknown", fix=fix)
            return None
        if not here:
            return None
        url = str(wanted.get(key("bus.url"), LOCAL_BUS)).partition(",")[0].partition("://")[2]
        beside = BusBeside(
            listen=(options.bus is None and file.get("bus_server", "listen")) or checks.listening(url),
            ca=self._ca,
            name=options.bus_name,
            config=Path(options.bus_config or known or CONFIG).absolute(),
            folder=Path(file.get("bus_server", "folder") or options.bus_folder).absolute(),
            controller_user=self._unit.user,
        )
        return BusSetup(beside, self._here)

    def _bus_settings(self, bus: BusSetup | None) -> dict[Key, TomlValue]:
        """[bus_server]."""
        if bus is None:
            return {}
        command = bus.reload_command()
        if command is None:
            err.print(
                f"{services.CONTROLLER} may not reload nats-server: after each change of enrolled hosts or "
                f"controllers, run `sterna bus config --out {bus.beside.config}` and "
                "`nats-server --signal reload`",
                style="yellow",
                soft_wrap=True,
            )
            return {}
        wanted: dict[Key, TomlValue] = {key("bus_server.config_file"): str(bus.beside.config)}
        wanted[key("bus_server.listen")] = bus.beside.listen
        if bus.beside.folder != FOLDER:
            wanted[key("bus_server.folder")] = str(bus.beside.folder)
        if command[0] == "true" and self._file.get("bus_server", "reload") is None:
            wanted[key("bus_server.reload")] = command
        return wanted

    # ------------------------------------------------------------ what has to be done

    def _database(self, url: str, *, changed: bool) -> Iterator[Action]:
        """A server is asked now: a wrong password is found before anything else is done."""
        if changed and not url.startswith("sqlite"):
            yield Action.of(f"bring the tables of {redaction.text(url)} up to date", lambda: try_database(url))

    def _enrolling(self, name: str, settings: ControllerSettings) -> Iterator[Action]:
        """The CA, and this controller's certificate."""
        if self._enrol != "sterna":
            return
        if not self._has_ca:
            self._check_enrolled_elsewhere(name)
            return
        authority = authority_in(self._ca)
        if authority is None:
            yield Action.of(f"create a CA in {self._ca}", self._make_ca)
        who = identity(Kind.CONTROLLER, name)
        if authority is None or not is_of(self._folder, Kind.CONTROLLER, name, authority):
            words = f"issue the certificate of the controller {name} in {self._folder}"
            yield Action.of(words, lambda: self._issue(who, settings))

    def _check_enrolled_elsewhere(self, name: str) -> None:
        if enrolled_as(self._folder, Kind.CONTROLLER) != name:
            raise BadRequest(
                f"{self._folder} has no valid certificate of the controller {name}",
                fix=f"on the CA's machine: `sterna ca issue controller {name} --address ADDRESS --folder FOLDER`; "
                f"copy the folder here as {self._folder}, over SSH",
            )

    def _make_ca(self) -> None:
        folder_of(self._ca, self._unit.user)
        Authority.make(self._ca, domains_of(self._options.domains))
        err.print(f"keep a backup of {self._ca}: without its key every host has to join again")

    def _issue(self, who: Identity, settings: ControllerSettings) -> None:
        """Made out to what clients use, as far as the CA may sign it; the controller adds nothing then."""
        authority = Authority.open(self._ca)
        folder_of(self._folder, self._unit.user)
        host = checks.host_to_reach(settings.listen)
        domains = domains_of_ca(authority)
        names = [
            one for one in (host, *settings.access.names) if one and (is_ip(one) or may_be_signed(one, domains))
        ]
        issue(authority, who, list(dict.fromkeys(names)), self._folder)

    def _with_start(self, actions: list[Action]) -> str:
        config = self._file.path
        if not self._options.start:
            return f"start it with: sterna controller --config {config}"
        start, instead = services.starting(self._here.units, services.CONTROLLER, config, changed=bool(actions))
        if start is not None:
            actions.append(start)
        return instead

    def _with_token(self, actions: list[Action], settings: ControllerSettings, *, runs: bool) -> None:
        name, socket = self._options.admin_token, str(settings.access.socket)
        if name is None:
            return
        if not runs:
            err.print(f"once the controller runs: sterna token create {name} --role admin", style="yellow")
            return
        if running.has_token(running.client_at(socket), name):
            return

        def create() -> None:
            token = running.create_token(running.client_at(socket), name)
            if self._options.admin_token_file is not None:
                running.keep_token(self._options.admin_token_file, token)
            else:
                self._tokens.append(token)

        actions.append(Action.of(f"create the token {name} with the role admin, for {running.DAYS} days", create))

    # ------------------------------------------------------------ is it right?

    def _finish(self, settings: ControllerSettings, instead: str) -> Exit:
        if instead:
            err.print(instead, style="yellow", soft_wrap=True)
            return Exit.OK
        why = running.what_is_wrong(running.client_at(str(settings.access.socket)))
        for token in self._tokens:
            err.print("the token is shown only once:")
            out.print(token, markup=False, soft_wrap=True)
        if why:
            err.print(f"the controller does not work yet: {why}", style="red", soft_wrap=True)
            err.print(f"  fix: see its log: journalctl -u {services.CONTROLLER}")
            return Exit.WRONG
        if not self._tokens:
            out.print("the controller is set up")
        if self._has_ca:
            err.print("let a host join: sterna host add NAME --address ADDRESS here, `sterna setup agent` there")
        return Exit.OK


def domains_of_ca(authority: Authority) -> tuple[str, ...]:
    """DNS names that the CA may sign."""
    from sterna.adapters.identity.x509 import domains_of

    return tuple(domains_of(authority.certificate))


_REFUSED = re.compile(r"password authentication failed|no password supplied|role .* does not exist")
_NO_DATABASE = re.compile(r'database "?[^"]*"? does not exist')


def try_database(url: str) -> None:
    """Raises BadRequest, Permanent or Unreachable for one that cannot be used, with what would help."""
    try:
        open_database(url).dispose()
    except Unreachable as error:
        if _REFUSED.search(error.message):
            fix = (
                "check the user and the password in --database; docs/how-to/postgres.md shows how to create the "
                "user"
            )
            raise BadRequest(error.message, fix=fix) from error
        if _NO_DATABASE.search(error.message):
            raise BadRequest(error.message, fix="create it: see docs/how-to/postgres.md") from error
        raise


def set_up_controller(options: ControllerOptions, *, yes: bool) -> None:
    """See ControllerSetup. Leaves with an exit code where something is wrong."""
    here = machine.this_machine()
    code = ControllerSetup(options, Questions(here.has_terminal, yes), here).run()
    if code is not Exit.OK:
        raise typer.Exit(code)
