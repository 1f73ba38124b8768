# SPDX-License-Identifier: MIT
"""Templates: a key for all they depend on, and forks that share nothing they can write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from harness.accelerator import Accelerator
from harness.cache import file_hash
from harness.deadline import Deadline
from harness.guest import Bench, Guest
from harness.host_tools import find_tool
from harness.images import GuestImage
from harness.plan import Plan, VmShape
from harness.profile import CpuModel, Deadlines, DriverHome, Limits, Links, Profile, Ssh
from harness.session import Session
from harness.template import find_template, open_guest, template_key

OTHER = Path("/somewhere/else")

#: By field of a profile: another value that makes another template.
PROFILE_CHANGES = {
    "machine": "pc",
    "firmware": "/usr/share/ovmf/OVMF.fd",
    "cpu_model": CpuModel(tcg="qemu64", kvm="qemu64"),
    "tcg_thread": "multi",
    "network_device": "e1000e",
    "disk_device": "ide-hd",
    "driver": DriverHome(service="other", directory=r"C:\other"),
    "driver_log": r"C:\other.log",
    "probe": "other.exe",
}
#: What a template does not depend on: what is only for reading, asking, waiting and judging.
PROFILE_REST = {
    "description": "other",
    "system": "windows",
    "limits": Limits(max_vcpus=2),
    "ssh": Ssh(user="other", shell="cmd"),
    "require": ("driver",),
    "deadlines": Deadlines(boot="1 s"),
    "links": Links(processor="other", memory="other"),
}
IMAGE_CHANGES = {
    "key": "0123456789abcdef",
    "kernel": OTHER,
    "initrd": OTHER,
    "append": "other",
}
#: What the image's own key stands for.
IMAGE_KEYED = {"disk", "disk_format"}
IMAGE_REST = {"user_key": OTHER, "host_key": "ssh-ed25519 AAAA other"}


def bytes_changed(path: Path, folder: Path) -> Path:
    """Return a copy with one bit flipped, under the same name."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    other = folder / path.name
    other.write_bytes(data)
    return other


class TestKey:
    @pytest.fixture
    def key(self, bench: Bench, plan: Plan) -> Callable[..., str]:
        """Return the key of the bench with some fields changed."""

        def key(*, shape: VmShape = plan.vm, **changes: Any) -> str:
            return template_key(replace(bench, **changes), shape)

        return key

    @pytest.mark.parametrize("field", VmShape.model_fields)
    def test_changes_with_the_shape(self, key: Callable[..., str], plan: Plan, field: str) -> None:
        other = plan.vm.model_copy(update={field: getattr(plan.vm, field) + 1})
        assert key(shape=other) != key()

    @pytest.mark.parametrize("field", ["driver", "probe"])
    def test_changes_with_the_bytes_of_a_program(
        self, key: Callable[..., str], bench: Bench, tmp_path: Path, field: str
    ) -> None:
        path: Path = getattr(bench, field)
        assert key(**{field: bytes_changed(path, tmp_path)}) != key()
        (tmp_path / path.name).write_bytes(path.read_bytes())
        assert key(**{field: tmp_path / path.name}) == key()

    def test_changes_with_the_accelerator_but_not_with_the_reason_for_it(
        self, key: Callable[..., str], bench: Bench
    ) -> None:
        chosen = bench.accelerator.name
        other = "tcg" if chosen == "kvm" else "kvm"
        assert key(accelerator=Accelerator(other, "test")) != key()
        assert key(accelerator=Accelerator(chosen, "another reason")) == key()

    @pytest.mark.parametrize("field", PROFILE_CHANGES)
    def test_changes_with_the_profile(self, key: Callable[..., str], bench: Bench, field: str) -> None:
        other = bench.profile.model_copy(update={field: PROFILE_CHANGES[field]})
        assert key(profile=other) != key()

    @pytest.mark.parametrize("field", PROFILE_REST)
    def test_is_not_for_the_rest_of_the_profile(
        self, key: Callable[..., str], bench: Bench, field: str
    ) -> None:
        other = bench.profile.model_copy(update={field: PROFILE_REST[field]})
        assert getattr(other, field) != getattr(bench.profile, field)
        assert key(profile=other) == key()

    @pytest.mark.parametrize("field", IMAGE_CHANGES)
    def test_changes_with_the_image(self, key: Callable[..., str], bench: Bench, field: str) -> None:
        assert key(image=replace(bench.image, **{field: IMAGE_CHANGES[field]})) != key()

    @pytest.mark.parametrize("field", IMAGE_REST)
    def test_is_not_for_the_keys_to_the_image(
        self, key: Callable[..., str], bench: Bench, field: str
    ) -> None:
        assert key(image=replace(bench.image, **{field: IMAGE_REST[field]})) == key()

    def test_changes_when_qemu_is_upgraded(
        self, key: Callable[..., str], bench: Bench, tmp_path: Path
    ) -> None:
        qemu = tmp_path / "qemu"
        qemu.write_text(f'#!/bin/sh\nexec {find_tool(bench.qemu)} "$@"\n')
        qemu.chmod(0o755)
        before = key(qemu=str(qemu))
        assert key(qemu=str(qemu)) == before
        os.utime(qemu, (0, 0))
        assert key(qemu=str(qemu)) != before

    def test_is_not_for_where_the_cache_is(self, key: Callable[..., str]) -> None:
        assert key(cache=OTHER) == key()

    def test_is_tested_with_every_field(self) -> None:
        assert PROFILE_CHANGES.keys() | PROFILE_REST.keys() | {"image"} == Profile.model_fields.keys()
        assert IMAGE_CHANGES.keys() | IMAGE_KEYED | IMAGE_REST.keys() == {
            field.name for field in fields(GuestImage)
        }
        assert {field.name for field in fields(Bench)} == {
            *("profile", "image", "accelerator", "driver", "probe", "cache", "qemu")
        }


# On the guest's disk, and in memory only.
PLACES = ("/root/fork", "/dev/shm/fork")
DIMM_BYTES = 128 << 20


def shell(guest: Guest, script: str) -> str:
    return guest.ssh.run(["sh", "-c", script], deadline=Deadline.after(30)).check().text.strip()


def write(guest: Guest, text: str) -> None:
    """Write a text to each place, through to the disk, and forget what is cached of it."""
    for place in PLACES:
        shell(guest, f"echo {text} >{place}")
    forget(guest)


def forget(guest: Guest) -> None:
    """Let the guest's next reads of its disk be reads of the disk."""
    shell(guest, "sync; echo 3 >/proc/sys/vm/drop_caches")


def read(guest: Guest) -> list[str]:
    """Return what each place holds; nothing when it is not there."""
    return [shell(guest, f"cat {place} 2>/dev/null || true") for place in PLACES]


def figures(guest: Guest) -> tuple[int, int]:
    """Return how many processors and how much memory the guest uses."""
    sample = guest.probe.sample(deadline=Deadline.after(30))
    return sample.active_processors, sample.memory_bytes


def plug(guest: Guest) -> None:
    """Plug a DIMM and a vCPU, and wait until the guest uses both."""
    processors, memory_bytes = figures(guest)
    slot = next(slot for slot in guest.vm.vcpu_slots() if slot.free)
    guest.vm.plug_dimm(DIMM_BYTES, device_id="dimm0")
    guest.vm.plug_vcpu(slot, device_id="vcpu0")
    deadline = Deadline.after(30)
    while figures(guest) != (processors + 1, memory_bytes + DIMM_BYTES):
        assert not deadline.expired()


class TestForks:
    @pytest.fixture
    def fork(self, session: Session, bench: Bench, plan: Plan) -> Callable[[], Any]:
        @contextmanager
        def fork() -> Iterator[Guest]:
            folder = session.evidence_folder(plan)
            folder.mkdir()
            with open_guest(bench, plan, folder=folder) as guest:
                yield guest

        return fork

    @pytest.fixture
    def template(self, session: Session, bench: Bench, plan: Plan) -> Path:
        return find_template(bench, plan.vm, folder=session.results)

    def test_neither_see_each_other_nor_change_the_template(
        self, fork: Callable[[], Any], template: Path
    ) -> None:
        files = sorted(template.iterdir())
        before = {path.name: file_hash(path) for path in files}
        assert set(before) == {"disk.qcow2", "manifest.json", "ram", "state"}
        with fork() as first, fork() as second:
            start = figures(second)
            assert read(first) == read(second) == ["", ""]
            write(first, "first")
            plug(first)
            forget(second)
            assert read(second) == ["", ""]
            write(second, "second")
            assert read(first) == ["first", "first"]
            assert read(second) == ["second", "second"]
            assert first.vm.state().vcpu_ids == ("vcpu0",)
            assert second.vm.state().vcpu_ids == ()
            assert figures(second) == start
        with fork() as later:
            forget(later)
            assert read(later) == ["", ""]
            assert later.vm.state().vcpu_ids == ()
            assert figures(later) == start
        assert sorted(template.iterdir()) == files
        assert {path.name: file_hash(path) for path in files} == before
