"""`sterna support-bundle`, as typed: what is in the file, who may read it, and that no secret is."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sterna import __main__  # noqa: F401 - its commands join those of the CLI
from sterna.cli.main import app
from sterna.domain.doctor.findings import Finding, Level
from sterna.domain.errors import Permanent
from sterna.kit.command import Finished
from sterna.support import gathering
from tests.unit.cli.reading import ID
from tests.unit.cli.served import served

SECRET = "Pl4nted-s3cret"
AGENT = f"""
# an earlier password: {SECRET}
host = "a"
[migration]
address = "10.0.0.1"
[bus]
user = "agent"
password = "{SECRET}-bus"
"""
CONTROLLER = f'database = "postgresql+psycopg://sterna:{SECRET}-db@db/sterna"\n'

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Typed in a folder, on a machine with both settings and a journal."""

    async def journalctl(argv: tuple[str, ...], *, limit_s: float) -> Finished:
        unit = argv[argv.index("--unit") + 1]
        if unit == "sterna-agent":
            return Finished(0, f"joined as agent with {SECRET}-bus at nats://x:{SECRET}@y; web1 is migrating\n", "")
        raise Permanent("there is no `journalctl` on this host")

    async def examine(config: Path, peers: list[str]) -> list[Finding]:
        return [Finding(check="bus", level=Level.OK, host="a", message=f"reached as {SECRET}-bus")]

    monkeypatch.setattr(gathering, "run", journalctl)
    monkeypatch.setattr("sterna.bootstrap.doctor.examine", examine)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("STERNA_API", "http://127.0.0.1:9")
    monkeypatch.setenv("STERNA_TOKEN", f"{SECRET}-token")
    monkeypatch.setenv("STERNA_OPENSTACK__PASSWORD", f"{SECRET}-env")
    (tmp_path / "agent.toml").write_text(AGENT)
    (tmp_path / "controller.toml").write_text(CONTROLLER)

    def invoke(*words: object, code: int = 0) -> Result:
        configs = ["--config", "agent.toml", "--config", "controller.toml"]
        result = CliRunner().invoke(app, ["support-bundle", *configs, *map(str, words)])
        assert result.exit_code == code, (result.exit_code, result.output, result.exception)
        assert "Traceback" not in result.output and SECRET not in result.output
        return result

    return invoke


def content(file: Path) -> dict[str, str]:
    """Each text, by its name."""
    found = {}
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            opened = archive.extractfile(member)
            assert opened is not None and stat.S_IMODE(member.mode) == 0o600
            found[member.name.partition("/")[2]] = opened.read().decode()
    return found


def test_all_of_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as fleet:
        monkeypatch.setenv("STERNA_API", fleet.api)
        monkeypatch.setenv("STERNA_TOKEN", fleet.token)
        started = CliRunner().invoke(app, ["migrate", "web1", "--to", "b", "--watch", "--id", ID])
        assert started.exit_code == 0, started.output
        result = run("--out", "x.tar.gz", "--migration", ID[:4], "--migration", "77")
    file = tmp_path / "x.tar.gz"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = content(file)
    assert set(found) >= {
        *("README.txt", "versions.json", "environment.json", "controller.json", "hosts.json", "vms.json"),
        *("settings/agent.toml.json", "settings/controller.toml.json", "operations.json", "migrations.json"),
        *(f"migrations/{ID}.json", f"migrations/{ID}.timeline.json", "log/sterna-agent.log", "doctor.json"),
        *("queue.json", "doctor-here.json"),
    }
    assert [one["name"] for one in json.loads(found["hosts.json"])["hosts"]] == ["a", "b", "c"]
    assert json.loads(found["migrations.json"])["migrations"][0]["vm_name"] == "web1"
    assert json.loads(found["settings/agent.toml.json"])["bus"] == {"user": "agent", "password": "***"}
    assert "web1 is migrating" in found["log/sterna-agent.log"]
    assert json.loads(found["environment.json"])["set"] == [
        *("STERNA_API", "STERNA_OPENSTACK__PASSWORD", "STERNA_TOKEN"),
    ]
    missing = found["README.txt"].partition("Missing:")[2]
    assert "log of sterna-controller" in missing and "migration 77" in missing
    assert "migration 77" in result.stderr and "readable by its owner only" in result.stdout
    assert fleet.token not in "".join(found.values())


def test_no_secret_is_in_it_in_any_file(run: Run, tmp_path: Path) -> None:
    run("--out", "x.tar.gz")
    for name, text in content(tmp_path / "x.tar.gz").items():
        assert SECRET not in text, name
    raw = (tmp_path / "x.tar.gz").read_bytes()
    assert SECRET.encode() not in raw


def test_without_a_controller_the_rest_is_there(run: Run, tmp_path: Path) -> None:
    result = run("--out", "x.tar.gz", "--no-doctor", "--lines", "0", "--migration", ID)
    found = content(tmp_path / "x.tar.gz")
    assert "missing: the controller: no Sterna controller answers" in result.stderr
    assert "settings/agent.toml.json" in found and "hosts.json" not in found and "doctor-here.json" not in found
    assert not [name for name in found if name.startswith("log/")]


def test_a_settings_file_that_is_damaged_is_left_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(f'password = "{SECRET}" "')
    run("--out", "x.tar.gz", "--no-doctor", "--lines", "0")
    found = content(tmp_path / "x.tar.gz")
    assert "settings/agent.toml.json" not in found and "it is not TOML" in found["README.txt"]
    assert SECRET not in "".join(found.values())


def test_a_token_that_others_can_read_does_not_prevent_it(run: Run, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("STERNA_TOKEN")
    folder = tmp_path / "config/sterna"
    folder.mkdir(parents=True)
    (folder / "token").write_text("x")
    (folder / "token").chmod(0o644)
    assert "other users may read the token" in run("--out", "x.tar.gz", "--no-doctor").stderr


def test_a_file_that_is_there_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_text("mine")
    assert "--out" in run("--out", "x.tar.gz", "--no-doctor", code=2).stderr
    assert (tmp_path / "x.tar.gz").read_text() == "mine"
    assert "cannot be written" in run("--out", "none/x.tar.gz", "--no-doctor", code=1).stderr


def test_the_usual_name_says_where_and_when(run: Run, tmp_path: Path) -> None:
    run("--no-doctor")
    (made,) = tmp_path.glob("sterna-support-*.tar.gz")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
