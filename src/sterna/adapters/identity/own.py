"""The key and the certificate of this process's own, in a folder.

Key and certificate change together: each pair has a folder of its own, and `current` leads to the one in force. So
the files have the same paths for ever, and no crash leaves a key with another key's certificate.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sterna.adapters.identity import private_files
from sterna.adapters.identity.x509 import (
    Key,
    fingerprint,
    is_signed_by,
    key_pem,
    new_key,
    new_request,
    pem_of,
    public_hash,
    read_certificates,
    read_key,
    read_request,
    requested_name,
    seen,
)
from sterna.domain.errors import BadRequest, NotFound
from sterna.domain.trust.certificates import faults, lacking
from sterna.domain.trust.enrolment import ADD
from sterna.domain.trust.identities import WORDS, Identity, Kind, named_by
from sterna.domain.trust.joining import JoinAnswer, RenewalRequest

CURRENT, PENDING = "current", "pending"
KEY, CERTIFICATE, CA, REQUEST = "own.key", "own.crt", "ca.crt", "own.csr"
_JOIN = "let it join: `sterna agent join -`"


class OwnFiles:
    """Implements ports.identity.OwnIdentity. Methods raise BadRequest or NotFound, each with what would fix it."""

    def __init__(self, folder: Path, kind: Kind = Kind.AGENT) -> None:
        self._folder = folder
        self._kind = kind

    @property
    def key_file(self) -> Path:
        """The private key in force."""
        return self._folder / CURRENT / KEY

    @property
    def certificate_file(self) -> Path:
        """The certificate in force."""
        return self._folder / CURRENT / CERTIFICATE

    @property
    def ca_file(self) -> Path:
        """The certificate of the CA that is trusted."""
        return self._folder / CURRENT / CA

    def request(self, name: str) -> str:
        """A request with a new key, which stays here; the same one until it is answered.

        Raises BadRequest where the folder has a certificate of another kind.
        """
        private_files.make_folder(self._folder)
        self.check_kind()
        with private_files.alone(self._folder):
            pending = self._folder / PENDING
            if (pending / REQUEST).exists() and (pending / KEY).exists():
                text = private_files.read(pending / REQUEST, fix="")
                if requested_name(read_request(text, str(pending / REQUEST))) == name:
                    return text.decode()
            private_files.make_folder(pending)
            key = new_key()
            text = pem_of(new_request(key, name))
            with contextlib.suppress(FileNotFoundError):
                (pending / REQUEST).unlink()  # of another name: never beside this key
            private_files.write(pending / KEY, key_pem(key))
            private_files.write(pending / REQUEST, text)
            return text.decode()

    def check_kind(self) -> None:
        """Raises BadRequest where the present certificate is one of Sterna's, but of another kind: a controller's
        is not replaced by a host's."""
        try:
            found = [who for name in seen(self._certificate()).dns_names if (who := named_by(name)) is not None]
        except (NotFound, BadRequest):
            return  # none, or none that can be read
        if found and all(who.kind is not self._kind for who in found):
            raise BadRequest(
                f"{self._folder} has the certificate of {WORDS[found[0].kind]}, {found[0].name}",
                fix="name another folder with `--folder`; or move this one away if nothing uses it any more",
            )

    def accept(self, answer: JoinAnswer, name: str, ca_fingerprint: str, now: datetime) -> None:
        """Use this certificate from now on. Raises BadRequest where it is not for our request, or of another CA."""
        ca = read_certificates(answer.ca, "the answer")[0]
        if fingerprint(ca) != ca_fingerprint:
            raise BadRequest(
                f"the CA has the fingerprint {fingerprint(ca)}, and not {ca_fingerprint} as expected",
                fix="somebody may be between this host and the CA; check that the token is of the CA that you mean",
            )
        certificate = read_certificates(answer.certificate, "the answer")[0]
        self._check(certificate, ca, Identity(kind=self._kind, name=name), now)
        with private_files.alone(self._folder):
            self._use(certificate, ca)

    def renewal(self) -> RenewalRequest:
        """A request for the next certificate, signed with the present key."""
        request = self.request(self.name())
        text = private_files.read(self.certificate_file, fix=_JOIN).decode()
        signature = self._key(self.key_file).sign(request.encode(), ec.ECDSA(hashes.SHA256()))
        return RenewalRequest(certificate=text, request=request, signature=base64.b64encode(signature).decode())

    def name(self) -> str:
        """The name that the present certificate has."""
        found = (named_by(name) for name in seen(self._certificate()).dns_names)
        mine = next((who for who in found if who is not None and who.kind is self._kind), None)
        if mine is None:
            what = f"{self.certificate_file} is not a certificate of {WORDS[self._kind]}"
            raise BadRequest(what, fix=f"run `{ADD[self._kind].format('NAME')}` on the CA's machine")
        return mine.name

    def ca(self) -> str:
        """The certificate of the CA that is trusted."""
        return pem_of(self._ca()).decode()

    def fingerprint(self) -> str:
        """Of the CA that is trusted."""
        return fingerprint(self._ca())

    def validity(self) -> tuple[datetime, datetime]:
        """From when until when the present certificate is valid."""
        found = seen(self._certificate())
        return found.not_before, found.not_after

    def lacks(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Those of the addresses that the present certificate is not made out to."""
        return lacking(seen(self._certificate()), addresses)

    def _check(self, certificate: x509.Certificate, ca: x509.Certificate, who: Identity, now: datetime) -> None:
        reasons = list(faults(seen(certificate), who, now))
        if not is_signed_by(certificate, ca):
            reasons.append("it is not signed by that CA")
        if reasons:
            raise BadRequest(f"the certificate cannot be used: {'; '.join(reasons)}", fix="see the CA's log")

    def _use(self, certificate: x509.Certificate, ca: x509.Certificate) -> None:
        place = self._folder / f"{certificate.serial_number:x}"
        pending = self._folder / PENDING
        if not place.exists():
            if not (pending / KEY).exists():
                raise NotFound(
                    f"{self._folder} has no request that waits for a certificate",
                    fix="begin with `sterna agent request NAME`",
                )
            if public_hash(self._key(pending / KEY)) != public_hash(certificate):
                fix = "sign the request that `sterna agent request` prints now"
                raise BadRequest("the certificate is for another key than the one that waits here", fix=fix)
            private_files.write(pending / CERTIFICATE, pem_of(certificate))
            private_files.write(pending / CA, pem_of(ca))
            pending.rename(place)
        self._lead_to(place.name)
        self._tidy(place.name)

    def _lead_to(self, name: str) -> None:
        beside = self._folder / f".{CURRENT}.new"
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        beside.symlink_to(name)
        beside.replace(self._folder / CURRENT)
        private_files.sync_folder(self._folder)

    def _tidy(self, current: str) -> None:
        """Remove the pairs before the last two: a process may still be reading the one before."""
        pairs = [
            p for p in self._folder.iterdir() if p.is_dir() and not p.is_symlink() and (p / CERTIFICATE).exists()
        ]
        earlier = sorted((p for p in pairs if p.name not in (current, PENDING)), key=lambda p: p.stat().st_mtime_ns)
        for pair in earlier[:-1]:
            shutil.rmtree(pair, ignore_errors=True)

    def _certificate(self) -> x509.Certificate:
        text = private_files.read(self.certificate_file, fix=_JOIN)
        return read_certificates(text, str(self.certificate_file))[0]

    def _ca(self) -> x509.Certificate:
        return read_certificates(private_files.read(self.ca_file, fix=_JOIN), str(self.ca_file))[0]

    def _key(self, path: Path) -> Key:
        return read_key(private_files.read(path, fix=_JOIN, secret=True), str(path))
