# SPDX-License-Identifier: MIT
"""What lies in the cache is checked, kept while in use, listed for people, and removed in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HostError, ImageError, TemplateDamagedError, UsageError
from harness.fork.manifest import (
    DISK,
    FORMAT,
    MANIFEST,
    RAM,
    STATE,
    TemplateManifest,
    check_template,
    digest,
    find_fault,
    read_manifest,
    seal,
)
from harness.fork.store import (
    Stored,
    evict,
    image_in_use,
    list_stored,
    remove,
    template_in_use,
    templates_folder,
)
from harness.guest.images import GuestImage, images_folder
from harness.host.cache import built_folder, cache_limit_bytes, lock_of, locked
from harness.vm.shape import VmShape

HIL = [sys.executable, "-m", "harness"]
RAM_BYTES = 64 << 20
RAM_DATA_BYTES = 3 << 20
IMAGE_KEY = "00000000000000aa"
CHUNK_BYTES = 1 << 20


def fill(folder: Path, *, image_key: str = IMAGE_KEY, key: str | None = None) -> None:
    """Put the files of a template into a folder, as a build does."""
    with (folder / RAM).open("wb") as ram:
        ram.write(os.urandom(RAM_DATA_BYTES))
        ram.truncate(RAM_BYTES)
    (folder / STATE).write_bytes(os.urandom(4096))
    (folder / DISK).write_bytes(os.urandom(8192))
    # A folder under construction has the key in its hidden name.
    name = key or folder.name.lstrip(".").partition("-")[0]
    seal(
        folder,
        lambda files: TemplateManifest(
            format=FORMAT,
            key=name,
            guest="reference",
            shape=VmShape(),
            accelerator="tcg",
            qemu_version="7.2.22",
            image_key=image_key,
            driver_sha256="0" * 64,
            built_at_s=1.0,
            **asdict(files),
        ),
        read_only_ram=True,
    )


class Cache:
    """A cache with templates and images of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add_template(self, key: str, *, image_key: str = IMAGE_KEY, used_at_s: int = 0) -> Path:
        target = templates_folder(self.folder) / key
        with template_in_use(target, lambda scratch: fill(scratch, image_key=image_key)):
            pass
        self._use(target, used_at_s)
        return target

    def add_image(self, key: str = IMAGE_KEY, *, used_at_s: int = 0) -> Path:
        target = images_folder(self.folder) / f"reference-{key}"
        built_folder(target, lambda scratch: None)
        (target / "disk.img").write_bytes(os.urandom(1 << 20))
        self._use(target, used_at_s)
        return target

    def stored(self, folder: Path) -> Stored:
        kind = "template" if folder.parent == templates_folder(self.folder) else "image"
        [found] = [item for item in list_stored(self.folder, kind) if item.folder == folder]
        return found

    def bytes(self) -> int:
        """Return what all of it takes on disk."""
        kinds = list_stored(self.folder, "template"), list_stored(self.folder, "image")
        return sum(item.disk_bytes for items in kinds for item in items)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this cache."""
        return subprocess.run(
            [*HIL, *arguments],
            env={**os.environ, "HIL_CACHE": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def _use(self, folder: Path, used_at_s: int) -> None:
        for path in (folder, folder / MANIFEST, lock_of(folder)):
            if path.exists() and used_at_s:
                os.utime(path, (used_at_s, used_at_s))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def hide_changes(template: Path) -> None:
    """Have the manifest say that the files were last changed when they were, as by a disk that went bad."""
    manifest = json.loads((template / MANIFEST).read_text())
    for name in manifest["changed_ns"]:
        stat = (template / name).stat()
        manifest["changed_ns"][name] = [stat.st_mtime_ns, stat.st_ctime_ns]
    (template / MANIFEST).write_text(json.dumps(manifest))


def must_not_build(_scratch: Path) -> None:
    raise AssertionError("built again")


def change(path: Path, alter: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    alter(data)
    path.chmod(0o600)
    path.write_bytes(data)


def flip_a_bit(data: bytearray) -> None:
    data[len(data) // 64] ^= 1


def cut(data: bytearray) -> None:
    del data[-1:]


class TestFault:
    def test_of_a_whole_one_is_none(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        assert find_fault(template) is None
        assert find_fault(template, thorough=True) is None

    @pytest.mark.parametrize("name", [RAM, STATE, DISK, MANIFEST])
    def test_of_a_file_missing(self, cache: Cache, name: str) -> None:
        template = cache.add_template("a" * 16)
        (template / name).unlink()
        assert find_fault(template) == f"{name}: No such file or directory"

    @pytest.mark.parametrize("name", [RAM, STATE, DISK])
    def test_of_a_file_cut_short(self, cache: Cache, name: str) -> None:
        template = cache.add_template("a" * 16)
        change(template / name, cut)
        assert re.match(rf"{name} has \d+ bytes, not the \d+ that were saved", find_fault(template) or "")

    def test_of_a_state_with_one_bit_flipped(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        change(template / STATE, flip_a_bit)
        assert find_fault(template) == "state is not what was saved"

    @pytest.mark.parametrize("name", [RAM, DISK])
    def test_of_memory_or_disk_with_one_bit_flipped_is_seen_by_its_times(
        self, cache: Cache, name: str
    ) -> None:
        template = cache.add_template("a" * 16)
        before = (template / name).stat()
        change(template / name, flip_a_bit)
        assert find_fault(template) == f"{name} is not what was saved"
        os.utime(template / name, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert find_fault(template) == f"{name} is not what was saved"

    @pytest.mark.parametrize("name", [RAM, DISK])
    def test_of_what_no_time_shows_takes_a_thorough_look(self, cache: Cache, name: str) -> None:
        template = cache.add_template("a" * 16)
        change(template / name, flip_a_bit)
        hide_changes(template)
        assert find_fault(template) is None
        assert find_fault(template, thorough=True) == f"{name} is not what was saved"

    def test_of_the_device_state_is_found_though_no_time_shows_it(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        assert find_fault(template, thorough=True) is None
        change(template / STATE, flip_a_bit)
        hide_changes(template)
        assert find_fault(template) == f"{STATE} is not what was saved"

    def test_of_a_copy_with_other_times_is_none(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        for name in (RAM, STATE, DISK):
            os.utime(template / name, (1, 1))
        assert find_fault(template) is None

    def test_once_found_stays(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        check_template(template)
        change(template / RAM, flip_a_bit)
        hide_changes(template)
        for _time in range(2):
            with pytest.raises(TemplateDamagedError, match=r"damaged \(ram is not what was saved\)"):
                check_template(template)
        change(template / RAM, flip_a_bit)
        assert find_fault(template) == "ram is not what was saved", "it is not used again"

    def test_of_one_that_is_gone(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        shutil.rmtree(template)
        with pytest.raises(TemplateDamagedError, match=r"manifest\.json: No such file"):
            check_template(template)

    def test_of_another_format(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        text = (template / MANIFEST).read_text()
        (template / MANIFEST).write_text(text.replace(f'"format": {FORMAT}', '"format": 99'))
        assert find_fault(template) == f"it is of format 99, not {FORMAT}"

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 2}', b"\xff"])
    def test_of_a_manifest_that_is_none(self, cache: Cache, data: bytes) -> None:
        template = cache.add_template("a" * 16)
        (template / MANIFEST).write_bytes(data)
        assert find_fault(template) == f"{MANIFEST} is no manifest of format {FORMAT}"

    def test_of_one_under_anothers_name(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        other = template.rename(template.with_name("b" * 16))
        assert find_fault(other) == f"it is template {'a' * 16}"


class TestSeal:
    def test_makes_the_files_read_only_and_remembers_the_shape(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        assert {path.name: path.stat().st_mode & 0o777 for path in template.iterdir()}.items() >= {
            (RAM, 0o400),
            (STATE, 0o400),
            (DISK, 0o400),
        }
        assert read_manifest(template).shape == VmShape()

    def test_leaves_the_memory_to_a_qemu_that_opens_it_for_writing(self, tmp_path: Path) -> None:
        folder = tmp_path / ("a" * 16)
        folder.mkdir()
        fill(folder)
        manifest = read_manifest(folder)
        seal(folder, lambda _files: manifest, read_only_ram=False)
        assert (folder / RAM).stat().st_mode & 0o777 == 0o600
        assert (folder / STATE).stat().st_mode & 0o777 == 0o400


class TestDigest:
    @given(
        st.integers(0, 3 * CHUNK_BYTES),
        st.dictionaries(st.integers(0, 3 * CHUNK_BYTES), st.binary(max_size=9)),
    )
    def test_is_for_the_content_whatever_of_it_is_a_hole(
        self, tmp_path_factory: pytest.TempPathFactory, length: int, places: dict[int, bytes]
    ) -> None:
        folder = tmp_path_factory.mktemp("digest")
        sparse, dense = folder / "sparse", folder / "dense"
        with sparse.open("wb") as file:
            for offset, data in places.items():
                file.seek(offset)
                file.write(data)
            file.truncate(length)
        dense.write_bytes(sparse.read_bytes())
        assert digest(sparse) == digest(dense)
        if length:
            change(dense, lambda data: data.__setitem__(length // 2, data[length // 2] ^ 1))
            assert digest(sparse) != digest(dense)
        with dense.open("ab") as file:
            file.write(b"\0")
        assert digest(sparse) != digest(dense)
        shutil.rmtree(folder)


class TestInUse:
    def test_a_damaged_one_is_built_again_and_a_line_says_so(
        self, cache: Cache, caplog: pytest.LogCaptureFixture
    ) -> None:
        template = cache.add_template("a" * 16)
        change(template / STATE, flip_a_bit)
        with template_in_use(template, fill) as again:
            assert find_fault(again, thorough=True) is None
        [said] = caplog.messages
        assert said == f"{template} is damaged (state is not what was saved); building it again"

    def test_a_whole_one_is_not_built_again_and_was_used_now(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16, used_at_s=1000)
        assert cache.stored(template).used_at_s == 1000
        with template_in_use(template, must_not_build):
            pass
        assert cache.stored(template).used_at_s > 1000

    def test_by_many_at_once(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        with template_in_use(template, must_not_build), template_in_use(template, must_not_build):
            assert cache.stored(template).in_use
        assert not cache.stored(template).in_use

    def test_is_not_removed(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        with (
            template_in_use(template, must_not_build),
            pytest.raises(HostError, match="is in use; end the runs"),
        ):
            remove(cache.stored(template), cache.folder)
        assert find_fault(template, thorough=True) is None
        assert [item.folder for item in remove(cache.stored(template), cache.folder)] == [template]
        assert list(templates_folder(cache.folder).iterdir()) == []

    def test_is_not_removed_by_another_process(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        with template_in_use(template, must_not_build):
            done = cache.call("template", "remove", "aaaa")
            assert done.returncode == 3
            assert done.stderr == (
                f"hil: template {'a' * 16} is in use; end the runs that use it, then remove it\n"
            )
        assert cache.call("template", "remove", "aaaa").returncode == 0
        assert not template.exists()

    def test_an_image_whose_template_is_in_use_is_not_removed(self, cache: Cache) -> None:
        image, template = cache.add_image(), cache.add_template("a" * 16)
        with (
            template_in_use(template, must_not_build),
            pytest.raises(HostError, match=r"template a+ is in use"),
        ):
            remove(cache.stored(image), cache.folder)
        assert image.is_dir()
        assert template.is_dir()

    def test_an_image_of_the_users_own_is_only_read(self, cache: Cache, tmp_path: Path) -> None:
        disk = tmp_path / "own" / "windows.qcow2"
        disk.parent.mkdir()
        disk.touch()
        image = GuestImage("key", disk, "qcow2", None, None, "", disk, "")
        with image_in_use(image, cache.folder):
            assert [path.name for path in disk.parent.iterdir()] == [disk.name]
        assert [path.name for path in tmp_path.iterdir()] == ["own"]

    def test_an_image_that_was_removed_meanwhile_is_an_error(self, cache: Cache) -> None:
        disk = cache.add_image() / "disk.img"
        image = GuestImage(IMAGE_KEY, disk, "raw", None, None, "", disk, "")
        remove(cache.stored(disk.parent), cache.folder)
        with (
            pytest.raises(ImageError, match="was removed meanwhile; run again"),
            image_in_use(image, cache.folder),
        ):
            raise AssertionError("an image that is gone was given")

    def test_a_lock_removed_with_its_folder_keeps_nobody_out(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        with locked(lock_of(template)):
            lock_of(template).unlink()
            with template_in_use(template, must_not_build):
                pass


class TestRemove:
    def test_an_image_takes_its_templates_along(self, cache: Cache) -> None:
        image = cache.add_image()
        mine, other = cache.add_template("a" * 16), cache.add_template("b" * 16, image_key="00000000000000bb")
        removed = remove(cache.stored(image), cache.folder)
        assert {item.folder for item in removed} == {image, mine}
        assert not image.exists()
        assert not mine.exists()
        assert find_fault(other, thorough=True) is None


class TestEvict:
    def test_takes_the_least_recently_used_first_and_no_more_than_needed(self, cache: Cache) -> None:
        folders = [
            cache.add_template(letter * 16, used_at_s=at) for at, letter in ((30, "a"), (10, "b"), (20, "c"))
        ]
        limit_bytes = cache.bytes() - 1
        assert [item.key[0] for item in evict(cache.folder, limit_bytes)] == ["b"]
        assert [folder.exists() for folder in folders] == [True, False, True]
        assert cache.bytes() <= limit_bytes
        assert evict(cache.folder, limit_bytes) == []

    def test_takes_nothing_in_use(self, cache: Cache) -> None:
        used, idle = cache.add_template("a" * 16, used_at_s=10), cache.add_template("b" * 16, used_at_s=20)
        with locked(lock_of(used), shared=True):
            assert [item.folder for item in evict(cache.folder, 0)] == [idle]
        assert find_fault(used, thorough=True) is None

    def test_takes_an_image_after_the_last_of_its_templates(self, cache: Cache) -> None:
        image, template = cache.add_image(used_at_s=10), cache.add_template("a" * 16, used_at_s=20)
        with locked(lock_of(template), shared=True):
            assert evict(cache.folder, 0) == []
        assert {item.folder for item in evict(cache.folder, 0)} == {template}
        assert [item.folder for item in evict(cache.folder, 0)] == [image]

    def test_counts_what_is_on_disk_not_the_length_of_sparse_memory(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        assert RAM_DATA_BYTES < cache.stored(template).disk_bytes < RAM_BYTES / 2

    def test_clears_what_killed_builds_left_but_not_what_is_being_built(self, cache: Cache) -> None:
        parent = templates_folder(cache.folder)
        dead, alive = parent / f".{'a' * 16}-dead_1", parent / f".{'b' * 16}-alive1"
        for scratch in (dead, alive):
            scratch.mkdir(parents=True)
            (scratch / RAM).write_text("half")
        with locked(lock_of(parent / ("b" * 16))):
            assert list_stored(cache.folder, "template") == []
            evict(cache.folder, 1 << 40)
        assert not dead.exists()
        assert alive.exists()


class TestLimit:
    @pytest.mark.parametrize(("text", "size_bytes"), [("1 GiB", 1 << 30), ("", 20 << 30), (None, 20 << 30)])
    def test_is_a_size_with_unit(
        self, monkeypatch: pytest.MonkeyPatch, text: str | None, size_bytes: int
    ) -> None:
        monkeypatch.delenv("HIL_CACHE_LIMIT", raising=False)
        if text is not None:
            monkeypatch.setenv("HIL_CACHE_LIMIT", text)
        assert cache_limit_bytes() == size_bytes

    @pytest.mark.parametrize("text", ["20", "much", "-1 GiB", "0 GiB"])
    def test_that_is_none_is_wrong_usage(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("HIL_CACHE_LIMIT", text)
        with pytest.raises(UsageError, match=r"^HIL_CACHE_LIMIT: .*allowed: a number and"):
            cache_limit_bytes()


class TestCommandLine:
    def test_lists_what_is_there(self, cache: Cache) -> None:
        cache.add_image()
        cache.add_template("a" * 16)
        damaged = cache.add_template("b" * 16)
        (damaged / RAM).unlink()
        done = cache.call("template", "list")
        assert done.returncode == 0, done.stderr
        assert re.search(
            rf"^{'a' * 16} +reference +1 of 4 +1 GiB +4 up to 8 GiB +QEMU 7\.2\.22 tcg"
            r" +\d+ s +\d+ s +\d MiB$",
            done.stdout,
            re.MULTILINE,
        )
        assert re.search(
            rf"^{'b' * 16} .* damaged: ram: No such file or directory$", done.stdout, re.MULTILINE
        )
        done = cache.call("image", "list")
        assert re.search(rf"^reference-{IMAGE_KEY} +2 +\d+ s +\d+ s +1 MiB$", done.stdout, re.MULTILINE)

    def test_finds_damaged_memory_when_told_to_verify(self, cache: Cache) -> None:
        template = cache.add_template("a" * 16)
        assert cache.call("template", "list", "--verify").returncode == 0
        change(template / RAM, flip_a_bit)
        hide_changes(template)
        assert "damaged" not in cache.call("template", "list").stdout
        done = cache.call("template", "list", "--verify")
        assert done.returncode == 3
        assert "damaged: ram is not what was saved" in done.stdout
        assert done.stderr.startswith("hil: 1 of 1 templates damaged; ")

    def test_says_that_there_is_nothing(self, cache: Cache) -> None:
        assert cache.call("template", "list").stdout == f"no templates in {cache.folder}\n"
        assert cache.call("image", "list").stdout == f"no images in {cache.folder}\n"

    def test_removes_an_image_by_the_beginning_of_its_key(self, cache: Cache) -> None:
        image, template = cache.add_image(), cache.add_template("a" * 16)
        done = cache.call("image", "remove", IMAGE_KEY)
        assert done.returncode == 0, done.stderr
        assert f"removed image reference-{IMAGE_KEY}, 1 MiB\n" in done.stdout
        assert f"removed template {'a' * 16}, 3 MiB\n" in done.stdout
        assert not image.exists()
        assert not template.exists()

    def test_removes_all(self, cache: Cache) -> None:
        cache.add_template("a" * 16)
        cache.add_template("b" * 16)
        assert cache.call("template", "remove", "--all").returncode == 0
        assert list_stored(cache.folder, "template") == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["remove"], "hil template remove: name templates by their keys, or say --all"),
            (["remove", "--all", "a"], "hil template remove: name templates by their keys, or say --all"),
            (["remove", "a"], "a: begins 2 templates; give more of the key"),
            (["remove", "c"], "c: no such template; hil template list shows them"),
        ],
    )
    def test_wrong_usage(self, cache: Cache, arguments: list[str], said: str) -> None:
        for last in "12":
            cache.add_template("a" * 15 + last)
        done = cache.call("template", *arguments)
        assert (done.returncode, done.stderr) == (2, f"hil: {said}\n")
        assert len(list_stored(cache.folder, "template")) == 2
