# SPDX-License-Identifier: MIT
"""A guest image is whole and the one asked for, or there is one line that says what to do."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cache import Progress
from harness.errors import ImageError
from harness.guest import Bench
from harness.guest_binaries import GuestBinaries
from harness.images import GuestImage, find_image
from harness.profile import Profile, load_profile
from harness.session import PROJECT_PROFILES

LARGEST_IMAGE_BYTES = 500 * 1000 * 1000


def must_not_build(what: str, _fraction: float) -> None:
    """Take progress of a build that must not happen."""
    raise AssertionError(what)


class Copy:
    """A cache whose only image is the built one: links to its files, so that each can be replaced."""

    def __init__(self, bench: Bench, cache: Path) -> None:
        built = bench.image.disk.parent
        self.folder = cache / "images" / built.name
        self.folder.mkdir(parents=True)
        for path in built.iterdir():
            (self.folder / path.name).symlink_to(path)
        self._profile = bench.profile
        self._binaries = GuestBinaries(bench.driver.parent)
        self._cache = cache

    def replace(self, name: str, data: bytes) -> None:
        """Put a file of other content in the place of the link."""
        self.remove(name)
        (self.folder / name).write_bytes(data)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def edit_manifest(self, **changes: Any) -> None:
        manifest = json.loads((self.folder / "manifest.json").read_bytes())
        self.replace("manifest.json", json.dumps(manifest | changes).encode())

    def find(self, progress: Progress = must_not_build) -> GuestImage:
        return find_image(self._profile, binaries=self._binaries, cache=self._cache, progress=progress)

    def error(self) -> str:
        """Return what is said of the image, which must be one line that says what to do."""
        with pytest.raises(ImageError) as caught:
            self.find()
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(f"; remove {self.folder} and run again to rebuild it")
        return text


@pytest.fixture
def copy(bench: Bench, tmp_path: Path) -> Copy:
    return Copy(bench, tmp_path / "cache")


class TestReferenceImage:
    def test_is_found_whole(self, copy: Copy, bench: Bench) -> None:
        image = copy.find()
        assert image.key == bench.image.key
        assert image.disk == copy.folder / "disk.img"
        assert image.kernel is not None
        assert image.initrd is not None
        assert image.host_key.startswith("ecdsa-sha2-nistp256 ")

    def test_is_small(self, bench: Bench) -> None:
        files = [path.stat() for path in bench.image.disk.parent.iterdir()]
        assert 0 < sum(file.st_blocks * 512 for file in files) < LARGEST_IMAGE_BYTES

    def test_keeps_its_private_key_to_its_owner(self, bench: Bench) -> None:
        assert stat.S_IMODE(bench.image.user_key.stat().st_mode) == 0o600
        assert b"PRIVATE KEY" in bench.image.user_key.read_bytes()

    def test_names_the_packages_it_is_made_of(self, bench: Bench) -> None:
        manifest = json.loads((bench.image.disk.parent / "manifest.json").read_bytes())
        for package in ("linux-image-", "openssh-server_", "wine64_", "busybox-static_"):
            assert any(name.startswith(package) for name in manifest["packages"]), package

    def test_with_one_bit_of_the_disk_flipped(self, copy: Copy) -> None:
        disk = bytearray((copy.folder / "disk.img").read_bytes())
        disk[len(disk) // 2] ^= 1
        copy.replace("disk.img", disk)
        assert "disk.img is not what was built" in copy.error()

    def test_with_a_disk_cut_short(self, copy: Copy) -> None:
        with (copy.folder / "disk.img").open("rb") as file:
            start = file.read(1 << 20)
        copy.replace("disk.img", start)
        assert "disk.img is not what was built" in copy.error()

    @pytest.mark.parametrize("name", ["disk.img", "vmlinuz", "initrd.img", "user_key", "host_key.pub"])
    def test_with_a_file_missing(self, copy: Copy, name: str) -> None:
        copy.remove(name)
        assert f"{copy.folder / name} is missing" in copy.error()

    def test_with_a_key_that_is_not_its_own(self, copy: Copy) -> None:
        copy.replace("host_key.pub", b"ssh-ed25519 AAAA somebody-else\n")
        assert "host_key.pub is not what was built" in copy.error()

    def test_of_another_format(self, copy: Copy) -> None:
        copy.edit_manifest(format=2)
        assert "of format 2, wanted" in copy.error()

    def test_of_another_key(self, copy: Copy) -> None:
        copy.edit_manifest(key="0123456789abcdef")
        assert "is image 0123456789abcdef of format 1, wanted" in copy.error()

    def test_without_manifest(self, copy: Copy) -> None:
        copy.remove("manifest.json")
        assert "holds no guest image" in copy.error()

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe"])
    def test_with_a_manifest_that_is_none(self, copy: Copy, data: bytes) -> None:
        copy.replace("manifest.json", data)
        assert "manifest.json is damaged" in copy.error()

    def test_of_other_programs_is_built_anew(self, copy: Copy, bench: Bench, tmp_path: Path) -> None:
        other = tmp_path / "programs"
        other.mkdir()
        for path in bench.driver.parent.iterdir():
            (other / path.name).symlink_to(path)
        (other / "winepnp.sys").unlink()
        (other / "winepnp.sys").write_bytes(bench.driver.read_bytes())
        with pytest.raises(AssertionError, match="fetching Debian packages"):
            find_image(
                bench.profile, binaries=GuestBinaries(other), cache=tmp_path / "c", progress=must_not_build
            )


class TestOwnImage:
    @pytest.fixture
    def profile(self, tmp_path: Path) -> Profile:
        """Return a profile whose guest is ``windows.qcow2`` beside it, with nothing there yet."""
        text = (PROJECT_PROFILES / "reference.yaml").read_text()
        path = tmp_path / "windows.yaml"
        path.write_text(text.replace("{build: reference}", "{disk: windows.qcow2}"))
        return load_profile(path)

    @pytest.fixture
    def find(self, bench: Bench, profile: Profile, tmp_path: Path) -> Callable[[], GuestImage]:
        binaries = GuestBinaries(bench.driver.parent)
        return lambda: find_image(
            profile, binaries=binaries, cache=tmp_path / "cache", progress=must_not_build
        )

    def fill(self, folder: Path) -> None:
        (folder / "windows.qcow2").write_bytes(b"QFI\xfb")
        (folder / "windows.user_key").write_text("the private key\n")
        (folder / "windows.host_key.pub").write_text("ssh-ed25519 AAAA windows\n")

    def test_is_found_with_its_keys(self, find: Callable[[], GuestImage], tmp_path: Path) -> None:
        self.fill(tmp_path)
        image = find()
        assert (image.disk, image.disk_format) == (tmp_path / "windows.qcow2", "qcow2")
        assert image.user_key == tmp_path / "windows.user_key"
        assert image.host_key == "ssh-ed25519 AAAA windows"
        assert (image.kernel, image.initrd) == (None, None)

    def test_has_another_key_when_the_disk_changed(
        self, find: Callable[[], GuestImage], tmp_path: Path
    ) -> None:
        self.fill(tmp_path)
        before = find().key
        assert find().key == before
        (tmp_path / "windows.qcow2").write_bytes(b"QFI\xfb more")
        assert find().key != before

    @pytest.mark.parametrize("name", ["windows.qcow2", "windows.user_key", "windows.host_key.pub"])
    def test_with_a_file_missing(self, find: Callable[[], GuestImage], tmp_path: Path, name: str) -> None:
        self.fill(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(ImageError) as caught:
            find()
        text = str(caught.value)
        assert "\n" not in text
        assert name in text
        assert "windows.qcow2" in text
