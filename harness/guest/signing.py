# SPDX-License-Identifier: MIT
"""Sign a driver for Windows in test mode, with a certificate of this host's own.

64-bit Windows loads no driver without a signature. With ``bcdedit /set testsigning on`` any certificate will
do (Microsoft, "The TESTSIGNING boot configuration option"), so nothing has to be installed in the guest.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.deadline import Deadline
from harness.host.cache import built_folder, content_key
from harness.host.tools import find_tool, run_tool

SIGNED_WITHIN_S = 60.0
SUBJECT = "hil-hotplug test signing, for this host only"

_KEY_BITS = 3072
_KEPT_DAYS = 3650
#: A guest's clock may be behind the host's.
_SINCE_DAYS = 2


def signed_driver(path: Path, *, cache: Path) -> Path:
    """Return a signed copy of a driver's file; the certificate is made on first use.

    :raise HostError: osslsigncode is not installed, or does not sign it.
    """
    certificate, key = signing_certificate(cache)
    name = content_key([path.name, path.read_bytes(), certificate.read_bytes()])
    folder = cache / "drivers" / name
    return built_folder(folder, lambda scratch: _sign(path, scratch, certificate, key)) / path.name


def signing_certificate(cache: Path) -> tuple[Path, Path]:
    """Return this host's certificate for test signing and its key, made on first use; both are PEM files."""
    folder = built_folder(cache / "test-signing", _make_certificate)
    return folder / "certificate.pem", folder / "key.pem"


def _sign(path: Path, folder: Path, certificate: Path, key: Path) -> None:
    who: list[str | Path] = ["-certs", certificate, "-key", key, "-n", path.stem]
    what: list[str | Path] = ["-in", path, "-out", folder / path.name]
    signer = [find_tool("osslsigncode"), "sign", "-h", "sha256", "-ph"]
    run_tool([*signer, *who, *what], deadline=Deadline.after(SIGNED_WITHIN_S))


def _make_certificate(folder: Path) -> None:
    # Loaded by paramiko anyway, but not in runs that have no guest to log in to.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=_SINCE_DAYS))
        .not_valid_after(now + timedelta(days=_KEPT_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
