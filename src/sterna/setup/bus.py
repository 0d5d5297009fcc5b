"""nats-server beside the controller that has the CA: its certificate, its configuration, and what renews both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import Authority
from sterna.cli.exits import err
from sterna.domain.errors import BadRequest
from sterna.domain.trust.bus_config import HEADER, BusServer, bus_config
from sterna.domain.trust.enrolment import on_the_bus
from sterna.domain.trust.identities import Kind, identity
from sterna.setup import machine
from sterna.setup.actions import Action
from sterna.setup.identity import authority_in, folder_of, is_of, is_user, issue
from sterna.setup.machine import Machine

SERVICE, RELOADED = "nats-server.service", "sterna-bus-reload.path"
RENEWED = "sterna-bus-certificate@{}.timer"
OWN_RENEWAL = "sterna-bus-certificate"
CONFIG, FOLDER = Path("/etc/sterna/bus/nats-server.conf"), Path("/etc/nats/identity")
USER = "nats"
BEGINS = "# Written by `sterna setup controller`."


@dataclass(frozen=True)
class BusBeside:
    """What the server of the bus gets."""

    listen: str
    """Address and port, as `10.0.0.1:4222`."""
    ca: Path
    name: str = "n1"
    config: Path = CONFIG
    folder: Path = FOLDER
    controller_user: str = "root"

    @property
    def address(self) -> str:
        """Where it listens, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")


class BusSetup:
    """What has to be done for it. Methods raise SternaError."""

    def __init__(self, bus: BusBeside, here: Machine) -> None:
        self.beside = self._bus = bus
        self._here = here

    def actions(self, *, enrols: bool) -> Iterator[Action]:
        """In their order. `enrols`: who is enrolled changes before them, so the configuration does, too."""
        bus, authority = self._bus, authority_in(self._bus.ca)
        self._check_ours(bus.config)
        issues = authority is None or not is_of(bus.folder, Kind.BUS, bus.name, authority)
        if issues:
            yield Action.of(f"issue the certificate of the bus server {bus.name} in {bus.folder}", self._issue)
        stale = enrols or issues or authority is None or self._present() != self._text(authority)
        if stale:
            yield Action.of(f"write {bus.config}: the rights of all enrolled hosts and controllers", self._write)
        served = self._serving(changed=stale)
        if served is not None:
            yield served
        yield from self._kept_new()

    def reload_command(self) -> list[str] | None:
        """For [bus_server]: what the controller runs. None where its user cannot have the server read it."""
        if self._bus.controller_user == "root":
            return ["nats-server", "--signal", "reload"]
        units = self._here.units
        return ["true"] if units.present() and units.look(RELOADED).there else None

    # ------------------------------------------------------------ certificate and configuration

    def _issue(self) -> None:
        bus, owner = self._bus, USER if is_user(USER) else "root"
        folder_of(bus.folder, owner)
        if owner == "root":
            err.print(
                f"there is no user {USER}: give {bus.folder} to the one that nats-server runs as", style="yellow"
            )
        issue(Authority.open(bus.ca), identity(Kind.BUS, bus.name), [bus.address], bus.folder)

    def _text(self, authority: Authority) -> str:
        server = BusServer.of(self._bus.listen, str(self._bus.folder))
        return bus_config(server, on_the_bus(authority.register()))

    def _present(self) -> str:
        try:
            return self._bus.config.read_text(encoding="utf-8")
        except OSError:
            return ""

    def _check_ours(self, path: Path) -> None:
        if path.exists() and not self._present().startswith(HEADER):
            fix = "move it away, or give another file with --bus-config"
            raise BadRequest(f"{path} was not written by Sterna: it is left unchanged", fix=fix)

    def _write(self) -> None:
        """Checked by nats-server itself first, where it is installed."""
        bus = self._bus
        folder_of(bus.config.parent, bus.controller_user, 0o755)
        text = self._text(Authority.open(bus.ca)).encode()
        if self._here.nats_server is not None:
            tried = bus.config.with_name(f".{bus.config.name}.{os.getpid()}.check")
            try:
                private_files.write(tried, text, 0o644)
                why = machine.checked_by([self._here.nats_server, "-t", "-c", str(tried)])
            finally:
                tried.unlink(missing_ok=True)
            if why:
                raise BadRequest(
                    f"nats-server does not accept its configuration: {why}", fix="correct what it reports"
                )
        private_files.write(bus.config, text, 0o644)

    # ------------------------------------------------------------ units

    def _serving(self, *, changed: bool) -> Action | None:
        """nats-server runs with this configuration."""
        bus, units = self._bus, self._here.units
        if not units.present() or not (unit := units.look(SERVICE)).there:
            err.print(f"run nats-server with: nats-server -c {bus.config}", style="yellow", soft_wrap=True)
            return None
        reads = str(bus.config) in unit.text
        if reads and unit.enabled and unit.active and not changed:
            return None
        place = machine.UNIT_FOLDER / f"{SERVICE}.d" / "sterna.conf"
        words = [] if reads else [f"make {SERVICE} read {bus.config} ({place})"]
        words.append(f"start {SERVICE} at each boot, and restart it now")

        def serve() -> None:
            if not reads:
                program = self._here.nats_server or "/usr/sbin/nats-server"
                _write_unit(place, f"[Service]\nExecStart=\nExecStart={program} -c {bus.config}\n")
                units.read_again()
            units.enable(SERVICE)
            units.restart(SERVICE)

        return Action.of("; ".join(words), serve)

    def _kept_new(self) -> Iterator[Action]:
        """What renews its certificate, and has it read what the controller writes."""
        units = self._here.units
        if not units.present():
            err.print(f"run daily: sterna ca issue bus {self._bus.name} --if-due, and reload nats-server")
            return
        wanted = [RELOADED] if self._bus.controller_user != "root" and units.look(RELOADED).there else []
        timer, writes = RENEWED.format(self._bus.name), None
        if not units.look(timer).there:
            timer, writes = f"{OWN_RENEWAL}.timer", self._write_renewal
        for name in (*wanted, timer):
            unit = units.look(name)
            if unit.enabled and unit.active:
                continue
            made = writes if name == timer and not unit.there else None
            words = f"{'write, enable' if made else 'enable'} and start {name}"
            yield Action.of(words, partial(self._enabled, name, made))

    def _enabled(self, name: str, write: Callable[[], None] | None) -> None:
        if write is not None:
            write()
            self._here.units.read_again()
        self._here.units.enable(name)
        self._here.units.restart(name)

    def _write_renewal(self) -> None:
        bus, program = self._bus, shutil.which("sterna") or "/usr/local/bin/sterna"
        command = f"{program} ca issue bus {bus.name} --if-due --ca {bus.ca} --folder {bus.folder}"
        about = "[Unit]\nDescription=Renew the certificate of nats-server{}\n\n"
        place = machine.UNIT_FOLDER / OWN_RENEWAL
        service = f"[Service]\nType=oneshot\nExecStart={command}\nExecStart=/usr/bin/systemctl reload {SERVICE}\n"
        _write_unit(place.with_name(f"{OWN_RENEWAL}.service"), about.format("") + service)
        timer = "[Timer]\nOnCalendar=daily\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
        _write_unit(place.with_name(f"{OWN_RENEWAL}.timer"), about.format(" daily") + timer)


def _write_unit(path: Path, text: str) -> None:
    """One that somebody else has written is not replaced. Raises BadRequest."""
    folder_of(path.parent, "root", 0o755)
    if path.exists() and not path.read_text(errors="replace").startswith(BEGINS):
        raise BadRequest(f"{path} was not written by Sterna: it is left unchanged", fix="move it away")
    private_files.write(path, f"{BEGINS}\n{text}".encode(), 0o644)
