"""A certificate authority for tests."""

import datetime
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    def __init__(self):
        self._key = ec.generate_private_key(ec.SECP256R1())
        # Issuers are found by name: two of one name would be confused.
        self._name = f"authority {secrets.token_hex(4)}"
        self._certificate = self._signed(self._name, self._key, None, DAY)
        self.pem = _pem(self._certificate)

    def issue(
        self,
        folder: Path,
        *names: str,
        bundle: bytes | None = None,
        lifetime=DAY,
        others=(),
        common_name="",
    ):
        """Writes ca.crt, tls.crt and tls.key for `names` into the folder, as a Secret has them.

        `others`: names of other kinds than DNS. `common_name` defaults to the first of `names`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        certificate = self._signed(
            common_name or names[0], key, [*map(x509.DNSName, names), *others], lifetime
        )
        contents = {"ca.crt": bundle or self.pem, "tls.crt": _pem(certificate), "tls.key": private}
        for name, content in contents.items():
            (folder / f".{name}").write_bytes(content)
            (folder / f".{name}").rename(folder / name)
        return folder

    def _signed(self, name, key, names, lifetime):
        begin = datetime.datetime.now(datetime.UTC) - 2 * DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + 2 * DAY + lifetime)
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
