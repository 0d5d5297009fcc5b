"""A host's own key and certificate: how it joins, what it refuses, and that no crash leaves half a pair."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.desk import LocalDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import fingerprint, read_certificates
from sterna.domain.errors import BadRequest, Conflict, NotFound, SternaError, Unreachable
from sterna.domain.trust.join_token import JoinToken
from sterna.domain.trust.joining import JoinAnswer
from sterna.joining import Renewal, join
from tests.unit.adapters.identities import HOST1, HOST2, Calendar, Desk, loads, request_of
from tests.unit.adapters.identities import join as joined


def fingerprint_of(pem: str) -> str:
    return fingerprint(read_certificates(pem, "it")[0])


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def authority(tmp_path: Path, calendar: Calendar) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"], calendar)


def answer_of(authority: Authority, pem: bytes) -> JoinAnswer:
    return JoinAnswer(certificate=pem.decode(), ca=authority.pem.decode())


async def test_a_host_joins_with_a_token(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    token = authority.invite(HOST1, ["127.0.0.1"])
    own, desk = OwnFiles(tmp_path / "host"), Desk(authority)
    await join(token, desk, own, calendar, fingerprint_of)
    assert own.name() == "host1"
    assert own.fingerprint() == authority.fingerprint
    loads(own)
    for path in (tmp_path / "host").rglob("*"):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_the_private_key_never_leaves_the_host(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    token = authority.invite(HOST1, [])
    own, desk = OwnFiles(tmp_path / "host"), Desk(authority)
    await join(token, desk, own, calendar, fingerprint_of)
    secret = own.key_file.read_text().splitlines()[1]
    assert secret not in repr(desk.asked)
    ca = "".join(p.read_text() for p in (tmp_path / "ca").iterdir() if p.is_file())
    assert secret not in ca


async def test_nothing_is_sent_to_another_ca(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    token = authority.invite(HOST1, [])
    stranger = Desk(Authority.make(tmp_path / "stranger", ["sterna"], calendar))
    own = OwnFiles(tmp_path / "host")
    with pytest.raises(BadRequest, match="nothing was sent"):
        await join(token, stranger, own, calendar, fingerprint_of)
    assert stranger.asked == []
    assert not own.certificate_file.exists()


async def test_a_lost_answer_is_asked_for_again(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    token = authority.invite(HOST1, [])
    own, desk = OwnFiles(tmp_path / "host"), Desk(authority)
    desk.loses_answers = True
    with pytest.raises(Unreachable):
        await join(token, desk, own, calendar, fingerprint_of)
    desk.loses_answers = False
    await join(token, desk, own, calendar, fingerprint_of)
    loads(own)


async def test_a_token_of_another_host_is_refused(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    token = authority.invite(HOST1, [])
    stolen = JoinToken(host="host2", fingerprint=token.fingerprint, secret=token.secret)
    authority.invite(HOST2, [])
    with pytest.raises(Conflict, match="not valid"):
        await join(stolen, Desk(authority), OwnFiles(tmp_path / "host"), calendar, fingerprint_of)


def test_the_same_request_until_it_is_answered(tmp_path: Path) -> None:
    own = OwnFiles(tmp_path / "host")
    first = own.request("host1")
    assert own.request("host1") == first
    assert own.request("host2") != first


def test_joining_by_files(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    token = authority.invite(HOST1, ["127.0.0.1"])
    calendar.at += timedelta(hours=2)  # an operator carries the files: the token may be older
    own = OwnFiles(tmp_path / "host")
    made = authority.sign(own.request("host1").encode(), "host1.csr")
    own.accept(answer_of(authority, made.pem), "host1", token.fingerprint, calendar())
    loads(own)
    own.accept(answer_of(authority, made.pem), "host1", token.fingerprint, calendar())  # repeated


WRONG: dict[str, Callable[[SimpleNamespace], None]] = {
    "not .* as expected": lambda w: w.own.accept(w.answer, "host1", "0" * 64, w.now),
    "not issued for host2": lambda w: w.own.accept(w.answer, "host2", w.fingerprint, w.now),
    "expired": lambda w: w.own.accept(w.answer, "host1", w.fingerprint, w.now + timedelta(days=91)),
    "not valid before": lambda w: w.own.accept(w.answer, "host1", w.fingerprint, w.now - timedelta(hours=1)),
    "another key": lambda w: w.own.accept(w.others, "host1", w.fingerprint, w.now),
    "not signed by that CA": lambda w: w.own.accept(w.strangers, "host1", w.fingerprint, w.now),
    "no certificate": lambda w: w.own.accept(w.nothing, "host1", w.fingerprint, w.now),
    "no request that waits": lambda w: w.empty.accept(w.answer, "host1", w.fingerprint, w.now),
}


@pytest.mark.parametrize("said", WRONG)
def test_an_answer_that_is_not_for_us_changes_nothing(
    said: str, authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    own, empty = OwnFiles(tmp_path / "host"), OwnFiles(tmp_path / "empty")
    (tmp_path / "empty").mkdir(mode=0o700)
    authority.invite(HOST1, [])
    good = authority.sign(own.request("host1").encode(), "host1.csr").pem
    authority.invite(HOST1, [])
    other = authority.sign(request_of("host1"), "host1.csr").pem
    stranger = Authority.make(tmp_path / "stranger", ["sterna"], calendar)
    stranger.invite(HOST1, [])
    strange = stranger.sign(own.request("host1").encode(), "host1.csr").pem
    world = SimpleNamespace(
        own=own,
        empty=empty,
        answer=answer_of(authority, good),
        others=answer_of(authority, other),
        strangers=JoinAnswer(certificate=strange.decode(), ca=authority.pem.decode()),
        nothing=JoinAnswer(certificate="", ca=authority.pem.decode()),
        fingerprint=authority.fingerprint,
        now=calendar(),
    )
    with pytest.raises(SternaError, match=said) as caught:
        WRONG[said](world)
    assert caught.value.fix
    assert not own.certificate_file.exists()
    own.accept(world.answer, "host1", authority.fingerprint, calendar())
    loads(own)


@pytest.mark.parametrize("at", ["write", "rename", "symlink"])
def test_a_crash_leaves_the_pair_in_force_whole(
    at: str, authority: Authority, tmp_path: Path, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = joined(authority, HOST1, tmp_path / "host")
    before = own.certificate_file.read_bytes()
    authority.invite(HOST1, None)
    answer = answer_of(authority, authority.sign(own.request("host1").encode(), "host1.csr").pem)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "write":
            patch.setattr(private_files, "write", dies)
        else:
            patch.setattr(Path, "rename" if at == "rename" else "symlink_to", dies)
        with pytest.raises(KeyboardInterrupt):
            own.accept(answer, "host1", authority.fingerprint, calendar())
    assert own.certificate_file.read_bytes() == before
    loads(own)
    own.accept(answer, "host1", authority.fingerprint, calendar())
    assert own.certificate_file.read_bytes() != before
    loads(own)


async def test_a_removed_host_is_not_renewed(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    own = joined(authority, HOST1, tmp_path / "host")
    authority.remove(HOST1)
    calendar.at += timedelta(days=61)
    with pytest.raises(Conflict, match="removed"):
        await Renewal(Desk(authority), own, calendar, lambda: None).look()


async def test_a_certificate_alone_is_not_enough_to_renew_it(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    """Certificates are public: the key must sign."""
    own, other = joined(authority, HOST1, tmp_path / "host"), joined(authority, HOST2, tmp_path / "other")
    forged = other.renewal().model_copy(update={"certificate": own.certificate_file.read_text()})
    with pytest.raises(BadRequest, match="not signed with the present key"):
        await LocalDesk(authority).renew(forged, "")
    for signature in ("", "AAAA", "no base64!"):
        with pytest.raises(BadRequest):
            await LocalDesk(authority).renew(own.renewal().model_copy(update={"signature": signature}), "")


async def test_a_certificate_of_another_ca_is_not_renewed(
    authority: Authority, tmp_path: Path, calendar: Calendar
) -> None:
    stranger = Authority.make(tmp_path / "stranger", ["sterna"], calendar)
    own = joined(stranger, HOST1, tmp_path / "host")
    with pytest.raises(BadRequest, match="not of this CA"):
        await LocalDesk(authority).renew(own.renewal(), "")


def test_old_pairs_are_removed_but_for_the_last(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    folder = tmp_path / "host"
    for _ in range(4):
        own = joined(authority, HOST1, folder)
    pairs = [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]
    assert len(pairs) == 2
    assert os.readlink(folder / "current") in {p.name for p in pairs}
    loads(own)


@pytest.mark.parametrize("lost", ["own.key", "own.crt", "ca.crt"])
def test_a_lost_file_says_how_to_join_anew(authority: Authority, tmp_path: Path, lost: str) -> None:
    own = joined(authority, HOST1, tmp_path / "host")
    (tmp_path / "host" / "current" / lost).unlink()
    with pytest.raises(NotFound) as caught:
        own.renewal(), own.fingerprint()
    assert "sterna agent join" in caught.value.fix


def test_a_folder_that_is_open_to_others_takes_no_key(tmp_path: Path) -> None:
    folder = tmp_path / "host"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(BadRequest, match="open to other users") as caught:
        OwnFiles(folder).request("host1")
    assert "chmod 700" in caught.value.fix
    shutil.rmtree(folder)
