"""A controller that has the CA keeps the configuration of nats-server as the register is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import Authority
from sterna.bootstrap import bus_server
from sterna.bootstrap.bus_server import BusServerFile, keep_configured
from sterna.config.bus import BusServerSettings
from sterna.domain.errors import BadRequest, NotFound, Temporary
from tests.unit.adapters.identities import C1, HOST1, HOST2, issue, join

from .commands import Run


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    issue(authority, C1, tmp_path)
    join(authority, HOST1, tmp_path / "host1")
    return authority


@pytest.fixture
def settings(tmp_path: Path) -> BusServerSettings:
    reload = ("sh", "-c", f"echo >> {tmp_path}/reloads")
    return BusServerSettings(config_file=tmp_path / "nats.conf", listen="127.0.0.1:4222", reload=reload)


def reloads(tmp_path: Path) -> int:
    told = tmp_path / "reloads"
    return len(told.read_text()) if told.exists() else 0


def test_it_follows_the_register(authority: Authority, settings: BusServerSettings, tmp_path: Path) -> None:
    file, written = BusServerFile(settings, authority), tmp_path / "nats.conf"
    file.look()
    assert '"e1.host1.agents.sterna"' in written.read_text() and "host2" not in written.read_text()
    assert reloads(tmp_path) == 1 and written.stat().st_mode & 0o777 == 0o644
    file.look()
    authority.invite(HOST2, ["10.0.0.2"])
    file.look()
    assert reloads(tmp_path) == 1, "one that is invited is no client yet"
    join(authority, HOST2, tmp_path / "host2")
    file.look()
    assert '"e1.host2.agents.sterna"' in written.read_text() and reloads(tmp_path) == 2
    authority.remove(HOST1)
    file.look()
    assert "host1" not in written.read_text() and reloads(tmp_path) == 3


def test_it_is_what_the_command_writes(ca: Run, tmp_path: Path) -> None:
    issue(Authority.open(tmp_path / "ca"), C1, tmp_path)
    ca("bus", "config", "--listen", "127.0.0.1:4222", "--out", tmp_path / "by-command")
    by_command = (tmp_path / "by-command").read_text()
    settings = BusServerSettings(config_file=tmp_path / "nats.conf", listen="127.0.0.1:4222", reload=("true",))
    BusServerFile(settings, Authority.open(tmp_path / "ca")).look()
    assert (tmp_path / "nats.conf").read_text() == by_command


def test_each_life_has_the_server_read_it_once(
    authority: Authority, settings: BusServerSettings, tmp_path: Path
) -> None:
    """The one before may have died in between."""
    BusServerFile(settings, authority).look()
    before = (tmp_path / "nats.conf").stat().st_ino
    BusServerFile(settings, authority).look()
    assert reloads(tmp_path) == 2 and (tmp_path / "nats.conf").stat().st_ino == before


def test_a_server_that_was_not_told_is_told_again(
    authority: Authority, settings: BusServerSettings, tmp_path: Path
) -> None:
    failing = settings.model_copy(update={"reload": ("sh", "-c", f"echo no server >&2; test -e {tmp_path}/runs")})
    file = BusServerFile(failing, authority)
    for _ in range(2):
        with pytest.raises(Temporary, match="no server") as caught:
            file.look()
        assert "nats.conf" in caught.value.fix
    (tmp_path / "runs").touch()
    file.look()


def test_a_command_that_hangs_is_killed_and_given_again(
    authority: Authority, settings: BusServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_server, "RELOAD_S", 0.3)
    pid = tmp_path / "pid"
    hangs = ("sh", "-c", f"test -e {tmp_path}/answers || {{ echo $$ > {pid}; exec sleep 600; }}")
    file = BusServerFile(settings.model_copy(update={"reload": hangs}), authority)
    for _ in range(2):
        with pytest.raises(Temporary, match=r"timed out after 0\.3 seconds") as caught:
            file.look()
        assert "nats.conf" in caught.value.fix
    if pid.exists():
        assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    (tmp_path / "answers").touch()
    monkeypatch.setattr(bus_server, "RELOAD_S", 20.0)
    file.look()


def test_a_look_that_comes_back_late_does_not_write_beside_another_one(
    authority: Authority, settings: BusServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would write the same new file, and one would put the other's half of it in place."""
    file, real = BusServerFile(settings, authority), private_files.write
    first, answers, at_once, most = threading.Event(), threading.Event(), [0], list[int]()

    def write(path: Path, content: bytes, mode: int) -> None:
        at_once[0] += 1
        most.append(at_once[0])
        first.set()
        answers.wait(20)
        real(path, content, mode)
        at_once[0] -= 1

    monkeypatch.setattr(private_files, "write", write)
    looks = [threading.Thread(target=file.look) for _ in range(2)]
    looks[0].start()
    assert first.wait(20)
    looks[1].start()
    looks[1].join(0.3)
    answers.set()
    for look in looks:
        look.join(20)
    assert max(most) == 1 and "host1" in (tmp_path / "nats.conf").read_text()


async def test_a_disk_that_hangs_is_left_alone_and_looked_at_again(
    authority: Authority, settings: BusServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CA's; or a command that cannot be killed. The controller goes on."""
    monkeypatch.setattr(bus_server, "_OF_A_LOOK_S", 0.2)
    answers, waits = threading.Event(), list[float]()
    stamp = authority.stamp

    def hang() -> tuple[int, int]:
        answers.wait(60)
        return stamp()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            answers.set()
            monkeypatch.setattr(bus_server, "_OF_A_LOOK_S", 30.0)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(authority, "stamp", hang)
    monkeypatch.setattr("sterna.bootstrap.bus_server.asyncio.sleep", sleep)
    with capture_logs() as logs, pytest.raises(KeyboardInterrupt):
        await keep_configured(settings, authority)
    assert waits == [bus_server.AGAIN_S] * 2 + [bus_server.LOOK_S], logs
    errors = [line for line in logs if line["log_level"] == "error"]
    assert len(errors) == 1 and "no answer within 0.2 s" in errors[0]["why"] and "disks" in errors[0]["fix"]


def test_a_command_that_is_not_there(authority: Authority, settings: BusServerSettings) -> None:
    file = BusServerFile(settings.model_copy(update={"reload": ("/proc/none",)}), authority)
    with pytest.raises(Temporary, match="/proc/none"):
        file.look()


def test_somebody_elses_configuration_is_left_alone(
    authority: Authority, settings: BusServerSettings, tmp_path: Path
) -> None:
    (tmp_path / "nats.conf").write_text("port: 4222\n")
    with pytest.raises(BadRequest, match="not written by Sterna"):
        BusServerFile(settings, authority).look()
    assert (tmp_path / "nats.conf").read_text() == "port: 4222\n" and reloads(tmp_path) == 0


def test_a_register_that_is_not_there(authority: Authority, settings: BusServerSettings, tmp_path: Path) -> None:
    (tmp_path / "ca/register.json").unlink()
    with pytest.raises(NotFound):
        BusServerFile(settings, authority).look()


async def test_what_goes_wrong_is_said_once_and_tried_until_it_goes(
    authority: Authority, settings: BusServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (tmp_path / "nats.conf").unlink()
        if len(waits) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("sterna.bootstrap.bus_server.asyncio.sleep", sleep)
    (tmp_path / "nats.conf").write_text("port: 4222\n")
    with capture_logs() as logs, pytest.raises(KeyboardInterrupt):
        await keep_configured(settings, authority)
    assert waits == [bus_server.AGAIN_S] * 3 + [bus_server.LOOK_S] * 2
    assert [line["log_level"] for line in logs] == ["error", "info"] and reloads(tmp_path) == 1


async def test_where_it_is_the_operators_work_nothing_is_done(authority: Authority) -> None:
    await keep_configured(BusServerSettings(), authority)
