"""libvirt's and QEMU's files: the right copies with the right modes, and nothing of somebody else's is lost."""

from __future__ import annotations

import os
import stat
from base64 import b64decode
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from math import factorial
from pathlib import Path

import pytest

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.pki_files import PkiFiles
from sterna.adapters.libvirt.qemu.certificates import Certificates
from sterna.domain.errors import BadRequest, Conflict
from sterna.domain.trust.joining import JoinAnswer
from sterna.domain.trust.pki import DH_PARAMETERS, FILES, Part
from tests.unit.adapters.identities import HOST1, join

GROUP = 4711


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"])


@pytest.fixture
def own(authority: Authority, tmp_path: Path) -> OwnFiles:
    return join(authority, HOST1, tmp_path / "own")


@pytest.fixture
def files(own: OwnFiles, tmp_path: Path) -> PkiFiles:
    return PkiFiles(tmp_path / "own")


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    return tmp_path / "pki"


def renewed(authority: Authority, own: OwnFiles) -> None:
    """It has another certificate and another key."""
    present = own.renewal()
    serial = f"{int(own_serial(own), 16):x}"
    made = authority.renew(serial, present.request)
    answer = JoinAnswer(certificate=made.pem.decode(), ca=authority.pem.decode())
    begin, _ = own.validity()
    own.accept(answer, "host1", authority.fingerprint, begin + timedelta(minutes=6))


def own_serial(own: OwnFiles) -> str:
    return own.certificate_file.parent.resolve().name


def content(own: OwnFiles, part: Part) -> bytes:
    if part is Part.DH:
        return DH_PARAMETERS.encode()
    path = {Part.CA: own.ca_file, Part.CERTIFICATE: own.certificate_file, Part.KEY: own.key_file}[part]
    return path.read_bytes()


def shown(path: Path) -> tuple[str, int]:
    found = path.lstat()
    return oct(stat.S_IMODE(found.st_mode)), found.st_gid


def test_all_of_them_are_copies_with_their_modes(files: PkiFiles, own: OwnFiles, pki: Path) -> None:
    assert not files.wanted
    assert files.write(pki, GROUP) == []
    for file in FILES:
        assert (pki / file.path).read_bytes() == content(own, file.part), file.path
    assert shown(pki / "CA/cacert.pem") == ("0o644", 0)
    assert shown(pki / "libvirt/servercert.pem") == shown(pki / "qemu/client-cert.pem") == ("0o644", 0)
    assert (
        shown(pki / "libvirt/private/serverkey.pem") == shown(pki / "libvirt/private/clientkey.pem") == ("0o600", 0)
    )
    assert shown(pki / "qemu/server-key.pem") == shown(pki / "qemu/client-key.pem") == ("0o640", GROUP)
    modes = {name: shown(pki / name)[0] for name in ("CA", "libvirt", "libvirt/private", "qemu")}
    assert modes == {"CA": "0o755", "libvirt": "0o755", "libvirt/private": "0o700", "qemu": "0o755"}
    assert Certificates(folder=pki / "qemu", verify=True).missing == ()
    assert files.wanted and files.foreign(pki) == []


def test_without_a_group_no_key_is_anybody_elses(files: PkiFiles, pki: Path) -> None:
    old = os.umask(0)
    try:
        files.write(pki, None)
    finally:
        os.umask(old)
    keys = [shown(pki / file.path)[0] for file in FILES if file.part is Part.KEY]
    assert keys == ["0o600"] * 4


def test_a_key_is_nobody_elses_at_any_moment(files: PkiFiles, pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()
    usual = os.fchmod

    def fchmod(fd: int, mode: int) -> None:
        seen.append(oct(stat.S_IMODE(os.fstat(fd).st_mode)))
        usual(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    files.write(pki, GROUP)
    assert len(seen) == len(FILES) + 1 and set(seen) == {"0o600"}


def test_files_of_somebody_elses_are_not_replaced_unasked(files: PkiFiles, own: OwnFiles, pki: Path) -> None:
    (pki / "CA").mkdir(parents=True)
    (pki / "CA/cacert.pem").write_text("of another PKI")
    with pytest.raises(Conflict, match=r"CA/cacert\.pem") as caught:
        files.write(pki, None)
    assert "--overwrite" in caught.value.fix
    assert [path.name for path in pki.rglob("*")] == ["CA", "cacert.pem"] and not files.wanted
    assert files.write(pki, None, replace=True) == [pki / "CA/cacert.pem"]
    assert (pki / "CA/cacert.pem").read_bytes() == content(own, Part.CA)
    assert (pki / "CA/cacert.pem.before-sterna").read_text() == "of another PKI"


def test_dh_parameters_of_the_site_are_as_good_as_ours(
    files: PkiFiles, own: OwnFiles, authority: Authority, pki: Path
) -> None:
    (pki / "qemu").mkdir(parents=True)
    (pki / "qemu/dh-params.pem").write_text("the site's own")
    assert files.foreign(pki) == [] and files.write(pki, None) == []
    renewed(authority, own)
    assert files.renew() == []
    assert (pki / "qemu/dh-params.pem").read_text() == "the site's own"
    assert (pki / "qemu/server-key.pem").read_bytes() == content(own, Part.KEY)


def test_a_host_that_joined_before_there_were_dh_parameters_gets_them(files: PkiFiles, pki: Path) -> None:
    files.write(pki, None)
    (pki / "qemu/dh-params.pem").unlink()
    assert files.renew() == []
    assert (pki / "qemu/dh-params.pem").read_text() == DH_PARAMETERS


def test_the_dh_parameters_are_the_group_ffdhe3072() -> None:
    # RFC 7919, section 3 and appendix A.2: p = 2^b - 2^(b-64) + {[2^(b-130) e] + X} * 2^64 - 1
    e = Fraction(sum(Fraction(1, factorial(n)) for n in range(900)))
    p = 2**3072 - 2**3008 + (int(e * 2**2942) + 2625351) * 2**64 - 1
    integers = b"\x02\x82\x01\x81" + p.to_bytes(385, "big") + b"\x02\x01\x02"  # PKCS #3: p, then g
    body = "".join(DH_PARAMETERS.splitlines()[1:-1])
    assert b64decode(body) == b"\x30\x82" + len(integers).to_bytes(2, "big") + integers


def test_what_was_kept_is_not_lost_by_a_second_time(files: PkiFiles, pki: Path) -> None:
    (pki / "qemu").mkdir(parents=True)
    (pki / "qemu/server-key.pem").write_text("second")
    (pki / "qemu/server-key.pem.before-sterna").write_text("first")
    with pytest.raises(Conflict, match="kept before"):
        files.write(pki, None, replace=True)
    assert (pki / "qemu/server-key.pem.before-sterna").read_text() == "first"
    assert (pki / "qemu/server-key.pem").read_text() == "second"


def test_after_a_renewal_they_are_the_new_ones(
    files: PkiFiles, own: OwnFiles, authority: Authority, pki: Path
) -> None:
    files.write(pki, GROUP)
    before = (pki / "qemu/server-key.pem").read_bytes()
    renewed(authority, own)
    assert files.renew() == []
    assert (pki / "qemu/server-key.pem").read_bytes() == content(own, Part.KEY) != before
    assert shown(pki / "qemu/server-key.pem") == ("0o640", GROUP)
    renewed(authority, own)
    assert files.renew() == [], "what it has written again is its own, too"


def test_a_file_that_somebody_has_changed_since_is_left_alone(
    files: PkiFiles, own: OwnFiles, authority: Authority, pki: Path
) -> None:
    files.write(pki, None)
    (pki / "libvirt/servercert.pem").write_text("of another PKI")
    renewed(authority, own)
    assert files.renew() == [pki / "libvirt/servercert.pem"]
    assert (pki / "libvirt/servercert.pem").read_text() == "of another PKI"
    assert (pki / "qemu/server-cert.pem").read_bytes() == content(own, Part.CERTIFICATE)
    renewed(authority, own)
    assert files.renew() == [pki / "libvirt/servercert.pem"], "it does not become one of its own"


@pytest.mark.parametrize("written", range(len(FILES) + 1))
def test_one_that_was_interrupted_is_finished_by_the_next(
    written: int, files: PkiFiles, own: OwnFiles, authority: Authority, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(pki, None)
    renewed(authority, own)
    usual, left = private_files.write, [written]

    def dies(*args: object, **more: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        usual(*args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(private_files, "write", dies)
        files.renew()
        raise KeyboardInterrupt
    assert files.renew() == []
    for file in FILES:
        assert (pki / file.path).read_bytes() == content(own, file.part), file.path


def test_without_copies_a_renewal_writes_none(files: PkiFiles, pki: Path) -> None:
    assert files.renew() == [] and not pki.exists()


# ------------------------------------------------------------ folders that lead elsewhere


def leads_elsewhere(pki: Path, elsewhere: Path) -> None:
    pki.mkdir()
    (pki / "qemu").symlink_to(elsewhere, target_is_directory=True)


def is_a_link_itself(pki: Path, elsewhere: Path) -> None:
    pki.symlink_to(elsewhere, target_is_directory=True)


def has_a_file_that_leads_elsewhere(pki: Path, elsewhere: Path) -> None:
    (pki / "qemu").mkdir(parents=True)
    (pki / "qemu/server-key.pem").symlink_to(elsewhere / "key")


def is_anybodys(pki: Path, elsewhere: Path) -> None:
    pki.mkdir()
    pki.chmod(0o777)


def is_anothers(pki: Path, elsewhere: Path) -> None:
    (pki / "libvirt").mkdir(parents=True)
    os.chown(pki / "libvirt", 65534, 65534)


def has_a_file_for_a_folder(pki: Path, elsewhere: Path) -> None:
    pki.mkdir()
    (pki / "CA").write_text("")


@pytest.mark.parametrize(
    "wrong",
    [
        leads_elsewhere,
        is_a_link_itself,
        has_a_file_that_leads_elsewhere,
        is_anybodys,
        is_anothers,
        has_a_file_for_a_folder,
    ],
)
def test_a_key_is_written_to_no_place_that_others_can_choose(
    wrong: Callable[[Path, Path], None], files: PkiFiles, pki: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    wrong(pki, elsewhere)
    with pytest.raises(BadRequest) as caught:
        files.write(pki, None, replace=True)
    assert caught.value.fix and list(elsewhere.iterdir()) == [] and not files.wanted
