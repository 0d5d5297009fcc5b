"""An agent has a list of revoked certificates: libvirtd reads it, and removed hosts lose their connections."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.pki_files import PkiFiles
from sterna.adapters.libvirt import tls_files
from sterna.bootstrap.pki import RevokedForLibvirt
from sterna.domain.errors import Conflict, Temporary
from sterna.domain.trust.revocation import RevokedList
from tests.unit.adapters.identities import HOST1, HOST2, join

CLIENTS = {
    "1": ("unix", ""),
    "2": ("tls", "O=Sterna,OU=agents,CN=host2"),
    "3": ("tls", "O=Sterna,OU=agents,CN=host22"),
    "4": ("tls", "O=Sterna,OU=agents,CN=host2"),
    "5": ("tls", ""),
}
VIRT_ADMIN = """\
#!/bin/sh
echo "$@" >> {told}
case "$3" in
client-list) printf ' Id   Transport   Connected since\\n-----\\n'; cat {clients} ;;
client-info) [ "$5" != 5 ] || {{ echo 'error: Client not found' >&2; exit 1; }}
  printf 'id             : %s\\nreadonly       : no\\n' "$5"; cat {folder}/$5 ;;
esac
"""
Words = Callable[[], list[str]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    join(authority, HOST1, tmp_path / "host1")
    join(authority, HOST2, tmp_path / "host2")
    return authority


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    """What a `virt-admin` of this test was asked since the last question; one daemon runs."""
    folder, told = tmp_path / "bin", tmp_path / "told"
    folder.mkdir()
    for number, (_, name) in CLIENTS.items():
        (folder / number).write_text(f"tls_x509_dname : {name}\n" if name else "sock_addr      : 10.0.0.1:1\n")
    (folder / "clients").write_text(
        "".join(f" {n}    {kind}   2026-11-30 12:12:41\n" for n, (kind, _) in CLIENTS.items())
    )
    program = folder / "virt-admin"
    program.write_text(VIRT_ADMIN.format(told=told, clients=folder / "clients", folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "admin").touch()
    monkeypatch.setattr(tls_files, "ADMIN", {"libvirtd": str(tmp_path / "admin"), "virtproxyd": "/proc/none"})

    def asked() -> list[str]:
        found = told.read_text().splitlines() if told.exists() else []
        told.unlink(missing_ok=True)
        return [line.removeprefix("--connect libvirtd:///system ") for line in found]

    return asked


def without_host2(authority: Authority) -> RevokedList:
    authority.remove(HOST2)
    given = authority.revoked_in(authority.register())
    assert given is not None
    return given


async def test_libvirtd_reads_the_list_before_connections_are_closed(
    authority: Authority, words: Words, tmp_path: Path
) -> None:
    PkiFiles(tmp_path / "host1").write(tmp_path / "pki", None)
    given = without_host2(authority)
    assert await RevokedForLibvirt(tmp_path / "host1").take(given) == given.number
    assert (tmp_path / "pki/CA/cacrl.pem").read_text() == given.pem
    asked = words()
    assert asked[0] == "server-update-tls libvirtd"
    assert [one for one in asked if "disconnect" in one] == [f"client-disconnect libvirtd {n}" for n in (2, 4)]


async def test_without_copies_the_list_is_kept_and_libvirtd_left_alone(
    authority: Authority, words: Words, tmp_path: Path
) -> None:
    given = without_host2(authority)
    assert await RevokedForLibvirt(tmp_path / "host1").take(given) == given.number
    assert (tmp_path / "host1/revoked.crl").read_text() == given.pem and words() == []


COMMANDS = ("server-update-tls", "client-list", "client-info", "client-disconnect")


def spoil(tmp_path: Path, what: str, how: str) -> Callable[[], object]:
    """`virt-admin` does this, where it is asked that; what it does otherwise can be put back."""
    program = tmp_path / "bin/virt-admin"
    right = program.read_text()
    program.write_text(right.replace('case "$3" in', f'[ {what} ] || {{ {how}; }}\ncase "$3" in'))
    return lambda: program.write_text(right)


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_what_libvirtd_did_not_take_is_tried_again(
    what: str, how: str, authority: Authority, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that does not come closes no connection: what has not been looked at may be a removed host's."""
    PkiFiles(tmp_path / "host1").write(tmp_path / "pki", None)
    given, here = without_host2(authority), RevokedForLibvirt(tmp_path / "host1")
    with monkeypatch.context() as short:
        short.setattr(tls_files, "_LIMIT_S", 0.1 if how == "hangs" else 5.0)
        mend = spoil(tmp_path, f'"$3" != {what}', "exec sleep 60" if how == "hangs" else "echo no >&2; exit 1")
        with pytest.raises(Temporary, match="libvirtd: " + ("no" if how == "refuses" else ".*timed out")):
            await here.take(given)
        mend()
    words()
    assert await here.take(given) == given.number
    assert "client-disconnect libvirtd 4" in words()


@pytest.mark.parametrize("what", ["client-info", "client-disconnect"])
async def test_a_connection_without_an_answer_keeps_no_other_one_open(
    what: str, authority: Authority, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PkiFiles(tmp_path / "host1").write(tmp_path / "pki", None)
    monkeypatch.setattr(tls_files, "_LIMIT_S", 1.0)
    spoil(tmp_path, f'"$3 $5" != "{what} 2"', "exec sleep 60")
    with pytest.raises(Temporary, match=f"{what}.*timed out"):
        await RevokedForLibvirt(tmp_path / "host1").take(without_host2(authority))
    assert "client-disconnect libvirtd 4" in words()


async def test_connections_without_an_answer_are_not_asked_about_without_end(
    authority: Authority, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PkiFiles(tmp_path / "host1").write(tmp_path / "pki", None)
    monkeypatch.setattr(tls_files, "_CLOSING_S", 0.0)
    with pytest.raises(Temporary, match="not all of 4 connections"):
        await RevokedForLibvirt(tmp_path / "host1").take(without_host2(authority))
    assert not [one for one in words() if "client-info" in one]


async def test_a_host_whose_libvirtd_does_not_run_is_done(
    authority: Authority, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the list when it starts."""
    PkiFiles(tmp_path / "host1").write(tmp_path / "pki", None)
    monkeypatch.setattr(tls_files, "ADMIN", {"libvirtd": "/proc/none"})
    given = without_host2(authority)
    assert await RevokedForLibvirt(tmp_path / "host1").take(given) == given.number and words() == []


async def test_an_older_list_changes_nothing(authority: Authority, words: Words, tmp_path: Path) -> None:
    PkiFiles(tmp_path / "host1").write(tmp_path / "pki", None)
    older, here = without_host2(authority), RevokedForLibvirt(tmp_path / "host1")
    join(authority, HOST2, tmp_path / "again")
    newer = without_host2(authority)
    await here.take(newer)
    words()
    with pytest.raises(Conflict):
        await here.take(older)
    assert (tmp_path / "pki/CA/cacrl.pem").read_text() == newer.pem and words() == []
