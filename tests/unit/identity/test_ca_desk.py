"""A controller on the CA's machine is one of that CA's, under the names that clients use."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity.authority import Authority
from sterna.bootstrap.ca_desk import authority_of, names_of
from sterna.bootstrap.identity import check_own
from sterna.config import ControllerSettings, load
from sterna.config.bus import IdentitySettings
from sterna.domain.errors import BadRequest, NotFound
from sterna.domain.trust.identities import Kind
from tests.unit.adapters.identities import C1, controller


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna", "sterna.example"])


def settings(tmp_path: Path, listen: str = "", **access: object) -> ControllerSettings:
    access_section = {"ca_folder": str(tmp_path / "ca")} | access
    lines = [f'listen = "{listen}"', "[identity]", 'enrol = "sterna"', f'folder = "{tmp_path / "c1"}"', "[access]"]
    file = tmp_path / "controller.toml"
    file.write_text("\n".join([*lines, *(f"{key} = {value!r}" for key, value in access_section.items())]))
    return load(ControllerSettings, file)


def test_its_certificate_gets_the_names_that_the_settings_have(authority: Authority, tmp_path: Path) -> None:
    own = controller(authority, tmp_path / "c1", "10.0.0.1")
    settings_of_api = settings(tmp_path, "10.0.0.9:8774", names=["api.sterna.example"])
    assert own.lacks(names_of(settings_of_api)) == ("10.0.0.9", "api.sterna.example")
    assert authority_of(settings_of_api) is not None
    assert own.lacks(["10.0.0.1", "10.0.0.9", "api.sterna.example"]) == ()
    member = authority.register().find(C1)
    assert member is not None and member.number == 1, "the bus knows it as before"
    before = own.certificate_file.read_bytes()
    authority_of(settings_of_api)
    assert own.certificate_file.read_bytes() == before


def test_a_name_that_the_ca_may_not_sign_is_said(authority: Authority, tmp_path: Path) -> None:
    own = controller(authority, tmp_path / "c1", "10.0.0.1")
    before = own.certificate_file.read_bytes()
    with capture_logs() as logs:
        authority_of(settings(tmp_path, names=["sterna.other", "bus.sterna"]))
    (line,) = logs
    assert line["names"] == ["sterna.other", "bus.sterna"] and "cert_file" in line["fix"]
    assert own.certificate_file.read_bytes() == before


def test_with_another_certificate_for_people_its_own_needs_no_names(authority: Authority, tmp_path: Path) -> None:
    own = controller(authority, tmp_path / "c1", "10.0.0.1")
    authority_of(settings(tmp_path, "10.0.0.9:8774", cert_file="/etc/public.pem"))
    assert own.lacks(["10.0.0.9"]) == ("10.0.0.9",)


@pytest.mark.parametrize(
    ("listen", "names"),
    [
        ("", ()),
        ("0.0.0.0:8774", ()),
        ("[::]:8774", ()),
        ("localhost:8774", ()),
        ("[2001:db8::1]:8774", ("2001:db8::1",)),
        ("10.0.0.1:8774", ("10.0.0.1",)),
    ],
)
def test_where_it_listens_is_a_name_where_it_is_an_address(
    authority: Authority, tmp_path: Path, listen: str, names: tuple[str, ...]
) -> None:
    assert names_of(settings(tmp_path, listen)) == names


def test_a_removed_controller_does_not_enrol_itself(authority: Authority, tmp_path: Path) -> None:
    controller(authority, tmp_path / "c1", "10.0.0.1")
    authority.remove(C1)
    with pytest.raises(BadRequest, match="not a valid certificate") as caught:
        authority_of(settings(tmp_path, "10.0.0.9:8774"))
    assert "sterna ca issue controller c1" in caught.value.fix
    member = authority.register().find(C1)
    assert member is not None and not member.joined


def test_a_controller_of_another_ca(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.make(tmp_path / "stranger", ["sterna"])
    controller(stranger, tmp_path / "c1")
    controller(authority, tmp_path / "another")
    with pytest.raises(BadRequest, match="not a valid certificate of the CA in"):
        authority_of(settings(tmp_path))


def test_without_a_ca(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no CA in"):
        authority_of(settings(tmp_path))
    assert authority_of(ControllerSettings.model_construct()) is None


def test_a_ca_without_a_controller_of_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(f'[access]\nca_folder = "{tmp_path}"\n')
    with pytest.raises(BadRequest, match=r"ca_folder needs identity\.enrol"):
        load(ControllerSettings, file)


@pytest.mark.parametrize("kind", [Kind.AGENT, Kind.CONTROLLER])
def test_a_process_whose_bus_knows_nobody_says_so(kind: Kind, authority: Authority, tmp_path: Path) -> None:
    with capture_logs() as logs:
        check_own(IdentitySettings(), kind)
    (line,) = logs
    assert "INSECURE" in line["event"] and line["log_level"] == "warning" and "[identity]" in line["fix"]
    controller(authority, tmp_path / "c1")
    with capture_logs() as logs:
        check_own(IdentitySettings(enrol="sterna", folder=tmp_path / "c1"), Kind.CONTROLLER)
    assert logs == []
