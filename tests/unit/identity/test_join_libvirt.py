"""`sterna agent join --libvirt`, and what an agent does with these files after a renewal."""

from __future__ import annotations

import asyncio
import grp
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.libvirt import tls_files
from sterna.adapters.libvirt.qemu import conf
from sterna.bootstrap import pki as copies
from sterna.bootstrap.enrolling import libvirt
from sterna.bootstrap.renewal import watch_of
from sterna.config.bus import BusTls, IdentitySettings
from sterna.domain.errors import Unreachable
from sterna.domain.trust.pki import FILES, Part
from sterna.lab.host import LIBVIRTD_CONF
from tests.unit.adapters.identities import Calendar

from .commands import Run, by_files


@pytest.fixture(autouse=True)
def pki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pki"
    monkeypatch.setattr(libvirt, "PKI", folder)
    monkeypatch.setattr(libvirt, "USUAL_GROUPS", ("no-such-group", "daemon"))
    monkeypatch.setattr(libvirt, "DAEMONS", (tmp_path / "libvirtd.conf", tmp_path / "virtproxyd.conf"))
    return folder


@pytest.fixture
def joining(ca: Run, tmp_path: Path) -> list[object]:
    """A host's command, with its certificate in a file."""
    folder = tmp_path / "host1"
    token = ca("host", "add", "host1", "--address", "10.0.0.1").stdout.strip()
    ca("agent", "request", "host1", "--folder", folder, "--out", tmp_path / "csr")
    ca("ca", "sign", tmp_path / "csr", "--out", tmp_path / "crt")
    return ["agent", "join", token, "--certificate", tmp_path / "crt", "--folder", folder]


def test_the_files_are_written_where_that_is_wanted(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path
) -> None:
    ca(*joining)
    assert not pki.exists()
    said = ca(*joining, "--libvirt").stderr
    own = OwnFiles(tmp_path / "host1")
    assert (pki / "libvirt/servercert.pem").read_bytes() == own.certificate_file.read_bytes()
    key = (pki / "qemu/server-key.pem").stat()
    assert (key.st_mode & 0o777, key.st_gid) == (0o640, grp.getgrnam("daemon").gr_gid)
    assert "virt-admin server-update-tls libvirtd" in said and "replaced" not in said
    assert f"QEMU reads its certificates from {Path('/etc/pki')}" in said, "it is another folder than in this test"


def test_somebody_elses_files_keep_a_host_from_joining(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path
) -> None:
    (pki / "libvirt").mkdir(parents=True)
    (pki / "libvirt/servercert.pem").write_text("of another PKI")
    said = ca(*joining, "--libvirt", code=4).stderr
    assert "libvirt/servercert.pem; the token was not used" in said and "--overwrite" in said
    assert not (tmp_path / "host1" / "current").exists()
    said = ca(*joining, "--libvirt", "--overwrite").stderr
    assert f"replaced {pki}/libvirt/servercert.pem; the earlier file is servercert.pem.before-sterna" in said
    assert (pki / "libvirt/servercert.pem.before-sterna").read_text() == "of another PKI"


def test_a_group_that_is_none_is_said_before_anything_is_done(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path
) -> None:
    said = ca(*joining, "--libvirt", "--qemu-group", "no-such-group", code=2).stderr
    assert "there is no group 'no-such-group'" in said
    assert not (tmp_path / "host1" / "current").exists() and not pki.exists()


def test_the_group_is_the_one_that_qemu_runs_with(
    ca: Run, joining: list[object], pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conf.settings_of, "__defaults__", (tmp_path / "qemu.conf",))
    (tmp_path / "qemu.conf").write_text('group = "+4711"\n')
    assert libvirt.group_id(None) == 4711
    (tmp_path / "qemu.conf").write_text("")
    assert libvirt.group_id("+0") == 0
    monkeypatch.setattr(libvirt, "USUAL_GROUPS", ("no-such-group",))
    said = ca(*joining, "--libvirt").stderr
    assert "only root" in said and (pki / "qemu/server-key.pem").stat().st_mode & 0o777 == 0o600


def test_a_libvirtd_that_lets_in_more_than_hosts_is_named(ca: Run, joining: list[object], tmp_path: Path) -> None:
    setting = 'tls_allowed_dn_list = ["O=Sterna,OU=agents,CN=*"]'
    file = tmp_path / "libvirtd.conf"
    assert "accepts every certificate" not in ca(*joining, "--libvirt").stderr, "there is no libvirtd"
    file.write_text('# tls_allowed_dn_list = ["DN1"]\nlisten_tls = 1\n')
    said = ca(*joining, "--libvirt").stderr
    assert f"{file} accepts every certificate of the CA" in said and setting in said and "virtproxyd" not in said
    file.write_text(f"listen_tls = 1\n{setting}\n")
    assert "accepts every certificate" not in ca(*joining, "--libvirt").stderr


def test_a_labs_libvirtd_lets_in_hosts_alone() -> None:
    assert libvirt.SETTING in LIBVIRTD_CONF


# ------------------------------------------------------------ after a renewal


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a `virt-admin` of this test was told, line by line; one daemon runs."""
    written, program = tmp_path / "told", tmp_path / "bin" / "virt-admin"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {written}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "admin").touch()
    monkeypatch.setattr(tls_files, "ADMIN", {"libvirtd": str(tmp_path / "admin"), "virtproxyd": "/proc/none"})
    return written


def renew(ca: Run, tmp_path: Path) -> OwnFiles:
    return by_files(ca, "host1", tmp_path / "host1", "10.0.0.1")


def test_the_copies_are_renewed_and_libvirtd_reads_them(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path, told: Path
) -> None:
    ca(*joining, "--libvirt")
    own = renew(ca, tmp_path)
    assert (pki / "qemu/server-cert.pem").read_bytes() != own.certificate_file.read_bytes()
    with capture_logs() as logs:
        copies.renew_copies(tmp_path / "host1")
    assert logs == [] and (pki / "qemu/server-cert.pem").read_bytes() == own.certificate_file.read_bytes()
    assert told.read_text() == "--connect libvirtd:///system server-update-tls libvirtd\n"


def test_without_copies_libvirtd_is_told_nothing(
    ca: Run, joining: list[object], tmp_path: Path, told: Path
) -> None:
    ca(*joining)
    copies.renew_copies(tmp_path / "host1")
    assert not told.exists()


def test_what_could_not_be_renewed_is_said(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path, told: Path
) -> None:
    ca(*joining, "--libvirt")
    renew(ca, tmp_path)
    (pki / "qemu/ca-cert.pem").write_text("of another PKI")
    (tmp_path / "bin" / "virt-admin").write_text("#!/bin/sh\necho no such server >&2\nexit 1\n")
    with capture_logs() as logs, pytest.raises(Unreachable) as late:
        copies.renew_copies(tmp_path / "host1")
    (left,) = logs
    assert left["file"] == str(pki / "qemu/ca-cert.pem") and "--overwrite" in left["fix"]
    assert "libvirtd: no such server" in late.value.message and "restart" in late.value.fix


def test_a_libvirtd_that_hangs_is_told_again(
    ca: Run, joining: list[object], tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is killed; what it was asked may have been done."""
    ca(*joining, "--libvirt")
    own, program = renew(ca, tmp_path), tmp_path / "bin" / "virt-admin"
    right = program.read_text()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(tls_files, "_LIMIT_S", 0.2)
    for _ in range(2):
        with pytest.raises(Unreachable, match=r"libvirtd: .*timed out") as late:
            copies.renew_copies(tmp_path / "host1")
        assert "restart" in late.value.fix
    assert (tmp_path / "pki/qemu/server-cert.pem").read_bytes() == own.certificate_file.read_bytes()
    program.write_text(right)
    monkeypatch.setattr(tls_files, "_LIMIT_S", 5.0)
    copies.renew_copies(tmp_path / "host1")
    assert told.read_text() == "--connect libvirtd:///system server-update-tls libvirtd\n"


def test_a_host_without_virt_admin(
    ca: Run, joining: list[object], tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca(*joining, "--libvirt")
    (tmp_path / "bin" / "virt-admin").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(Unreachable, match="No such file") as late:
        copies.renew_copies(tmp_path / "host1")
    assert "restart" in late.value.fix


def test_a_libvirtd_without_tls_has_nothing_to_read(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path, told: Path
) -> None:
    """QEMU's streams may be encrypted where libvirtd listens for no TLS."""
    ca(*joining, "--libvirt")
    own = renew(ca, tmp_path)
    said = "error: internal error: no tls service found, unable to update tls files"
    (tmp_path / "bin" / "virt-admin").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    copies.renew_copies(tmp_path / "host1")
    assert (pki / "qemu/server-cert.pem").read_bytes() == own.certificate_file.read_bytes()


def test_copies_that_a_killed_agent_left_behind_are_written_when_it_starts_again(
    ca: Run, joining: list[object], tmp_path: Path, pki: Path, told: Path
) -> None:
    """Killed between a new key and its certificate: nobody could begin a stream with these for two months."""
    ca(*joining, "--libvirt")
    own = renew(ca, tmp_path)
    (pki / "qemu/server-key.pem").write_bytes(own.key_file.read_bytes())

    class Stopped(Exception):
        """The clock's."""

    class Clock(Calendar):
        async def sleep(self, seconds: float) -> None:
            raise Stopped

    identity = IdentitySettings(enrol="sterna", folder=tmp_path / "host1", server="https://127.0.0.1:1")
    watch = watch_of(identity, BusTls(), Clock(), lambda: copies.renew_copies(tmp_path / "host1"))
    assert watch is not None
    with pytest.raises(Stopped):
        asyncio.run(watch.run())
    for file in FILES:
        own_files = {Part.CA: own.ca_file, Part.CERTIFICATE: own.certificate_file, Part.KEY: own.key_file}
        if (source := own_files.get(file.part)) is not None:
            assert (pki / file.path).read_bytes() == source.read_bytes(), file.path
    assert "server-update-tls" in told.read_text()
