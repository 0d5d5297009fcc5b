"""A CA in a folder: what it signs and for whom, its files, and what OpenSSL says of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import CERTIFICATE, KEY, REGISTER, REVOKED, Authority
from sterna.adapters.identity.x509 import (
    key_pem,
    new_ca,
    new_key,
    new_request,
    pem_of,
    seen,
    signed,
)
from sterna.domain.errors import BadRequest, Conflict, NotFound, SternaError
from sterna.domain.trust.certificates import Wanted
from sterna.domain.trust.enrolment import on_the_bus
from sterna.domain.trust.identities import Identity, Kind
from tests.unit.adapters.identities import HOST1, Calendar, issue, request_of

CONTROLLER = Identity(kind=Kind.CONTROLLER, name="c1")


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def authority(tmp_path: Path, calendar: Calendar) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna", "example.org"], calendar)


def openssl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def verified(ca: Path, certificate: bytes, *more: object) -> str:
    """What OpenSSL says of a certificate: '' where it is good."""
    file = ca.parent / "look.crt"
    file.write_bytes(certificate)
    done = openssl("verify", "-x509_strict", "-CAfile", ca / CERTIFICATE, *more, file)
    return "" if done.returncode == 0 else done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_files_of_a_ca_are_its_owners_alone(authority: Authority, tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    assert (mode(ca), mode(ca / KEY), mode(ca / REGISTER)) == (0o700, 0o600, 0o600)
    assert [p.name for p in ca.iterdir() if p.name.endswith(".new")] == []


def test_a_ca_can_make_no_other_ca_and_signs_our_names_only(authority: Authority, tmp_path: Path) -> None:
    basic = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    limits = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0
    assert limits.critical
    assert limits.value.permitted_subtrees == [x509.DNSName("sterna"), x509.DNSName("example.org")]


def test_openssl_refuses_another_name_even_with_the_cas_key(tmp_path: Path, calendar: Calendar) -> None:
    """The key may be stolen, and the CA may be in the system's list."""
    key = new_key()
    ca = new_ca(key, ["sterna"], calendar())
    (tmp_path / CERTIFICATE).write_bytes(pem_of(ca))
    end = calendar() + timedelta(days=1)

    def certificate(name: str) -> bytes:
        wanted = Wanted(
            common_name="a", unit="agents", dns_names=(name,), ip_addresses=(), not_before=calendar(), not_after=end
        )
        return pem_of(signed(wanted, new_key().public_key(), ca, key))

    folder = tmp_path / "x"
    folder.mkdir()
    (folder / CERTIFICATE).write_bytes(pem_of(ca))
    assert verified(folder, certificate("a.agents.sterna")) == ""
    assert "permitted subtree violation" in verified(folder, certificate("www.example.com"))


def test_a_second_ca_is_not_made_over_the_first(authority: Authority, tmp_path: Path) -> None:
    key = (tmp_path / "ca" / KEY).read_bytes()
    with pytest.raises(Conflict, match=r"a CA in .* already"):
        Authority.make(tmp_path / "ca", ["sterna"])
    assert (tmp_path / "ca" / KEY).read_bytes() == key
    (tmp_path / "ca" / KEY).unlink()
    with pytest.raises(Conflict, match="not its key"):
        Authority.make(tmp_path / "ca", ["sterna"])


def test_a_host_gets_what_it_was_enrolled_with_whatever_it_asks_for(authority: Authority, tmp_path: Path) -> None:
    token = authority.invite(HOST1, ["10.0.0.1", "h1.example.org"])
    names = x509.SubjectAlternativeName([x509.DNSName("bus.sterna"), x509.DNSName("c1.controllers.sterna")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "c1")])
    greedy = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    request = greedy.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = authority.redeem(token.host, token.secret, pem_of(request.sign(new_key(), hashes.SHA256())).decode())
    found = seen(made.certificate)
    assert found.dns_names == ("host1.agents.sterna", "e1.host1.agents.sterna", "h1.example.org")
    assert found.ip_addresses == ("10.0.0.1",)
    assert (found.client, found.server, found.is_ca) == (True, True, False)
    ca = tmp_path / "ca"
    for purpose in ("sslclient", "sslserver"):
        assert verified(ca, made.pem, "-purpose", purpose) == ""


def test_a_certificate_does_not_outlive_its_ca(authority: Authority, calendar: Calendar) -> None:
    calendar.at += timedelta(days=3600)
    made = authority.issue(CONTROLLER, [], request_of("c1"))
    assert made.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_a_token_is_kept_as_a_hash_only(authority: Authority, tmp_path: Path) -> None:
    token = authority.invite(HOST1, [])
    kept = (tmp_path / "ca" / REGISTER).read_text()
    assert token.secret not in kept
    assert token.fingerprint == authority.fingerprint


def test_a_token_is_used_once(authority: Authority) -> None:
    token = authority.invite(HOST1, [])
    request = request_of("host1").decode()
    authority.redeem(token.host, token.secret, request)
    authority.redeem(token.host, token.secret, request)  # its answer was lost
    with pytest.raises(Conflict, match="used already"):
        authority.redeem(token.host, token.secret, request_of("host1").decode())


@pytest.mark.parametrize("late", [True, False])
def test_a_token_expires(authority: Authority, calendar: Calendar, late: bool) -> None:
    token = authority.invite(HOST1, [])
    calendar.at += timedelta(minutes=15 if late else 14)
    if late:
        with pytest.raises(Conflict, match="expired"):
            authority.redeem(token.host, token.secret, request_of("host1").decode())
    else:
        authority.redeem(token.host, token.secret, request_of("host1").decode())


def test_two_hosts_with_one_token_at_the_same_moment(authority: Authority) -> None:
    token = authority.invite(HOST1, [])
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(authority.redeem(token.host, token.secret, request_of("host1").decode()))
        except Conflict as refused:
            answers.append(refused)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(isinstance(a, Conflict) for a in answers) == [False, True, True, True]


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"nonsense",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        b"x" * 2**21,
    ],
)
def test_what_is_no_request(authority: Authority, request_: bytes) -> None:
    authority.invite(HOST1, [])
    with pytest.raises(BadRequest) as caught:
        authority.sign(request_, "host1.csr")
    assert caught.value.fix


def test_a_request_that_its_own_key_did_not_sign(authority: Authority) -> None:
    """Somebody else's public key, to get a certificate for it."""
    request = new_request(new_key(), "host1")
    der = request.public_bytes(Encoding.DER)
    damaged = der[:-1] + bytes([der[-1] ^ 1])
    text = pem_of(x509.load_der_x509_csr(damaged))
    authority.invite(HOST1, [])
    with pytest.raises(BadRequest, match="its own key"):
        authority.sign(text, "host1.csr")


def test_a_request_in_a_file_is_signed_for_who_was_enrolled(authority: Authority) -> None:
    with pytest.raises(NotFound, match="not enrolled"):
        authority.sign(request_of("host1"), "host1.csr")
    authority.invite(HOST1, ["10.0.0.1"])
    assert authority.sign(request_of("host1"), "host1.csr").who == HOST1
    with pytest.raises(Conflict, match="joined already"):
        authority.sign(request_of("host1"), "host1.csr")


def test_a_removed_host_is_in_the_list_that_openssl_reads(authority: Authority, tmp_path: Path) -> None:
    authority.invite(HOST1, [])
    made = authority.sign(request_of("host1"), "host1.csr")
    other = authority.issue(CONTROLLER, [], request_of("c1"))
    ca = tmp_path / "ca"
    checks = ("-crl_check", "-CRLfile", ca / REVOKED)
    assert verified(ca, made.pem, *checks) == ""
    authority.remove(HOST1)
    assert "certificate revoked" in verified(ca, made.pem, *checks)
    assert verified(ca, other.pem, *checks) == ""
    assert [user for _, user in on_the_bus(authority.register())] == ["e1.c1.controllers.sterna"]


def test_a_controller_that_asks_again_stays_the_same_user(authority: Authority, tmp_path: Path) -> None:
    issue(authority, CONTROLLER, tmp_path)
    issue(authority, CONTROLLER, tmp_path)
    assert [user for _, user in on_the_bus(authority.register())] == ["e1.c1.controllers.sterna"]
    authority.remove(CONTROLLER)
    issue(authority, CONTROLLER, tmp_path)
    assert [user for _, user in on_the_bus(authority.register())] == ["e2.c1.controllers.sterna"]


def test_a_ca_is_opened_again(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    authority.invite(HOST1, [])
    again = Authority.open(tmp_path / "ca", calendar)
    assert again.fingerprint == authority.fingerprint
    assert again.register() == authority.register()


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (KEY, None, "there is no"),
        (KEY, b"x", "no private key"),
        (CERTIFICATE, None, "there is no"),
        (CERTIFICATE, b"x", "no certificate"),
        (REGISTER, None, "there is no"),
        (REGISTER, b"{", "damaged"),
        (REGISTER, json.dumps({"v": 2, "members": []}).encode(), "newer"),
    ],
)
def test_a_damaged_ca_says_what_is_wrong(
    authority: Authority, tmp_path: Path, name: str, damage: bytes | None, said: str
) -> None:
    path = tmp_path / "ca" / name
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(SternaError, match=said) as caught:
        Authority.open(tmp_path / "ca").register()
    assert caught.value.fix


def test_the_key_of_another_ca_is_noticed(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca" / KEY).write_bytes(key_pem(new_key()))
    with pytest.raises(BadRequest, match="not that of the certificate"):
        Authority.open(tmp_path / "ca")


def test_no_ca_and_an_expired_one(authority: Authority, tmp_path: Path, calendar: Calendar) -> None:
    with pytest.raises(NotFound) as caught:
        Authority.open(tmp_path / "none")
    assert "sterna ca init" in caught.value.fix
    calendar.at += timedelta(days=3651)
    with pytest.raises(BadRequest, match="expired"):
        Authority.open(tmp_path / "ca", calendar)


@pytest.mark.parametrize("what", ["folder", "key"])
def test_secrets_that_others_may_read_are_refused(authority: Authority, tmp_path: Path, what: str) -> None:
    path = tmp_path / "ca" / (KEY if what == "key" else "")
    path.chmod(0o750 if what == "folder" else 0o640)
    with pytest.raises(BadRequest, match="other users") as caught:
        Authority.open(tmp_path / "ca")
    assert "chmod" in caught.value.fix


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    private_files.write(path, b"before")
    with pytest.raises(BadRequest, match="cannot be used"):
        private_files.write(tmp_path / "none" / "file", b"after")
    (tmp_path / f".file.{os.getpid()}.new").mkdir()  # cannot be unlinked
    with pytest.raises(BadRequest):
        private_files.write(path, b"after")
    assert path.read_bytes() == b"before"
    assert mode(path) == 0o600


def test_a_file_is_private_whatever_the_umask_and_its_mode_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"open")
    path.chmod(0o644)
    private_files.write(path, b"secret")
    assert mode(path) == 0o600


def test_somebody_else_at_work_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "LOCK_S", 0.05)
    with (
        private_files.alone(tmp_path),
        pytest.raises(Conflict, match="another command"),
        private_files.alone(tmp_path),
    ):
        pass
    with private_files.alone(tmp_path):
        pass
