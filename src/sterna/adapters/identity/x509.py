"""Keys, requests and certificates: made, signed, read and compared. Files are not here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sterna.domain.errors import BadRequest
from sterna.domain.trust.certificates import BACKDATED, CA_VALID, ORGANISATION, Seen, Wanted
from sterna.domain.trust.joining import MOST_PEM_BYTES

Key = ec.EllipticCurvePrivateKey
E = TypeVar("E", bound=x509.ExtensionType)
_MAKE = "create a new one with `sterna agent request`"


def new_key() -> Key:
    """A private key: P-256, which OpenSSL, GnuTLS and Go all have."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """The private key, not encrypted: it must be usable after an unattended reboot."""
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain)


def read_key(pem: bytes, where: str) -> Key:
    """The private key in this file. Raises BadRequest."""
    try:
        key: PrivateKeyTypes = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadRequest(f"{where} has no private key that can be read", fix="restore it, or replace it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadRequest(f"the key in {where} is not one that Sterna made", fix="use a key of an elliptic curve")
    return key


def public_hash(key: Key | x509.CertificateSigningRequest | x509.Certificate) -> str:
    """SHA-256 of the public key, in hexadecimal digits."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_key().public_bytes(encoding, form))
    return digest.finalize().hex()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pem_of(thing: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList) -> bytes:
    """Its PEM text."""
    return thing.public_bytes(serialization.Encoding.PEM)


def new_request(key: Key, name: str) -> x509.CertificateSigningRequest:
    """A request by the holder of this key. The CA takes nothing from it but the key, and the name to look it up."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


def read_request(pem: str | bytes, where: str = "the request") -> x509.CertificateSigningRequest:
    """The request in this text, signed by its own key. Raises BadRequest."""
    try:
        request = x509.load_pem_x509_csr(_bytes(pem, where))
        strong = isinstance(request.public_key(), ec.EllipticCurvePublicKey) and request.is_signature_valid
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm, InvalidSignature) as error:
        raise BadRequest(f"{where} is not a certificate request (PEM)", fix=_MAKE) from error
    if not strong:
        raise BadRequest(f"{where} is not signed by its own key on an elliptic curve", fix=_MAKE)
    return request


def requested_name(request: x509.CertificateSigningRequest) -> str:
    """The name that its maker wrote into it; '' for none. It proves nothing."""
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def read_certificates(pem: str | bytes, where: str) -> list[x509.Certificate]:
    """All certificates in this text, at least one. Raises BadRequest."""
    try:
        return x509.load_pem_x509_certificates(_bytes(pem, where))
    except (ValueError, x509.InvalidVersion) as error:
        fix = "give a file that begins with -----BEGIN CERTIFICATE-----"
        raise BadRequest(f"{where} has no certificate (PEM)", fix=fix) from error


def _bytes(pem: str | bytes, where: str) -> bytes:
    raw = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
    if len(raw) > 64 * MOST_PEM_BYTES:  # a bundle of the system's CAs has 200 KiB
        raise BadRequest(f"{where} is too large: {len(raw)} bytes", fix="check that it is the right file")
    return raw


def new_ca(key: Key, domains: Iterable[str], now: datetime) -> x509.Certificate:
    """The certificate of a new CA. It can make no other CA, and sign no DNS name outside `domains`."""
    number = x509.random_serial_number()
    name = _name(f"Sterna CA {number:x}"[:30], "ca")
    usage = _usage(key_cert_sign=True, crl_sign=True)
    subject_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    limits = x509.NameConstraints([x509.DNSName(domain) for domain in domains], None)
    return (
        _builder(name, name, key.public_key(), number, now - BACKDATED, now + CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(limits, critical=True)
        .add_extension(subject_id, critical=False)
        .sign(key, hashes.SHA256())
    )


def domains_of(ca: x509.Certificate) -> tuple[str, ...]:
    """What a CA of ours may sign names of."""
    try:
        limits = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(n.value for n in limits.permitted_subtrees or () if isinstance(n, x509.DNSName))


def signed(wanted: Wanted, key: ec.EllipticCurvePublicKey, ca: x509.Certificate, ca_key: Key) -> x509.Certificate:
    """The certificate of the holder of this public key."""
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.dns_names]
    names += [x509.IPAddress(ip_address(address)) for address in wanted.ip_addresses]
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    subject, number = _name(wanted.common_name, wanted.unit), x509.random_serial_number()
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    subject_id = x509.SubjectKeyIdentifier.from_public_key(key)
    return (
        _builder(subject, ca.subject, key, number, wanted.not_before, min(wanted.not_after, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
        .add_extension(both, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(subject_id, critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def revocation_list(
    revoked: Iterable[tuple[str, datetime]], number: int, ca: x509.Certificate, ca_key: Key, now: datetime
) -> x509.CertificateRevocationList:
    """The list of revoked certificates with this number. It is valid as long as the CA: GnuTLS refuses everybody
    once it is not."""
    listed = x509.CertificateRevocationListBuilder().issuer_name(ca.subject)
    listed = listed.last_update(now - BACKDATED).next_update(ca.not_valid_after_utc)
    for serial, since in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(since)
        listed = listed.add_revoked_certificate(one.build())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    listed = listed.add_extension(issuer_id, critical=False).add_extension(x509.CRLNumber(number), critical=False)
    return listed.sign(ca_key, hashes.SHA256())


def read_list(pem: str | bytes, ca: x509.Certificate) -> tuple[int, x509.CertificateRevocationList]:
    """A list of revoked certificates, and its number. Raises BadRequest where this CA did not sign it."""
    fix = "check that it is the `revoked.crl` of this host's CA"
    try:
        found = x509.load_pem_x509_crl(_bytes(pem, "the list"))
        key = ca.public_key()
        ours = isinstance(key, ec.EllipticCurvePublicKey) and found.is_signature_valid(key)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, TypeError, x509.ExtensionNotFound, UnsupportedAlgorithm, InvalidSignature) as error:
        raise BadRequest("this is not a numbered list of revoked certificates (PEM)", fix=fix) from error
    if not ours or found.issuer != ca.subject:
        raise BadRequest("the list of revoked certificates is not signed by this host's CA", fix=fix)
    return number, found


def is_signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Did this CA sign it, with its own key?"""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def seen(certificate: x509.Certificate) -> Seen:
    """What it says."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    basic = _extension(certificate, x509.BasicConstraints)
    return Seen(
        dns_names=tuple(names.get_values_for_type(x509.DNSName)) if names else (),
        ip_addresses=tuple(str(a) for a in names.get_values_for_type(x509.IPAddress)) if names else (),
        client=usage is None or ExtendedKeyUsageOID.CLIENT_AUTH in usage,
        server=usage is None or ExtendedKeyUsageOID.SERVER_AUTH in usage,
        is_ca=basic is not None and basic.ca,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(common_name: str, unit: str) -> x509.Name:
    parts = (
        (NameOID.ORGANIZATION_NAME, ORGANISATION),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    number: int,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    begin, end = (moment.astimezone(UTC).replace(microsecond=0) for moment in (begin, end))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(number).not_valid_before(begin).not_valid_after(end)


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    """libvirt and QEMU demand `key_encipherment`, also of keys that cannot encipher."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
