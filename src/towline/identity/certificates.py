"""X.509 as Towline uses it: P-256 keys, requests for a certificate, and what an authority signs.

Certificates are valid from a day before they are made, so that a machine whose clock is behind takes
them; how long they last is given in days. Everything is kept and sent as PEM.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from typing import TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from towline.errors import RequestError

BACKDATED = datetime.timedelta(days=1)
MAX_REQUEST_BYTES = 16 * 1024
_ORGANISATION = "Towline"


class Pair(Struct, frozen=True, kw_only=True):
    """A private key with its certificate, both PEM."""

    key: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return f"<Pair {fingerprint(self.certificate)}>"


def make_key() -> bytes:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_authority(name: str, days: int, now: datetime.datetime) -> Pair:
    """A certificate authority that signs leaves only."""
    pem = make_key()
    key = _key(pem)
    subject = _name(name)
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(ski, critical=False)
    )
    return Pair(key=pem, certificate=_pem(builder.sign(key, hashes.SHA256())))


def make_request(key: bytes, name: str) -> bytes:
    """A request (CSR) for a certificate of ``key`` under ``name``, proving that its sender has the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return builder.sign(_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def sign_node(authority: Pair, request: bytes, node: str, days: int, now: datetime.datetime) -> bytes:
    """A node's certificate: for clients only, naming the node, whatever name the request gave.

    Raises RequestError where the request is none, or is not signed by the key that it names.
    """
    try:
        csr = x509.load_pem_x509_csr(request[:MAX_REQUEST_BYTES])
        genuine = csr.is_signature_valid
        public = csr.public_key()
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        raise RequestError("request is no certificate request in PEM: let `tow agent` make it") from None
    if not genuine or not _is_p256(public):
        raise RequestError("request is not signed by a P-256 key of its own: let `tow agent` make it")
    builder = _leaf(authority, public, node, days, now, ExtendedKeyUsageOID.CLIENT_AUTH)
    return _signed(builder, authority)


def sign_server(
    authority: Pair, key: bytes, names: Sequence[str], days: int, now: datetime.datetime
) -> bytes:
    """A server's certificate for host names and addresses, the first of which is its subject."""
    public = _key(key).public_key()
    builder = _leaf(authority, public, names[0], days, now, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
    return _signed(builder, authority)


# --- what a certificate says --------------------------------------------------------------------------
def fingerprint(certificate: bytes) -> str:
    """``sha256:HEX`` of a PEM certificate."""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def only_certificate(pem: bytes) -> bytes:
    """The first certificate of ``pem``, which ``fingerprint`` is of, without what stands around it: TLS
    would trust each further one too. Raises ValueError where there is none."""
    return _pem(x509.load_pem_x509_certificate(pem))


def subject_of(der: bytes) -> str:
    """The common name of a DER certificate; empty where it has none."""
    subject = x509.load_der_x509_certificate(der).subject
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def issued_at_ms(der: bytes) -> int:
    """When a DER certificate was made, unix ms, to the second before."""
    begin = x509.load_der_x509_certificate(der).not_valid_before_utc + BACKDATED
    return int(begin.timestamp() * 1000)


def names_of(certificate: bytes) -> list[str]:
    """Host names and addresses of a server's PEM certificate, in order."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def age(certificate: bytes, now: datetime.datetime) -> float:
    """How much of a PEM certificate's life is over: 0 when made, 1 at its end."""
    found = x509.load_pem_x509_certificate(certificate)
    begin = found.not_valid_before_utc + BACKDATED
    return (now - begin) / (found.not_valid_after_utc - begin)


def is_issued_by(certificate: bytes, authority: bytes) -> bool:
    """Whether the authority (both PEM) has signed the certificate."""
    try:
        issuer = x509.load_pem_x509_certificate(authority)
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# --- parts --------------------------------------------------------------------------------------------
def _leaf(
    authority: Pair,
    public: ec.EllipticCurvePublicKey,
    name: str,
    days: int,
    now: datetime.datetime,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(_key(authority.key).public_key())
    return (
        _builder(_name(name), issuer.subject, public, days, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(aki, critical=False)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _signed(builder: x509.CertificateBuilder, authority: Pair) -> bytes:
    return _pem(builder.sign(_key(authority.key), hashes.SHA256()))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no P-256 key")
    return key


def _is_p256(public: CertificatePublicKeyTypes) -> TypeGuard[ec.EllipticCurvePublicKey]:
    return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)


def _name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
