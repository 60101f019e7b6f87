"""Certificates with their keys as PEM: issued, read and compared; ECDSA on P-256 throughout."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aurora_common.errors import InvalidInputError
from aurora_operator.domain.certificate import Validity


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key."""

    content: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.content.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def validity(self) -> Validity:
        return Validity(self.content.not_valid_before_utc, self.content.not_valid_after_utc)

    @property
    def dns_names(self) -> frozenset[str]:
        try:
            found = self.content.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return frozenset()
        return frozenset(found.value.get_values_for_type(x509.DNSName))

    def is_issued_by(self, authority: Certificate) -> bool:
        try:
            self.content.verify_directly_issued_by(authority.content)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


def read_certificate(pem: bytes, key_pem: bytes) -> Certificate:
    """Raises InvalidInputError, which never quotes the content, unless the two match."""
    try:
        content = x509.load_pem_x509_certificate(pem)
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidInputError("is not a certificate and its key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInputError("has a key that is not ECDSA")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != content.public_key().public_bytes(*form):
        raise InvalidInputError("has a key that is not the certificate's")
    return Certificate(content, key)


def new_authority(name: str, validity: Validity) -> Certificate:
    """A self-signed certificate that may issue leaves, but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    builder = (
        _builder(subject, subject, key, validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return Certificate(builder.sign(key, hashes.SHA256()), key)


def new_leaf(
    authority: Certificate, name: str, dns_names: Collection[str], validity: Validity
) -> Certificate:
    """A certificate for clients and servers."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    alternatives = x509.SubjectAlternativeName([x509.DNSName(known) for known in dns_names])
    builder = (
        _builder(_subject(name), authority.content.subject, key, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(issuer_key, critical=False)
        .add_extension(alternatives, critical=False)
    )
    return Certificate(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.begin)
        .not_valid_after(validity.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    # A common name has at most 64 characters; peers check the alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
