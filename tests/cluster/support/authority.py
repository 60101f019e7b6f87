"""The certificates and kubeconfigs of a test run's control plane."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_LIFETIME = datetime.timedelta(days=2)
_SERVED_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


class ClusterAuthority:
    """Signs the certificates of one control plane's servers and users; writes into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test cluster")])
        certificate = self._signed(self._name, self._key, is_authority=True)
        self.certificate = folder / "ca.crt"
        self.certificate.write_bytes(certificate)

    def serving(self, name: str, addresses: Sequence[str] = ("127.0.0.1",)) -> tuple[Path, Path]:
        """Certificate and key of a server on these addresses."""
        names: list[x509.GeneralName] = [x509.DNSName(each) for each in _SERVED_NAMES]
        names += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
        return self._pair(name, _subject(name, ()), names)

    def user(self, name: str, groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """Certificate and key that authenticate this user to the API server."""
        return self._pair(name.replace(":", "-"), _subject(name, groups), [])

    def signing_key(self) -> Path:
        """A key for ServiceAccount tokens."""
        path = self._folder / "service-account.key"
        path.write_bytes(_private(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
        return path

    def kubeconfig(self, url: str, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of this user at `url`."""
        certificate, key = self.user(name, groups)
        credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        path = self._folder / f"{name.replace(':', '-')}.kubeconfig"
        return write_kubeconfig(path, url, self.certificate, credentials)

    def _pair(
        self, file: str, subject: x509.Name, names: Sequence[x509.GeneralName]
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, private = self._folder / f"{file}.crt", self._folder / f"{file}.key"
        certificate.write_bytes(self._signed(subject, key, names))
        private.write_bytes(_private(key))
        return certificate, private

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName] = (),
        *,
        is_authority: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LIFETIME)
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def write_kubeconfig(path: Path, url: str, authority: Path, credentials: dict[str, str]) -> Path:
    """Writes a kubeconfig of one cluster and one user; JSON is YAML too."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": url, "certificate-authority": str(authority)}}
        ],
        "users": [{"name": "test", "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(content))
    return path


def _subject(name: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
