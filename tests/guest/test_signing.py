# SPDX-License-Identifier: MIT
"""The test signature of the shipped driver, as other code than the signer's sees it."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import lief
import pefile
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from harness.errors import HostError
from harness.guest.bench import with_system
from harness.guest.binaries import build_guest_binaries
from harness.guest.driver_file import check_driver_file
from harness.guest.linux_wine import LINUX_WINE
from harness.guest.profile import load_profile
from harness.guest.signing import SUBJECT, signed_driver, signing_certificate
from harness.guest.windows import WINDOWS
from harness.host.cache import no_progress
from harness.host.checkout import PROJECT_PROFILES
from harness.host.tools import find_tool
from harness.vm.accelerator import DEFAULT_QEMU

# Of a section, "PE Format": its content can be executed, and written to.
EXECUTE, WRITE = 0x2000_0000, 0x8000_0000
PAGE_BYTES = 4096


def make_disk(path: Path) -> None:
    command = [find_tool("qemu-img"), "create", "-q", "-f", "qcow2", str(path), "1M"]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def signed(cache: Path) -> Path:
    return signed_driver(build_guest_binaries().driver, cache=cache)


def test_the_signature_holds(signed: Path) -> None:
    image = lief.PE.parse(str(signed))
    assert image is not None
    assert image.verify_signature() == lief.PE.Signature.VERIFICATION_FLAGS.OK
    [signature] = image.signatures
    assert signature.digest_algorithm == lief.PE.ALGORITHMS.SHA_256
    [certificate] = signature.certificates
    assert certificate.subject.replace("\\", "") == f"CN={SUBJECT}"


def test_one_byte_more_or_another_and_it_does_not(signed: Path, tmp_path: Path) -> None:
    data = bytearray(signed.read_bytes())
    with pefile.PE(data=bytes(data)) as image:
        data[image.sections[0].PointerToRawData] ^= 1
    (tmp_path / "changed.sys").write_bytes(data)
    changed = lief.PE.parse(str(tmp_path / "changed.sys"))
    assert changed is not None
    assert changed.verify_signature() != lief.PE.Signature.VERIFICATION_FLAGS.OK


def test_windows_kernel_finds_in_it_what_it_demands(signed: Path) -> None:
    # Of loader and hypervisor-protected code integrity: Microsoft, "Implement HVCI compatible code".
    check_driver_file(signed, imports=WINDOWS.imports, signed=True)
    with pefile.PE(signed) as image:
        assert image.verify_checksum()
        assert image.OPTIONAL_HEADER.SectionAlignment == PAGE_BYTES
        assert image.OPTIONAL_HEADER.IMAGE_DLLCHARACTERISTICS_NX_COMPAT
        assert image.OPTIONAL_HEADER.IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE
        for section in image.sections:
            assert not (section.Characteristics & EXECUTE and section.Characteristics & WRITE), section.Name


def test_the_driver_in_it_is_the_one_that_was_built(signed: Path) -> None:
    built = build_guest_binaries().driver
    with pefile.PE(signed) as one, pefile.PE(built) as other:
        assert [section.get_data() for section in one.sections] == [
            section.get_data() for section in other.sections
        ]


def test_is_made_once(cache: Path, signed: Path) -> None:
    assert signed_driver(build_guest_binaries().driver, cache=cache) == signed
    assert len(list((cache / "drivers").glob("*/"))) == 1


def test_another_certificate_signs_anew(tmp_path: Path, signed: Path) -> None:
    other = signed_driver(build_guest_binaries().driver, cache=tmp_path)
    assert other.read_bytes() != signed.read_bytes()


def test_the_certificate_is_for_code_and_nothing_else_and_holds_for_years(cache: Path) -> None:
    path, key = signing_certificate(cache)
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    assert certificate.not_valid_before_utc < datetime.now(UTC) < certificate.not_valid_after_utc
    assert (certificate.not_valid_after_utc - datetime.now(UTC)).days > 3600
    use = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(use) == [ExtendedKeyUsageOID.CODE_SIGNING]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_sample_driver_is_signed_for_windows_only_and_a_users_is_left_as_it_is(
    cache: Path, signed: Path, tmp_path: Path
) -> None:
    built = build_guest_binaries().driver
    make_disk(tmp_path / "windows.qcow2")
    (tmp_path / "windows.user_key").write_text("the private key\n")
    (tmp_path / "windows.host_key.pub").write_text("ssh-ed25519 AAAA windows\n")
    text = (PROJECT_PROFILES / "reference.yaml").read_text()
    text = text.replace("{build: reference}", "{disk: windows.qcow2}").replace("linux-wine", "windows")
    (tmp_path / "windows.yaml").write_text(text)
    profile = load_profile(tmp_path / "windows.yaml")

    def driver(given: Path | None) -> Path:
        bench = WINDOWS.bench(
            profile, driver=given, accelerator="tcg", qemu=DEFAULT_QEMU, cache=cache, progress=no_progress
        )
        return with_system(bench).driver

    assert driver(None) == signed
    assert driver(built).read_bytes() == built.read_bytes()
    assert LINUX_WINE.signs is False


def test_windows_loads_no_driver_without_a_signature_so_that_is_warned_of(
    signed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = build_guest_binaries().driver
    for path in (built, signed):
        check_driver_file(path, imports=WINDOWS.imports, signed=False, always_signed=WINDOWS.signs)
    [warned] = caplog.records
    assert warned.getMessage().startswith(f"{built}: has no signature in it, and Windows loads no driver")


def test_without_the_signer_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = build_guest_binaries().driver
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="osslsigncode"):
        signed_driver(driver, cache=tmp_path / "cache")
