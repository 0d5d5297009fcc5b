"""A host's own list of revoked certificates: of its own CA, never an older one, and where libvirt and QEMU look."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity import enrolled
from sterna.adapters.identity.authority import REVOKED, Authority
from sterna.adapters.identity.enrolled import EnrolledHosts
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.pki_files import PkiFiles
from sterna.adapters.identity.revoked import RevokedFile
from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.trust.pki import REVOKED_FILES
from sterna.domain.trust.revocation import RevokedList
from tests.unit.adapters.identities import HOST1, HOST2, join


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    join(authority, HOST2, tmp_path / "host2")
    return authority


@pytest.fixture
def own(authority: Authority, tmp_path: Path) -> OwnFiles:
    return join(authority, HOST1, tmp_path / "own")


@pytest.fixture
def file(own: OwnFiles, tmp_path: Path) -> RevokedFile:
    return RevokedFile(tmp_path / "own")


def listed(authority: Authority) -> RevokedList:
    found = authority.revoked_in(authority.register())
    assert found is not None
    return found


def test_while_nothing_is_revoked_nothing_is_handed_out(authority: Authority) -> None:
    assert authority.revoked_in(authority.register()) is None


def test_a_newer_list_replaces_an_older_one_and_not_the_reverse(authority: Authority, file: RevokedFile) -> None:
    authority.remove(HOST2)
    first = listed(authority)
    assert first.removed == ("host2",)
    assert file.take(first.pem) == first.number and file.path.read_text() == first.pem
    assert file.take(listed(authority).pem) == first.number
    assert file.path.read_text() == first.pem, "the same list, signed once more, is here already"
    authority.remove(HOST1)
    second = listed(authority)
    assert file.take(second.pem) == second.number > first.number
    with pytest.raises(Conflict, match="older"):
        file.take(first.pem)
    assert file.path.read_text() == second.pem


def test_the_list_in_the_folder_of_the_ca_can_be_copied_by_hand(
    authority: Authority, file: RevokedFile, tmp_path: Path
) -> None:
    authority.remove(HOST2)
    assert file.take((tmp_path / "ca" / REVOKED).read_text()) == listed(authority).number


def test_a_list_of_another_ca_is_refused(file: RevokedFile, tmp_path: Path) -> None:
    other = Authority.make(tmp_path / "other", ["sterna"])
    join(other, HOST2, tmp_path / "foreign")
    other.remove(HOST2)
    with pytest.raises(BadRequest, match="not signed"):
        file.take(listed(other).pem)
    assert not file.path.exists()


@pytest.mark.parametrize("spoilt", ["", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "\x00"])
def test_what_is_no_list_is_refused(spoilt: str, file: RevokedFile) -> None:
    with pytest.raises(BadRequest):
        file.take(spoilt)
    assert not file.path.exists()


def test_a_list_whose_content_was_changed_is_refused(authority: Authority, file: RevokedFile) -> None:
    """The longest line in the middle holds serial numbers and the signature."""
    authority.remove(HOST2)
    lines = listed(authority).pem.splitlines()
    lines[-2] = lines[-2].swapcase()
    with pytest.raises(BadRequest):
        file.take("\n".join(lines))
    assert not file.path.exists()


def test_a_damaged_list_is_replaced(authority: Authority, file: RevokedFile) -> None:
    authority.remove(HOST2)
    file.path.write_text("damaged")
    with capture_logs() as logs:
        file.take(listed(authority).pem)
    assert file.path.read_text().startswith("-----BEGIN X509 CRL-----")
    assert [line["event"] for line in logs] == ["the list of revoked certificates is replaced"]


def test_a_list_of_the_ca_before_does_not_count(authority: Authority, file: RevokedFile, tmp_path: Path) -> None:
    authority.remove(HOST2)
    file.take(listed(authority).pem)
    other = Authority.make(tmp_path / "other", ["sterna"])
    join(other, HOST2, tmp_path / "again")
    join(other, HOST1, tmp_path / "own")
    other.remove(HOST2)
    assert file.take(listed(other).pem) == listed(other).number


# ------------------------------------------------------------ libvirt's and QEMU's copies


def test_libvirt_and_qemu_get_the_list(
    authority: Authority, file: RevokedFile, own: OwnFiles, tmp_path: Path
) -> None:
    files, pki = PkiFiles(tmp_path / "own"), tmp_path / "pki"
    files.write(pki, None)
    assert not (pki / "CA/cacrl.pem").exists()
    authority.remove(HOST2)
    file.take(listed(authority).pem)
    assert files.renew() == [] and files.renew() == []
    for one in REVOKED_FILES:
        assert (pki / one.path).read_text() == file.path.read_text()
        assert (pki / one.path).stat().st_mode & 0o777 == 0o644
    authority.remove(HOST1)
    file.take(listed(authority).pem)
    assert files.renew() == []
    assert (pki / "CA/cacrl.pem").read_text() == (pki / "qemu/ca-crl.pem").read_text() == file.path.read_text()


def test_somebody_elses_list_is_left_alone(
    authority: Authority, file: RevokedFile, own: OwnFiles, tmp_path: Path
) -> None:
    files, pki = PkiFiles(tmp_path / "own"), tmp_path / "pki"
    files.write(pki, None)
    (pki / "CA/cacrl.pem").write_text("of another PKI")
    authority.remove(HOST2)
    file.take(listed(authority).pem)
    assert files.renew() == [pki / "CA/cacrl.pem"]
    assert (pki / "CA/cacrl.pem").read_text() == "of another PKI"
    assert (pki / "qemu/ca-crl.pem").read_text() == file.path.read_text()


# ------------------------------------------------------------ the controller with the CA


async def test_a_removal_is_known_with_the_next_look(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolled, "READ_EVERY_S", 0.0)
    hosts = EnrolledHosts(authority)

    async def now() -> RevokedList | None:
        hosts.known()
        while hosts._reading is not None:
            await asyncio.wait({hosts._reading}, timeout=20)
        return hosts.revoked()

    assert await now() is None
    authority.remove(HOST2)
    first = await now()
    assert first is not None and first.removed == ("host2",)
    assert await now() is first, "it is signed once"
    join(authority, HOST2, tmp_path / "again")
    again = await now()
    assert again is not None and (again.number, again.removed) == (first.number, ())
