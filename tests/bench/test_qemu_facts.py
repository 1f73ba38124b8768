# SPDX-License-Identifier: MIT
"""What QEMU says of itself, checked against what it does; a template's key hears of all of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.fork.template import template_key
from harness.guest.bench import Bench
from harness.guest.profile import Firmware
from harness.host.tools import find_tool
from harness.plan.plan import Plan
from harness.vm.accelerator import DEFAULT_QEMU
from harness.vm.argv import RamFile, VmConfig, command_line
from harness.vm.qemu_facts import FIRMWARE, can_fork_from_read_only, firmware_files
from harness.vm.shape import VmShape

MakeQemu = Callable[[str], str]


@pytest.fixture
def make_qemu(tmp_path: Path) -> MakeQemu:
    """Return a function that makes a QEMU that is this host's, with some shell before it."""

    def make(shell: str) -> str:
        path = tmp_path / f"qemu-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{shell}\n")
        path.chmod(0o755)
        # The file's time is part of a template's key and no matter here.
        os.utime(path, (0, 0))
        return str(path)

    return make


class TestReadOnlyMemory:
    def test_is_known_to_qemu_when_it_says_so(self, tmp_path: Path, qemu: str) -> None:
        ram = tmp_path / "ram"
        with ram.open("wb") as file:
            file.truncate(64 << 20)
        config = VmConfig(
            shape=VmShape(memory="64 MiB", max_memory="64 MiB", slots=0),
            network_device=None,
            ram_file=RamFile(path=ram, share=False, read_only=True),
        )
        argv = command_line(config, folder=tmp_path, qmp_fd=0)
        backend = argv[argv.index("-object") + 1]
        assert backend.endswith(",share=off,readonly=on,rom=off")
        # QEMU reads its monitor's commands from stdin, which ends at once.
        trial = [find_tool(qemu), "-nodefaults", "-display", "none", "-S", "-object", backend]
        done = subprocess.run(
            [*trial, "-m", "64M", "-machine", "q35,memory-backend=ram0", "-monitor", "stdio"],
            input="quit\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        accepted = done.returncode == 0
        assert can_fork_from_read_only(qemu) == accepted, done.stderr
        assert accepted or "rom" in done.stderr

    @pytest.mark.parametrize(
        ("says", "expected"),
        [
            # QEMU 10.0.2
            (
                "  readonly=<bool>\n  rom=<OnOffAuto>        - Whether to create Read Only Memory (ROM)\n",
                True,
            ),
            # QEMU 7.2.22
            ("  readonly=<bool>\n  reserve=<bool>         - Reserve swap space\n", False),
            ("  prom=<bool>            - Nothing like it\n", False),
        ],
    )
    def test_is_asked_of_the_qemu_in_use(self, make_qemu: MakeQemu, says: str, expected: bool) -> None:
        assert can_fork_from_read_only(make_qemu(f"printf '%s' '{says}'")) is expected


class TestFirmware:
    def test_is_found_where_qemu_looks(self, qemu: str) -> None:
        found = firmware_files(qemu)
        assert [path.name for path in found] == list(FIRMWARE)
        assert all(path.stat().st_size > 0 for path in found)

    def test_is_the_first_of_its_name(self, make_qemu: MakeQemu, tmp_path: Path) -> None:
        first = tmp_path / "first"
        first.mkdir()
        (first / FIRMWARE[0]).write_bytes(b"firmware")
        qemu = make_qemu(f'exec {find_tool(DEFAULT_QEMU)} -L {first} "$@"')
        found = firmware_files(qemu)
        assert found[0] == first / FIRMWARE[0]
        assert found[1:] == firmware_files()[1:]


class TestTemplateKey:
    def test_changes_with_the_firmware_of_qemu(
        self, bench: Bench, plan: Plan, make_qemu: MakeQemu, tmp_path: Path
    ) -> None:
        keys = set()
        for content in (b"one", b"two", b"one"):
            folder = tmp_path / content.decode()
            folder.mkdir(exist_ok=True)
            (folder / FIRMWARE[0]).write_bytes(content)
            # The same size every time, so that nothing but the firmware tells them apart.
            qemu = make_qemu(f'exec {find_tool(DEFAULT_QEMU)} -L {folder} "$@"')
            config = replace(bench, qemu=qemu)
            keys.add((content, self.key_but_for_the_name(config, plan)))
        assert len(keys) == 2
        assert len({key for _, key in keys}) == 2

    def key_but_for_the_name(self, bench: Bench, plan: Plan) -> str:
        """Return the key; QEMU's name, which is part of it, is the same for every bench."""
        same = Path(bench.qemu).with_name("qemu")
        same.unlink(missing_ok=True)
        Path(bench.qemu).rename(same)
        firmware_files.cache_clear()
        return template_key(replace(bench, qemu=str(same)), plan.vm)

    def test_changes_with_the_content_of_the_guests_firmware(
        self, bench: Bench, plan: Plan, tmp_path: Path
    ) -> None:
        firmware = tmp_path / "firmware.fd"
        profile = bench.profile.model_copy(update={"firmware": Firmware(code=str(firmware))})
        keys = []
        for content in (b"one", b"two", b"one"):
            firmware.write_bytes(content)
            keys.append(template_key(replace(bench, profile=profile), plan.vm))
        assert keys[0] == keys[2] != keys[1]

    def test_changes_when_an_image_of_the_same_recipe_was_built_anew(
        self, bench: Bench, plan: Plan, tmp_path: Path
    ) -> None:
        image = replace(bench.image, disk=tmp_path / "disk.img")
        keys = []
        # Built anew, it has other keys and other blocks on its disk, and old overlays do not fit it.
        for manifest in (b"first", b"second", b"first"):
            (tmp_path / "manifest.json").write_bytes(manifest)
            keys.append(template_key(replace(bench, image=image), plan.vm))
        assert keys[0] == keys[2] != keys[1]
