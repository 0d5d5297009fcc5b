"""The packages agree with the code: units, maintainers' scripts, examples and manual pages name what it reads."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args

import pytest
import typer
from pydantic import BaseModel, TypeAdapter

import sterna.__main__  # noqa: F401 - its commands join those of the CLI
from sterna.bootstrap.enrolling.common import CA_FOLDER, OWN_FOLDER
from sterna.cli.api_address import DEFAULT_API
from sterna.cli.main import app
from sterna.config import AgentSettings, ControllerSettings, load
from sterna.domain.trust.pki import PKI
from tests.unit.example_settings import FOLDER, LEFT_OUT

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging/debian"
UNITS = sorted(path for kind in ("service", "path", "timer") for path in DEBIAN.glob(f"*.{kind}"))
SCRIPTS = [path for name in ("preinst", "postinst", "prerm", "postrm") for path in sorted(DEBIAN.glob(f"*.{name}"))]
PROCESSES: dict[str, type[AgentSettings | ControllerSettings]] = {
    "agent": AgentSettings,
    "controller": ControllerSettings,
}
_KEY = re.compile(r"^#(?=[a-z_0-9]+ = |\[\[)", re.MULTILINE)


def unit(name: str) -> dict[str, list[str]]:
    """The values of each directive."""
    found: dict[str, list[str]] = {}
    for line in (DEBIAN / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def words(found: dict[str, list[str]], key: str) -> set[str]:
    return {word.removeprefix("-") for value in found.get(key, ()) for word in value.split()}


def script(name: str) -> ModuleType:
    """A module of packaging/."""
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", ROOT / f"packaging/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The example settings


def example(name: str, *, whole: bool = False) -> str:
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return _KEY.sub("", text) if whole else text


def loaded(name: str) -> BaseModel:
    file = FOLDER / f"{name}.toml"
    return load(AgentSettings, file) if name == "agent" else load(ControllerSettings, file)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_example_is_accepted_as_it_is(name: str) -> None:
    loaded(name)


def values(given: dict[str, Any], model: type[BaseModel], place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Place, value and field of each key. Raises KeyError for one that the model does not have."""
    for key, value in given.items():
        field, inner = model.model_fields[key], f"{place}{key}"
        kind: Any = next((k for k in (field.annotation, *get_args(field.annotation)) if _is_section(k)), None)
        if kind is None:
            yield inner, value, field
        for one in () if kind is None else value if isinstance(value, list) else [value]:
            yield from values(one, kind, f"{inner}.")


def accepted(field: Any, value: Any) -> Any:
    """The value as the settings have it. Raises ValidationError."""
    return TypeAdapter(Annotated[field.annotation, "of the settings", *field.metadata]).validate_python(value)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def keys_of(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        kind = next((k for k in (field.annotation, *get_args(field.annotation)) if _is_section(k)), None)
        if place == "" and key in LEFT_OUT:
            continue
        yield from [f"{place}{key}"] if kind is None else keys_of(kind, f"{place}{key}.")


@pytest.mark.parametrize("name", PROCESSES)
def test_each_line_of_an_example_would_be_accepted(name: str) -> None:
    found = list(values(tomllib.loads(example(name, whole=True)), PROCESSES[name]))
    for _place, value, field in found:
        accepted(field, value)
    assert {place for place, _, _ in found} == set(keys_of(PROCESSES[name]))


@pytest.mark.parametrize("name", PROCESSES)
def test_a_default_in_an_example_is_the_default(name: str) -> None:
    plain = loaded(name)
    for place, value, field in values(tomllib.loads(example(name, whole=True)), PROCESSES[name]):
        if field.default is not None and not field.is_required():
            assert accepted(field, value) == _at(plain, place, field.default), place


def _at(found: Any, place: str, in_lists: Any) -> Any:
    """The value there; `in_lists` where it belongs to each item of a list."""
    for part in place.split("."):
        if isinstance(found, tuple):
            return in_lists
        found = getattr(found, part)
    return found


# The units


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_commands_that_exist(path: Path) -> None:
    for line in unit(path.name).get("ExecStart", ()):
        program, *rest = line.split()
        assert program in ("/usr/bin/sterna", "/usr/bin/systemctl")
        command: Any = typer.main.get_command(app)
        while program.endswith("sterna") and rest and rest[0] in getattr(command, "commands", ()):
            command = command.commands[rest.pop(0)]
        if program.endswith("sterna"):
            options = {name for param in command.params for name in param.opts}
            assert {word for word in rest if word.startswith("--")} <= options
            assert not hasattr(command, "commands") or command.invoke_without_command


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_reads_the_file_that_its_unit_waits_for(name: str) -> None:
    found, settings = unit(f"sterna-{name}.service"), f"/etc/sterna/{name}.toml"
    assert found["ConditionPathExists"] == [settings]
    assert found["Type"] == ["notify"]
    credential = f"{name}.toml:{settings}" in found.get("LoadCredential", ())
    config = f"${{CREDENTIALS_DIRECTORY}}/{name}.toml" if credential else settings
    assert found["ExecStart"] == [f"/usr/bin/sterna {name} --config {config}"]
    assert settings in example(name).splitlines()[0]


def test_the_agent_may_write_what_it_has_to() -> None:
    found, plain = unit("sterna-agent.service"), load(AgentSettings, FOLDER / "agent.toml")
    assert [f"/var/lib/{name}" for name in found["StateDirectory"]] == [str(plain.state_dir)]
    assert found["StateDirectoryMode"] == ["0700"]
    for place in (plain.identity.folder, Path(PKI), OWN_FOLDER):
        assert any(place.is_relative_to(folder) for folder in words(found, "ReadWritePaths"))
    # Only /usr, /boot and /etc are closed: tokens are left beside shared disks, wherever these are.
    assert found["ProtectSystem"] == ["full"] and not plain.instances_dir.is_relative_to("/usr")


def test_guests_survive_the_agent() -> None:
    found = unit("sterna-agent.service")
    assert found["KillMode"] == ["process"]
    assert not words(found, "BindsTo") | words(found, "Requires") | words(found, "PartOf")


def test_the_controller_may_write_what_it_has_to() -> None:
    found, plain = unit("sterna-controller.service"), load(ControllerSettings, FOLDER / "controller.toml")
    writable = {Path("/var/lib", name) for name in words(found, "StateDirectory")}
    writable |= {Path("/run", name) for name in words(found, "RuntimeDirectory")}
    writable |= {Path(name) for name in words(found, "ReadWritePaths")}
    shown = tomllib.loads(example("controller", whole=True))
    wanted = [
        Path(plain.database.removeprefix("sqlite:///")).parent,
        Path(plain.access.socket).parent,
        Path(DEFAULT_API.removeprefix("unix:")).parent,
        plain.identity.folder,
        OWN_FOLDER,
        CA_FOLDER,
        Path(shown["access"]["ca_folder"]),
        Path(shown["bus_server"]["config_file"]).parent,
    ]
    assert set(wanted) == writable
    watched = unit("sterna-controller.sterna-bus-reload.path")["PathChanged"]
    assert watched == [shown["bus_server"]["config_file"]]


def test_the_controllers_user_is_made_and_owns_its_folders() -> None:
    found, plain = unit("sterna-controller.service"), load(ControllerSettings, FOLDER / "controller.toml")
    (user,), groups = found["User"], found["SupplementaryGroups"]
    users = (DEBIAN / "sterna-controller.sysusers").read_text(encoding="utf-8")
    assert f"u {user} " in users and groups == [plain.access.group]
    assert f"g {plain.access.group} " in users and f"m {user} {plain.access.group}" in users
    assert found["CapabilityBoundingSet"] == [""]
    lines = (DEBIAN / "sterna-controller.tmpfiles").read_text(encoding="utf-8").splitlines()
    made = {line.split()[1]: line.split()[3].lstrip(":") for line in lines if line.startswith("d ")}
    assert set(made) >= words(found, "ReadWritePaths")
    assert set(made.values()) == {user}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_service_is_root_or_has_a_user_and_gains_nothing(name: str) -> None:
    found = unit(f"sterna-{name}.service")
    assert found["NoNewPrivileges"] == ["yes"] and found["UMask"] == ["0077"] and found["Restart"] == ["always"]
    assert ("User" in found) == (name == "controller")


# The scripts and lists of the packages


def packages() -> set[str]:
    return set(re.findall(r"^Package: (.+)$", (DEBIAN / "control").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_packages_are_those_that_are_documented() -> None:
    assert packages() == {"sterna", "sterna-agent", "sterna-controller"}
    names = {path.name.partition(".")[0] for path in DEBIAN.glob("sterna*.*")}
    assert names == packages()


def test_all_packages_have_one_version() -> None:
    _, *parts = (DEBIAN / "control").read_text(encoding="utf-8").split("\n\n")
    fields = {part.split()[1]: part for part in parts}
    for name in ("sterna-agent", "sterna-controller"):
        assert "sterna (= ${binary:Version})" in fields[name]
        # So dpkg has the old one's prerm stop the service before it replaces what the service runs from.
        assert f"{name} (<< ${{binary:Version}})" in fields["sterna"]


def test_the_lists_name_files_that_are_there() -> None:
    lists = [path for kind in ("install", "docs", "examples") for path in DEBIAN.glob(f"*.{kind}")]
    assert lists
    named = {line.split()[0] for path in lists for line in path.read_text(encoding="utf-8").splitlines()}
    ours = {name for name in named if not name.startswith(("usr/", "debian/made/"))}
    assert ours and [name for name in ours if not (ROOT / name).exists()] == []
    manual = {name for path in DEBIAN.glob("*.manpages") for name in path.read_text(encoding="utf-8").split()}
    assert {Path(name).name for name in manual} == set(script("manual").pages(ROOT / "docs/reference"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_maintainers_script_is_sound(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\nset -e\n") and "\n#DEBHELPER#\n" in text
    subprocess.run(["sh", "-n", path], check=True)
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert re.search(r"libvirt|virsh|qemu|/etc/pki|\bkill", code) is None, "no guest is ever touched"


def test_scripts_are_sound() -> None:
    for name in ("build", "environment", "extras", "test"):
        subprocess.run(["bash", "-n", ROOT / "packaging" / name], check=True)
        assert (ROOT / "packaging" / name).stat().st_mode & 0o111


def test_a_purge_removes_what_the_services_write() -> None:
    agent, plain = (DEBIAN / "sterna-agent.postrm").read_text(), load(AgentSettings, FOLDER / "agent.toml")
    for place in (plain.state_dir, plain.identity.folder, "/etc/sterna/agent.toml"):
        assert str(place) in agent
    controller, found = (DEBIAN / "sterna-controller.postrm").read_text(), unit("sterna-controller.service")
    folders = [f"/var/lib/{found['StateDirectory'][0]}", "/run/sterna", *words(found, "ReadWritePaths")]
    for place in (*folders, "/etc/sterna/controller.toml", f"userdel {found['User'][0]}", "groupdel sterna "):
        assert place in controller


def test_a_package_registry_is_not_named() -> None:
    for path in (ROOT / "packaging").rglob("*"):
        if path.is_file() and path.suffix not in (".json", ".pyc"):
            assert re.search(r"https?://(?!\w+\.example|\d|\{\{)", path.read_text(encoding="utf-8")) is None, path


# The manual pages, and the wheel


def test_the_manual_pages_have_every_command_and_key() -> None:
    found = script("manual").pages(ROOT / "docs/reference")
    headings = re.findall(r"^## (sterna.*)$", (ROOT / "docs/reference/cli.md").read_text("utf-8"), re.MULTILINE)
    for title in headings:
        assert (f"## {title}\n" in found["sterna.1"]) == (not title.startswith("sterna lab"))
    assert "## sterna agent join\n" in found["sterna-agent.8"]
    for name, model in PROCESSES.items():
        keys = {place.rpartition(".")[2] for place in keys_of(model)}
        text = found[f"sterna-{name}.toml.5"]
        assert [key for key in keys if f"`{key}` (" not in text] == []
    for text in found.values():
        assert re.search(r"^\||\]\(|<!--", text, re.MULTILINE) is None


def test_the_folders_that_the_wheel_shares_are_there() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = told["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert set(shared) == {f"packaging/{name}" for name in script("check_wheel").SHARED}
    assert all(any((ROOT / folder).iterdir()) for folder in shared)


def test_a_file_that_the_wheel_lacks_is_named(tmp_path: Path) -> None:
    source, wheel = tmp_path / "source", tmp_path / "sterna-1.whl"
    (source / "src/sterna/templates").mkdir(parents=True)
    (source / "src/sterna/templates/a.html").write_text("a")
    (source / "src/sterna/b.py").write_text("b")
    (source / "LICENSE").write_text("l")
    for folder in script("check_wheel").SHARED:
        (source / "packaging" / folder).mkdir(parents=True)
        (source / "packaging" / folder / "x.yml").write_text(folder)
    there = {"sterna/templates/a.html": "a", "sterna/b.py": "b", "sterna-1.dist-info/licenses/LICENSE": "l"}
    there |= {f"sterna-1.data/data/share/sterna/{f}/x.yml": f for f in script("check_wheel").SHARED}
    for left_out in (None, *there):
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in there.items():
                if name != left_out:
                    archive.writestr(name, text)
            archive.writestr("sterna-1.dist-info/RECORD", "")
        missing = script("check_wheel").missing(wheel, source)
        assert [left_out] if left_out is None else left_out.endswith(missing[0]), (left_out, missing)
        assert len(missing) == (0 if left_out is None else 1)
