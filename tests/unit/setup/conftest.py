"""`sterna setup`, as typed, on a machine that only plays its part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sterna import __main__  # noqa: F401 - its commands join those of the CLI
from sterna.adapters.identity.authority import Authority
from sterna.bootstrap.enrolling import libvirt
from sterna.cli.main import app
from sterna.domain.doctor.findings import Finding, Level
from sterna.domain.errors import Permanent
from sterna.domain.trust.identities import domains_of
from sterna.domain.trust.joining import JoinAnswer, JoinRequest
from sterna.setup import machine
from sterna.setup.machine import Machine, Unit

Run = Callable[..., Result]


@dataclass
class FakeUnits:
    """systemd, with the units that are installed."""

    texts: dict[str, str] = field(default_factory=dict)
    """Of each unit that is there."""
    booted: bool = True
    enabled: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    broken: bool = False

    def present(self) -> bool:
        return self.booted

    def look(self, name: str) -> Unit:
        if name not in self.texts:
            return Unit()
        return Unit(True, name in self.enabled, name in self.active, self.texts[name])

    def enable(self, name: str) -> None:
        self.calls.append(f"enable {name}")
        self.enabled.add(name)

    def restart(self, name: str) -> None:
        self.calls.append(f"restart {name}")
        if self.broken:
            raise Permanent(f"`systemctl restart {name}` failed", fix=f"find out why: journalctl -u {name}")
        self.active.add(name)

    def read_again(self) -> None:
        self.calls.append("daemon-reload")


@dataclass
class Desk:
    """A controller at which hosts join, with the CA in a folder."""

    folder: Path
    asked: list[str] = field(default_factory=list)

    @property
    def authority(self) -> Authority:
        return Authority.open(self.folder)

    def __call__(self, server: str) -> Desk:
        self.asked.append(server)
        return self

    async def ca(self) -> str:
        return self.authority.pem.decode()

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        made = self.authority.redeem(request.host, request.secret, request.request)
        return JoinAnswer(certificate=made.pem.decode(), ca=self.authority.pem.decode())


@dataclass
class Host:
    """A machine, its folders below one, and what is typed there."""

    folder: Path
    units: FakeUnits
    desk: Desk
    findings: list[Finding] = field(default_factory=list)
    has_terminal: bool = False
    has_ovs: bool = False
    name: str = "compute1.example.org"
    nats_server: str | None = None

    @property
    def agent(self) -> Path:
        return self.folder / "etc/agent.toml"

    @property
    def controller(self) -> Path:
        return self.folder / "etc/controller.toml"

    def token(self, name: str, *addresses: str) -> Path:
        """A file with what `sterna host add` printed."""
        made = CliRunner().invoke(app, ["host", "add", name, *(w for a in addresses for w in ("--address", a))])
        assert made.exit_code == 0, made.output
        file = self.folder / f"{name}.token"
        file.write_text(made.stdout)
        return file

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Each file's mode and content."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file() and path.name != ".lock")
        return {str(path): (path.stat().st_mode, path.read_bytes()) for path in found}

    def __call__(self, *words: object, code: int = 0, typed: str | None = None) -> Result:
        result = CliRunner().invoke(app, ["setup", *map(str, words)], input=typed)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("STERNA_CA", str(tmp_path / "ca"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("STERNA_API", "STERNA_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    made = Host(tmp_path, FakeUnits(), Desk(tmp_path / "ca"))
    made.units.texts["sterna-agent.service"] = f"ExecStart=/usr/bin/sterna agent --config {made.agent}\n"
    made.units.texts["sterna-controller.service"] = f"ExecStart=sterna controller --config {made.controller}\n"

    def here() -> Machine:
        name = made.name.partition(".")[0]
        return Machine(made.units, made.has_terminal, name, made.has_ovs, made.nats_server)

    async def examine(config: Path, peers: list[str]) -> list[Finding]:
        return made.findings

    monkeypatch.setattr(machine, "this_machine", here)
    monkeypatch.setattr("sterna.setup.agent.examine", examine)
    monkeypatch.setattr("sterna.setup.identity.HttpsDesk", made.desk)
    monkeypatch.setattr(libvirt, "PKI", tmp_path / "pki")
    monkeypatch.setattr(libvirt, "USUAL_GROUPS", ("daemon",))
    monkeypatch.setattr(libvirt, "DAEMONS", ())
    return made


@pytest.fixture
def ca(host: Host) -> Authority:
    return Authority.make(host.folder / "ca", domains_of([]))


def wrong(check: str) -> Finding:
    """A line of the doctor."""
    return Finding(check=check, level=Level.WRONG, host="compute1", message=f"{check} is wrong", fix="fix it")


def printed(result: Result) -> str:
    """Both streams on one line."""
    return " ".join((result.stdout + result.stderr).split())
