"""`sterna setup controller`: CA, certificates, nats-server's configuration, settings, units and the first token."""

from __future__ import annotations

import os
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.cli.client import Client
from sterna.domain.errors import Unreachable
from sterna.domain.trust.identities import Kind
from sterna.setup import machine, running

from .conftest import Host, printed

DEBIAN = "[Service]\nExecStart=/usr/sbin/nats-server -c /etc/nats-server.conf\nUser=nats\n"
NATS = "/usr/sbin/nats-server"


class Api:
    """The controller that was started, as far as setup asks it."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.away = False
        self.bus: dict[str, object] = {"connected": True, "why": None}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.away:
            raise httpx2.ConnectError("no such file", request=request)
        if request.url.path == "/v1/hosts":
            return httpx2.Response(200, json={"hosts": [], "bus": self.bus})
        if request.method == "POST":
            self.tokens.append("boss")
            return httpx2.Response(201, json={"token": "the-first-token"})
        return httpx2.Response(200, json={"tokens": [{"name": name} for name in self.tokens]})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()

    def client_at(socket: str) -> Client:
        return Client("http://sterna", httpx2.Client(base_url="http://x", transport=httpx2.MockTransport(made)))

    monkeypatch.setattr(running, "client_at", client_at)
    monkeypatch.setattr(running, "UP_S", 0.0)
    return made


@pytest.fixture(autouse=True)
def place(host: Host, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of units."""
    host.units.texts["nats-server.service"] = DEBIAN
    monkeypatch.setattr(machine, "UNIT_FOLDER", host.folder / "units")
    return host.folder / "units"


def options(host: Host, /, **more: object) -> list[object]:
    given: dict[str, object] = {
        "listen": "10.0.0.1:8774",
        "config": host.controller,
        "folder": host.folder / "identity",
        "bus_config": host.folder / "bus/nats-server.conf",
        "bus_folder": host.folder / "nats",
    }
    given |= more
    words = [(f"--{name.replace('_', '-')}", value) for name, value in given.items() if value is not None]
    return ["controller", *(word for pair in words for word in pair), "--yes"]


def settings(host: Host) -> dict[str, Any]:
    return tomllib.loads(host.controller.read_text())


def test_a_controller_from_nothing_with_the_bus_beside(host: Host, api: Api, place: Path) -> None:
    host.nats_server = NATS
    result = host(*options(host, admin_token="boss"))
    config, folder = str(host.folder / "bus/nats-server.conf"), str(host.folder / "nats")
    assert settings(host) == {
        "listen": "10.0.0.1:8774",
        "database": "sqlite:////var/lib/sterna/controller.db",
        "bus": {"url": "nats://10.0.0.1:4222"},
        "identity": {"enrol": "sterna", "folder": str(host.folder / "identity")},
        "access": {"ca_folder": str(host.folder / "ca")},
        "bus_server": {
            "config_file": config,
            "listen": "10.0.0.1:4222",
            "folder": folder,
        },
    }
    assert stat.S_IMODE(host.controller.stat().st_mode) == 0o600
    own = OwnFiles(host.folder / "identity", Kind.CONTROLLER)
    assert own.name() == "compute1" and own.lacks(["10.0.0.1"]) == ()
    assert OwnFiles(host.folder / "nats", Kind.BUS).name() == "n1"
    tried = subprocess.run([NATS, "-t", "-c", config], capture_output=True, text=True, timeout=60, check=False)
    assert tried.returncode == 0, tried.stderr
    assert f"ExecStart={NATS} -c {config}" in (place / "nats-server.service.d/sterna.conf").read_text()
    assert "ca issue bus n1 --if-due" in (place / "sterna-bus-certificate.service").read_text()
    calls = host.units.calls
    assert calls.index("restart nats-server.service") < calls.index("restart sterna-controller.service")
    assert "enable sterna-bus-certificate.timer" in calls and calls.count("daemon-reload") == 2
    assert result.stdout.splitlines()[-1] == "the-first-token"
    assert "keep a backup" in result.stderr


def test_again_there_is_nothing_to_change(host: Host, api: Api, place: Path) -> None:
    host.nats_server = NATS
    host(*options(host, admin_token="boss"))
    host.units.texts["nats-server.service"] += (place / "nats-server.service.d/sterna.conf").read_text()
    host.units.texts["sterna-bus-certificate.timer"] = "[Timer]"
    before, calls = host.files(), list(host.units.calls)
    for words in (options(host, admin_token="boss"), ["controller", "--config", host.controller]):
        assert "nothing to change" in host(*words).stdout
    assert host.files() == before and host.units.calls == calls


def test_a_host_that_has_joined_since_is_let_in(host: Host, api: Api, place: Path) -> None:
    host.nats_server = NATS
    host(*options(host))
    config = host.folder / "bus/nats-server.conf"
    words: list[object] = [
        "agent",
        "--address",
        "10.0.0.11",
        "--bus",
        "nats://10.0.0.1",
        "--server",
        "https://10.0.0.1:8774",
    ]
    words += ["--config", host.agent, "--folder", host.folder / "own", "--token-file", host.token("compute1")]
    host(*words, "--state-dir", host.folder / "state", "--yes")
    assert "compute1.agents" not in config.read_text()
    host("controller", "--config", host.controller, "--yes")
    assert "compute1.agents.sterna" in config.read_text()


def test_with_the_packages_units(host: Host, api: Api) -> None:
    """The controller has a user of its own, and systemd has nats-server read what it writes."""
    host.nats_server = NATS
    host.units.texts["sterna-controller.service"] = (
        f"[Service]\nLoadCredential=controller.toml:{host.controller}\nUser=daemon\nStateDirectory=sterna-controller\n"
    )
    host.units.texts |= {"sterna-bus-reload.path": "", "sterna-bus-certificate@n1.timer": ""}
    host(*options(host))
    found = settings(host)
    assert found["database"] == "sqlite:////var/lib/sterna-controller/controller.db"
    assert found["bus_server"]["reload"] == ["true"]
    assert stat.S_IMODE(host.controller.stat().st_mode) == 0o600  # systemd hands it over
    if os.geteuid() == 0:
        for folder in ("ca", "identity", "bus"):
            assert (host.folder / folder).owner() == "daemon"
        assert (host.folder / "ca/ca.key").owner() == "daemon" and host.controller.owner() == "root"
    own = ["systemctl", "reload", "nats-server"]
    host.controller.write_text(
        host.controller.read_text().replace('["true"]', '["systemctl", "reload", "nats-server"]')
    )
    host("controller", "--config", host.controller, "--bus", "nats://10.0.0.1:4333", "--yes")
    assert settings(host)["bus_server"]["reload"] == own  # somebody has chosen it
    assert settings(host)["bus_server"]["listen"] == "10.0.0.1:4333"
    started = {call.partition(" ")[2] for call in host.units.calls if call.startswith("enable")}
    assert started >= {"sterna-bus-reload.path", "sterna-bus-certificate@n1.timer", "sterna-controller.service"}
    assert not (host.folder / "units/sterna-bus-certificate.timer").exists()


def test_a_user_that_cannot_reload_the_bus_leaves_that_to_a_person(host: Host, api: Api) -> None:
    host.nats_server = NATS
    host.units.texts["sterna-controller.service"] = (
        f"[Service]\nUser=daemon\nExecStart=x --config {host.controller}\n"
    )
    said = printed(host(*options(host)))
    assert "nats-server --signal reload" in said and "bus_server" not in settings(host)
    if os.geteuid() == 0:
        assert stat.S_IMODE(host.controller.stat().st_mode) == 0o640 and host.controller.group() == "daemon"


def test_without_nats_server_here_its_files_are_left_alone(host: Host, api: Api) -> None:
    host(*options(host, bus="nats://10.0.0.5:4222"))
    assert "bus_server" not in settings(host) and not (host.folder / "nats").exists()
    assert "sterna host add NAME" in printed(host("controller", "--config", host.controller, "--yes"))


def test_a_configuration_of_somebody_elses_is_not_replaced(host: Host, api: Api) -> None:
    host.nats_server = NATS
    theirs = host.folder / "bus/nats-server.conf"
    theirs.parent.mkdir()
    theirs.write_text("port: 4222")
    said = printed(host(*options(host), code=2))
    assert "was not written by Sterna" in said and "--bus-config" in said
    assert theirs.read_text() == "port: 4222" and not host.controller.exists() and not (host.folder / "ca").exists()


def test_what_nats_server_does_not_take_is_not_written(host: Host, api: Api, tmp_path: Path) -> None:
    refusing = tmp_path / "refuses"
    refusing.write_text("#!/bin/sh\necho unknown field >&2\nexit 1\n")
    refusing.chmod(0o755)
    host.nats_server = str(refusing)
    assert "unknown field" in printed(host(*options(host), code=2))
    assert list((host.folder / "bus").iterdir()) == [] and not host.controller.exists()


def test_a_ca_on_another_machine(host: Host, api: Api, ca: Authority) -> None:
    host.nats_server = NATS
    elsewhere = options(host, server="https://10.0.0.9:8774", name="c2", bus="nats://10.0.0.9:4222")
    said = printed(host(*elsewhere, code=2))
    assert "sterna ca issue controller c2" in said and not host.controller.exists()
    from typer.testing import CliRunner

    from sterna.cli.main import app

    issued = ["ca", "issue", "controller", "c2", "--folder", str(host.folder / "identity")]
    assert CliRunner().invoke(app, issued).exit_code == 0
    host(*elsewhere)
    assert settings(host)["identity"]["server"] == "https://10.0.0.9:8774" and "access" not in settings(host)
    assert "nothing to change" in host(*elsewhere).stdout
    assert "the CA is not on this machine" in printed(host(*elsewhere, "--bus-here", code=2))


def test_certificates_of_another_ca(host: Host, api: Api) -> None:
    missing = printed(host(*options(host, enrol="external", folder=None), code=2))
    assert "--ca-file, --cert-file, --key-file" in missing
    files = {name: host.folder / name for name in ("ca_file", "cert_file", "key_file")}
    assert "there is no" in printed(host(*options(host, enrol="external", folder=None, **files), code=5))


def test_a_certificate_for_the_apis_clients(host: Host, api: Api) -> None:
    more = {"api_cert": host.folder / "api.crt", "api_key": host.folder / "api.key", "api_name": "sterna.example"}
    host(*options(host, **more))
    access = settings(host)["access"]
    assert access["cert_file"] == str(host.folder / "api.crt") and access["names"] == ["sterna.example"]


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ({"listen": "10.0.0.1"}, "10.0.0.1:8774"),
        ({"listen": "10.0.0.1:99999"}, "10.0.0.1"),
        ({"database": "postgresql://s:p4ss@db/sterna"}, "postgresql+psycopg://"),
        ({"database": "mysql://s:p4ss@db/sterna"}, "postgresql+psycopg://"),
        ({"database": "sqlite:///x.db"}, "not absolute"),
        ({"name": "a b"}, "no dots"),
        ({"bus": "nats://"}, "nats://10.0.0.1:4222"),
        ({"server": "ftp://x"}, "https://10.0.0.1:8774"),
    ],
)
def test_what_cannot_be_used_is_refused(host: Host, api: Api, wrong: dict[str, object], fix: str) -> None:
    said = printed(host(*options(host, **wrong), code=2))
    assert fix in said and "p4ss" not in said
    assert not host.controller.exists() and not (host.folder / "ca").exists() and host.units.calls == []


URL = "postgresql+psycopg://sterna:p4ss@db.example/sterna"


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the server says; nothing: it takes the connection."""
    said: list[str] = []

    class Opened:
        def dispose(self) -> None:
            pass

    def open_database(url: str) -> Opened:
        if said:
            raise Unreachable(f"the database cannot be opened: {said[0]}", fix="check that it can be reached")
        return Opened()

    monkeypatch.setattr("sterna.setup.controller.open_database", open_database)
    yield said


def test_a_password_is_not_shown_and_a_wrong_one_is_found_first(host: Host, api: Api, database: list[str]) -> None:
    database.append('password authentication failed for user "sterna"')
    said = printed(host(*options(host, database=URL), code=2))
    assert "the user and the password in --database" in said and "p4ss" not in said
    assert not host.controller.exists() and not (host.folder / "ca").exists()
    database[:] = ['database "sterna" does not exist']
    assert "create it" in printed(host(*options(host, database=URL), code=2))
    database[:] = ["connection refused"]
    assert "can be reached" in printed(host(*options(host, database=URL), code=6))
    database.clear()
    said = printed(host(*options(host, database="-"), typed=f"{URL}\n"))
    assert settings(host)["database"] == URL and "p4ss" not in said and "://***@db.example" in said


@pytest.mark.parametrize("rest", ["sterna:x@p4ss@db.example/sterna", "db.example/sterna?user=sterna&password=p4ss"])
def test_no_form_of_a_password_is_shown(host: Host, api: Api, database: list[str], rest: str) -> None:
    """Neither of one that is set, nor of the one it replaces."""
    url = f"postgresql+psycopg://{rest}"
    said = printed(host(*options(host, database=url)))
    assert settings(host)["database"] == url and "db.example" in said and "p4ss" not in said
    said = printed(host(*options(host, database="postgresql+psycopg://sterna@other.example/sterna")))
    assert "db.example" in said and "p4ss" not in said


def test_a_controller_that_does_not_work_is_exit_code_11(host: Host, api: Api) -> None:
    api.bus = {"connected": False, "why": "connection refused"}
    said = printed(host(*options(host), code=11))
    assert "it has not reached the message bus: connection refused" in said and "journalctl" in said
    api.away = True
    assert "no Sterna controller answers" in printed(
        host("controller", "--config", host.controller, "--yes", code=11)
    )


def test_a_token_in_a_file(host: Host, api: Api) -> None:
    file = host.folder / "token"
    result = host(*options(host, admin_token="boss", admin_token_file=file))
    assert file.read_text() == "the-first-token\n" and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "the-first-token" not in result.output


def test_without_systemd_it_says_what_to_run(host: Host, api: Api) -> None:
    host.units.booted = False
    said = printed(host(*options(host, admin_token="boss")))
    assert f"sterna controller --config {host.controller}" in said
    assert "sterna token create boss --role admin" in said and host.units.calls == []


def test_a_user_that_is_made_at_each_start_cannot_have_the_ca(host: Host, api: Api) -> None:
    host.units.texts["sterna-controller.service"] = f"DynamicUser=yes\n--config {host.controller}"
    assert "DynamicUser" in printed(host(*options(host), code=2))


def test_a_person_is_asked(host: Host, api: Api) -> None:
    host.has_terminal = True
    words = [word for word in options(host, listen=None) if word != "--yes"]
    result = host(*words, typed="c1\n10.0.0.1\n10.0.0.1:8774\n\n\nn\n", code=3)
    assert "not an address and a port" in result.stderr and not host.controller.exists()
    host(*words, typed="c1\n10.0.0.1:8774\n\n\ny\n")
    assert OwnFiles(host.folder / "identity", Kind.CONTROLLER).name() == "c1"


def test_a_controller_that_was_enrolled_by_hand_gets_no_ca(host: Host, api: Api) -> None:
    host.nats_server = NATS
    host.controller.parent.mkdir()
    host.controller.write_text(f'[identity]\nenrol = "sterna"\nfolder = "{host.folder}/identity"\n')
    host.controller.chmod(0o600)
    said = printed(host("controller", "--config", host.controller, "--yes", code=2))
    assert "has no valid certificate of the controller" in said and not (host.folder / "ca").exists()


def test_every_address_of_the_machine_is_in_no_certificate(host: Host, api: Api) -> None:
    host(*options(host, listen="0.0.0.0:8774", bus="nats://10.0.0.1"))
    own = OwnFiles(host.folder / "identity", Kind.CONTROLLER)
    assert own.lacks(["0.0.0.0"]) == ("0.0.0.0",)
    assert "--bus" in printed(host(*options(host, listen="[::]:8774", config=host.folder / "other.toml"), code=2))
