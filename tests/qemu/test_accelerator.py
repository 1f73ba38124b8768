# SPDX-License-Identifier: MIT
"""KVM is chosen only where it runs a guest. The KVMs here are real QEMUs under TCG, sound or spoilt."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.vm import accelerator
from harness.vm.accelerator import (
    DEFAULT_QEMU,
    Accelerator,
    choose_accelerator,
    find_qemu_version,
    run_boot_sector,
    run_kernel,
)
from tests.other_qemu import other_qemu

SOUND = 'exec "$QEMU" "$@"'
#: Spoilt KVMs: one that hangs with everything, one that aborts, one that only hangs with a kernel.
HANGS = 'exec "$QEMU" "$@" -S'
ABORTS = 'echo "failed to set MSR 0x10a" >&2; kill -ABRT $$'
#: One that does not do on its first run.
BUSY_AT_FIRST = f'case "$(wc -l < "${{0%/*}}/runs")" in 1) {ABORTS};; *) {SOUND};; esac'
HANGS_WITH_A_KERNEL = f'case "$*" in *-kernel*) {HANGS};; *) {SOUND};; esac'


@pytest.fixture(autouse=True)
def kvm_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that opens, whether or not this host has KVM, so that only the QEMU matters."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "KVM_DEVICE", device)
    return device


def fake_kvm(folder: Path, how: str, *, qemu: str = DEFAULT_QEMU) -> str:
    """Return a QEMU that, asked for KVM, runs TCG in its place as told, and counts its runs in ``runs``."""
    fake = folder / "qemu-with-kvm"
    fake.write_text(f"""#!/bin/sh
QEMU={qemu}
echo run >> {folder}/runs
for word do
    shift
    case "$word" in kvm) word=tcg;; host) word=max;; esac
    set -- "$@" "$word"
done
{how}
""")
    fake.chmod(0o755)
    return str(fake)


def tiny_kernel(folder: Path, code: bytes) -> Path:
    """Return a kernel that runs the code at once, made after the Multiboot specification 0.6.96."""
    magic, flags, base = 0x1BADB002, 1 << 16, 0x100000
    entry = base + 32
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, base, base, 0, 0, entry)
    kernel = folder / "kernel"
    kernel.write_bytes(header + code)
    return kernel


HALT = bytes([0xF4, 0xEB, 0xFD])
# mov dx, 0x3f8; mov al, 'x'; out dx, al
PRINT = bytes([0x66, 0xBA, 0xF8, 0x03, 0xB0, ord("x"), 0xEE])
# mov al, 0xfe; out 0x64, al: the keyboard controller's reset
RESET = bytes([0xB0, 0xFE, 0xE6, 0x64])


def test_a_boot_sector_runs_under_tcg(qemu: str) -> None:
    assert run_boot_sector("tcg", "max", qemu=qemu) is None


def test_a_boot_sector_that_does_not_run_says_why(tmp_path: Path, qemu: str) -> None:
    hung = run_boot_sector("kvm", "host", qemu=fake_kvm(tmp_path, HANGS, qemu=qemu), within_s=0.3)
    assert hung == "it hung for 0.3 s"
    aborted = run_boot_sector("kvm", "host", qemu=fake_kvm(tmp_path, ABORTS))
    assert aborted is not None
    assert "SIGABRT" in aborted
    assert "MSR 0x10a" in aborted


def test_a_kernel_must_speak_and_end(tmp_path: Path, qemu: str) -> None:
    def run(code: bytes, within_s: float = 30) -> str | None:
        kernel = tiny_kernel(tmp_path, code)
        return run_kernel("tcg", "max", kernel=kernel, qemu=qemu, within_s=within_s)

    assert run(PRINT + RESET + HALT) is None
    assert run(PRINT + HALT, within_s=1) == "it hung for 1 s"
    assert run(RESET + HALT) == "it restarted without a line on its serial port"


@pytest.mark.parametrize(
    ("how", "with_kernel", "name", "words"),
    [
        pytest.param(SOUND, True, "kvm", "the kernel kernel ran", id="sound"),
        pytest.param(SOUND, False, "kvm", "only that was tried", id="sound-boot-sector-only"),
        pytest.param(HANGS, True, "tcg", "a boot sector did not run: it hung", id="hangs"),
        pytest.param(ABORTS, False, "tcg", "SIGABRT", id="aborts"),
        pytest.param(HANGS_WITH_A_KERNEL, True, "tcg", "not a kernel: it hung", id="hangs-with-a-kernel"),
    ],
)
def test_auto_takes_kvm_only_if_it_runs_a_guest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qemu: str,
    how: str,
    with_kernel: bool,
    name: str,
    words: str,
) -> None:
    monkeypatch.setattr(accelerator, "BOOT_SECTOR_WITHIN_S", 1.0 if how == HANGS else 30.0)
    monkeypatch.setattr(accelerator, "KERNEL_WITHIN_S", 1.0 if how == HANGS_WITH_A_KERNEL else 30.0)
    fake = fake_kvm(tmp_path, how, qemu=qemu)
    kernel = tiny_kernel(tmp_path, PRINT + RESET + HALT) if with_kernel else None
    found = choose_accelerator("auto", qemu=fake, cache_dir=tmp_path / "cache", kernel=kernel)
    assert found.name == name
    assert words in found.reason
    if name == "tcg":
        with pytest.raises(HostError, match="KVM was asked for and does not work"):
            choose_accelerator("kvm", qemu=fake, cache_dir=tmp_path / "cache", kernel=kernel)
    else:
        assert choose_accelerator("kvm", qemu=fake, cache_dir=tmp_path / "cache", kernel=kernel) == found


def test_the_answer_is_remembered_until_something_changes(tmp_path: Path) -> None:
    qemu, cache = fake_kvm(tmp_path, ABORTS), tmp_path / "cache"

    def runs() -> int:
        return len((tmp_path / "runs").read_text().splitlines())

    first = choose_accelerator("auto", qemu=qemu, cache_dir=cache)
    assert runs() == 1
    assert choose_accelerator("auto", qemu=qemu, cache_dir=cache) == first
    assert runs() == 1
    (answer,) = cache.rglob("*.json")
    answer.write_text("{")
    assert choose_accelerator("auto", qemu=qemu, cache_dir=cache) == first
    assert runs() == 2, "a damaged answer is asked for again"
    qemu = fake_kvm(tmp_path, SOUND)
    assert choose_accelerator("auto", qemu=qemu, cache_dir=cache).name == "kvm"
    assert runs() == 3, "another QEMU is another question"


def test_a_no_is_asked_again_after_some_minutes_and_at_once_by_who_insists(tmp_path: Path) -> None:
    """A host that was too busy for the trial is none without KVM."""
    qemu, cache = fake_kvm(tmp_path, BUSY_AT_FIRST), tmp_path / "cache"
    first = choose_accelerator("auto", qemu=qemu, cache_dir=cache)
    assert first.name == "tcg"
    assert re.search(r" \(tried 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\)$", first.reason)
    assert choose_accelerator("auto", qemu=qemu, cache_dir=cache) == first
    (answer,) = cache.rglob("*.json")
    remembered = json.loads(answer.read_text())

    def make_older(by_s: float) -> None:
        answer.write_text(json.dumps({**remembered, "tried_at_s": remembered["tried_at_s"] - by_s}))

    make_older(accelerator.NO_HOLDS_FOR_S / 2)
    assert choose_accelerator("auto", qemu=qemu, cache_dir=cache) == first
    for by_s in (accelerator.NO_HOLDS_FOR_S, -60.0):
        make_older(by_s)
        assert choose_accelerator("auto", qemu=qemu, cache_dir=cache).name == "kvm"
    make_older(0.0)
    assert choose_accelerator("kvm", qemu=qemu, cache_dir=cache).name == "kvm"
    make_older(0.0)
    (tmp_path / "runs").unlink()
    with pytest.raises(HostError, match="MSR 0x10a"):
        choose_accelerator("kvm", qemu=qemu, cache_dir=cache)


def test_an_answer_that_cannot_be_kept_is_an_answer(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    assert choose_accelerator("auto", qemu=fake_kvm(tmp_path, SOUND), cache_dir=cache).name == "kvm"


def test_without_the_device_nothing_is_run(tmp_path: Path, kvm_device: Path) -> None:
    kvm_device.unlink()
    qemu = fake_kvm(tmp_path, SOUND)
    found = choose_accelerator("auto", qemu=qemu, cache_dir=tmp_path)
    assert found == Accelerator("tcg", f"{kvm_device} does not open: No such file or directory")
    with pytest.raises(HostError, match="does not open"):
        choose_accelerator("kvm", qemu=qemu, cache_dir=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_tcg_is_never_questioned(tmp_path: Path) -> None:
    qemu = fake_kvm(tmp_path, SOUND)
    assert choose_accelerator("tcg", qemu=qemu, cache_dir=tmp_path) == Accelerator("tcg", "asked for")
    assert not (tmp_path / "runs").exists()


def test_old_tcg_goes_without_smap() -> None:
    tcg, kvm = Accelerator("tcg", ""), Accelerator("kvm", "")
    assert tcg.cpu_model("max", (7, 2, 22)) == "max,-smap"
    assert tcg.cpu_model("max", (10, 0, 2)) == "max"
    assert tcg.cpu_model("qemu64", (7, 2, 22)) == "qemu64"
    assert kvm.cpu_model("host", (7, 2, 22)) == "host"


def test_the_version_of_qemu_is_found_without_a_vm(qemu: str) -> None:
    assert find_qemu_version(qemu) >= (7, 2, 0)
    with pytest.raises(HostError, match="tells no version"):
        find_qemu_version("true")
    # A version, but of another program.
    with pytest.raises(HostError, match="tells no version of QEMU; it says qemu-img version"):
        find_qemu_version("qemu-img")


def test_the_two_qemus_of_the_tests_are_the_old_and_the_new() -> None:
    majors = {find_qemu_version(qemu)[0] for qemu in (DEFAULT_QEMU, str(other_qemu()))}
    assert min(majors) < 10 <= max(majors)
