# SPDX-License-Identifier: MIT
"""A guest image is whole and the one asked for, or there is one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli import stored
from harness.document.units import MIB
from harness.errors import HostError, ImageError, UsageError
from harness.guest import reference_packages
from harness.guest.bench import Bench
from harness.guest.binaries import GuestBinaries, build_guest_binaries
from harness.guest.images import GuestImage, find_image, load_reference_image
from harness.guest.profile import Profile, load_profile
from harness.guest.reference_image import copied_programs
from harness.host.cache import Progress, lock_of, locked
from harness.host.checkout import PROJECT_PROFILES
from harness.vm.image_format import image_format

LARGEST_IMAGE_BYTES = 500 * 1000 * 1000


def must_not_build(what: str, _fraction: float) -> None:
    """Take progress of a build that must not happen."""
    raise AssertionError(what)


class Copy:
    """A cache whose only image is the built one: links to its files, so that each can be replaced."""

    def __init__(self, bench: Bench, cache: Path) -> None:
        self.built = built = bench.image.disk.parent
        self.cache = cache
        self.folder = cache / "images" / built.name
        self.folder.mkdir(parents=True)
        for path in built.iterdir():
            (self.folder / path.name).symlink_to(path)
        self._profile = bench.profile
        self._key = bench.image.key
        self._binaries = GuestBinaries(bench.driver.parent)

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
        return find_image(self._profile, binaries=self._binaries, cache=self.cache, progress=progress)

    def error(self) -> str:
        """Return what is wrong with the image, which must be one line, and lead to a new build."""
        with pytest.raises(ImageError) as caught:
            load_reference_image(self.folder, key=self._key)
        assert "\n" not in str(caught.value)
        with pytest.raises(AssertionError, match="fetching Debian packages"):
            self.find()
        return str(caught.value)


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

    def test_is_built_again_when_damaged_and_a_line_says_so(
        self, copy: Copy, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def build(scratch: Path, **_given: object) -> None:
            for path in bench.image.disk.parent.iterdir():
                (scratch / path.name).symlink_to(path)

        monkeypatch.setattr("harness.guest.images._build", build)
        copy.remove("initrd.img")
        assert copy.find().initrd == copy.folder / "initrd.img"
        [line] = caplog.messages
        assert line == (f"{copy.folder} is damaged ({copy.folder}/initrd.img is missing); building it again")

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


def needs_of(program: Path) -> list[str]:
    """Return what an ELF program asks of the system it runs on: an interpreter, shared libraries."""
    said = subprocess.run(
        ["readelf", "--program-headers", "--dynamic", "--wide", program],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.strip() for line in said.stdout.splitlines() if " INTERP " in line or "(NEEDED)" in line]


class TestNothingOfTheHost:
    def test_is_linked_into_what_the_guest_runs(self) -> None:
        programs = copied_programs(build_guest_binaries()).values()
        for_linux = [path for path in programs if path.read_bytes().startswith(b"\x7fELF")]
        assert {path.name for path in for_linux} == {"hpfeed", "spareprobe"}
        assert {path.name: needs_of(path) for path in for_linux} == {path.name: [] for path in for_linux}

    def test_would_be_overlooked_if_it_were(self) -> None:
        shell = shutil.which("sh")
        assert shell is not None
        assert any("INTERP" in need for need in needs_of(Path(shell)))
        assert any("libc" in need for need in needs_of(Path(shell)))


class TestRoom:
    @pytest.fixture
    def build(self, bench: Bench, tmp_path: Path) -> Callable[[], str]:
        """Try to build an image, and return why it cannot be."""

        def build() -> str:
            binaries = GuestBinaries(bench.driver.parent)
            with pytest.raises(HostError) as caught:
                find_image(bench.profile, binaries=binaries, cache=tmp_path / "c", progress=must_not_build)
            return str(caught.value)

        return build

    def test_in_the_cache_is_looked_for_first(
        self, build: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("harness.host.room.free_bytes", lambda _folder: 299 * MIB)
        assert build() == (
            f"building the guest's image takes up to 300 MiB in {tmp_path}/c, and 299 MiB is free there;"
            " make room there, or have HIL_CACHE name another folder"
        )

    def test_in_the_temporary_folder_is_looked_for_first(
        self, build: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("harness.host.room.free_bytes", lambda _folder: 2199 * MIB)
        assert build() == (
            f"unpacking packages takes up to 2200 MiB in {tempfile.gettempdir()}, and 2199 MiB is free there;"
            " TMPDIR names another folder"
        )


class TestRefresh:
    def test_fetches_the_packages_anew_and_builds_the_image_of_them(
        self, copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        steps = []

        def unpack(scratch: Path, **_given: object) -> None:
            steps.append("packages")
            (scratch / "new").touch()

        def build(scratch: Path, *, cache: Path, **_given: object) -> None:
            [packages] = (cache / "packages").glob("*[0-9a-f]")
            assert [path.name for path in packages.iterdir()] == ["new"]
            steps.append("image")
            for path in copy.built.iterdir():
                (scratch / path.name).symlink_to(path)

        monkeypatch.setenv("HIL_CACHE", str(copy.cache))
        monkeypatch.setattr("harness.guest.reference_packages._unpack_packages", unpack)
        monkeypatch.setattr("harness.guest.images._build", build)
        stored.build_image("reference", None, refresh=False)
        assert steps == []
        for _ in range(2):
            stored.build_image("reference", None, refresh=True)
        assert steps == ["packages", "image"] * 2
        assert str(copy.folder / "disk.img") in capsys.readouterr().out

    def test_keeps_the_packages_there_are_when_it_fails(
        self, copy: Copy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unpack(_scratch: Path, **_given: object) -> None:
            raise HostError("no network")

        monkeypatch.setenv("HIL_CACHE", str(copy.cache))
        monkeypatch.setattr("harness.guest.reference_packages._unpack_packages", unpack)
        old = reference_packages._packages_folder(copy.cache, reference_packages.recipe_files())
        (old / "old").mkdir(parents=True)
        with pytest.raises(HostError, match="no network"):
            stored.build_image("reference", None, refresh=True)
        assert (old / "old").is_dir()
        assert not list(old.parent.glob(".*"))

    def test_is_refused_for_an_image_in_use_and_for_a_guest_without_one(
        self, copy: Copy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HIL_CACHE", str(copy.cache))
        with (
            locked(lock_of(copy.folder), shared=True),
            pytest.raises(HostError, match=r"image reference-\S+ is in use; end the runs that use it"),
        ):
            stored.build_image("reference", None, refresh=True)
        assert copy.find().disk == copy.folder / "disk.img"
        with pytest.raises(UsageError, match="the guest qtest has no image that is built here"):
            stored.build_image("qtest", None, refresh=True)


class TestPackages:
    @pytest.fixture
    def build(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str], tuple[str, list[str]]]:
        """Build an image with a script as ``mmdebstrap``, which must fail; return why and its arguments."""

        def build(script: str) -> tuple[str, list[str]]:
            folder = tmp_path / "bin"
            folder.mkdir()
            program = folder / "mmdebstrap"
            program.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/arguments\n{script}\n')
            program.chmod(0o755)
            monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
            with pytest.raises(HostError) as caught:
                find_image(
                    bench.profile, binaries=GuestBinaries(bench.driver.parent), cache=tmp_path / "cache"
                )
            assert not list((tmp_path / "cache").glob("*/*[0-9a-f]"))
            return str(caught.value), (tmp_path / "arguments").read_text().split("\0")[:-1]

        return build

    def test_are_those_that_debian_has_signed(
        self, build: Callable[[str], tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HIL_MIRROR", raising=False)
        _, arguments = build("exit 1")
        assert "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg" in arguments
        # Given no mirror, mmdebstrap takes Debian's for a suite of Debian's, whatever the host is.
        assert arguments[-2:] == ["bookworm", "-"]

    def test_come_from_the_mirror_that_is_named(
        self, build: Callable[[str], tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HIL_MIRROR", "http://mirror.example/debian")
        _, arguments = build("exit 1")
        assert arguments[-3:] == ["bookworm", "-", "http://mirror.example/debian"]

    def test_that_cannot_be_had_are_told_in_the_words_of_mmdebstrap(
        self, build: Callable[[str], tuple[str, list[str]]]
    ) -> None:
        reason, _ = build("echo 'I: downloading' >&2; echo 'E: no such suite' >&2; exit 9")
        assert "mmdebstrap failed with exit status 9: " in reason
        assert reason.endswith("E: no such suite")

    def test_leave_nothing_in_the_temporary_folder(
        self, build: Callable[[str], tuple[str, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        reason, _ = build('touch "$TMPDIR/mmdebstrap.gpghome"; ls "$TMPDIR"/../*/ >&2; exit 9')
        assert reason.endswith("mmdebstrap.gpghome")
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_that_nobody_waits_for_any_more_are_not_fetched_on(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = tmp_path / "bin/mmdebstrap"
        program.parent.mkdir()
        # It minds no signal to itself alone, as mmdebstrap.
        part = f"(trap - TERM; exec sleep 600) & echo $! >{tmp_path}/pid"
        program.write_text(f"#!/bin/sh\ntrap : TERM\n{part}\necho 'I: downloading' >&2\nwait; wait\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

        def interrupted(what: str, _fraction: float) -> None:
            if what == "downloading":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            find_image(
                bench.profile,
                binaries=GuestBinaries(bench.driver.parent),
                cache=tmp_path / "cache",
                progress=interrupted,
            )
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
        assert not list((tmp_path / "cache/packages").glob("*[0-9a-f]"))

    def test_whose_wine_does_not_run_are_told_in_one_line(
        self, build: Callable[[str], tuple[str, list[str]]]
    ) -> None:
        tree = "tree=$(mktemp --directory); mkdir -p $tree/tmp $tree/usr/x86_64-w64-mingw32/lib"
        hook = 'for last; do case "$last" in *make-prefix:*) hook=${last#--extract-hook=} ;; esac; done'
        library = "touch $tree/usr/x86_64-w64-mingw32/lib/zlib1.dll"
        # As mmdebstrap runs a hook, and what it says when one failed.
        fail = 'sh -c "$hook" exec $tree || { echo "E: command failed: $hook" >&2; rm -r $tree; exit 1; }'
        reason, _ = build(f"{tree}; {library}\n{hook}\n{fail}")
        assert "\n" not in reason
        # 127: no such program there; 125: not root, so not even chroot works.
        assert re.search(
            r": make-prefix: the guest's Wine failed with exit status 12[57] at wineboot\.exe$", reason
        )


def make_disk(path: Path, disk_format: str, size: str = "1M") -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", disk_format, path, size], check=True)


class TestFormat:
    @pytest.mark.parametrize("disk_format", ["raw", "qcow2", "vhdx", "vpc", "vmdk", "vdi"])
    def test_is_what_the_file_is_whatever_its_name(self, tmp_path: Path, disk_format: str) -> None:
        for name in ("disk", "disk.img", "disk.qcow2"):
            if (name, disk_format) != ("disk.qcow2", "raw"):
                make_disk(tmp_path / name, disk_format)
                assert image_format(tmp_path / name) == disk_format

    @pytest.mark.parametrize("name", ["w.qcow2", "w.vhdx", "w.VHDX", "w.vmdk", "w.vdi"])
    def test_of_a_raw_file_with_a_name_that_promises_another(self, tmp_path: Path, name: str) -> None:
        make_disk(tmp_path / name, "raw")
        with pytest.raises(ImageError, match=r"is named like .*, and qemu-img finds nothing in it"):
            image_format(tmp_path / name)

    @pytest.mark.parametrize("name", ["server.iso", "SERVER.ISO"])
    def test_of_a_cd(self, tmp_path: Path, name: str) -> None:
        make_disk(tmp_path / name, "raw")
        with pytest.raises(ImageError, match=r"is named like a CD: install the system from it onto a disk"):
            image_format(tmp_path / name)

    def test_of_a_disk_that_another_qemu_writes_to(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk.qcow2"
        make_disk(disk, "qcow2")
        writing = ["qemu-system-x86_64", "-S", "-display", "none", "-monitor", "stdio", "-drive", "if=none"]
        writing[-1] += f",file={disk}"
        with subprocess.Popen(writing, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"QEMU"), "it has opened its disk"
                assert image_format(disk) == "qcow2"
            finally:
                process.kill()

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is an empty disk"),
            (b"QFI\xfb" + bytes([0, 0, 0, 9]) + bytes(500), "is no usable disk image: .*version 9"),
            (b"QED\0" + bytes(600), "qed|no usable disk image"),
        ],
    )
    def test_of_what_is_no_usable_disk(self, tmp_path: Path, content: bytes, says: str) -> None:
        (tmp_path / "disk.img").write_bytes(content)
        with pytest.raises(ImageError, match=says) as caught:
            image_format(tmp_path / "disk.img")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["nowhere", "folder"])
    def test_of_what_is_no_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(ImageError, match=f"{name} is no usable disk image: "):
            image_format(tmp_path / name)


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
        make_disk(folder / "windows.qcow2", "qcow2")
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
        make_disk(tmp_path / "windows.qcow2", "qcow2", "2M")
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
