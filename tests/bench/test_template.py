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

from harness.deadline import Deadline
from harness.document.units import MIB
from harness.errors import HostError
from harness.fork.template import find_template, template_for, template_key
from harness.guest.bench import SshBench
from harness.guest.images import GuestImage
from harness.guest.profile import CpuModel, Deadlines, DriverHome, Firmware, Limits, Links, Ssh, SshProfile
from harness.guest.ssh_guest import SshGuest
from harness.host.cache import file_hash
from harness.host.tools import find_tool
from harness.plan.plan import Plan
from harness.run.session import Session
from harness.vm.accelerator import Accelerator
from harness.vm.backend import Backend
from harness.vm.shape import Node, Topology, VmShape
from tests.opening import open_for

OTHER = Path("/somewhere/else")

#: By field of a shape that is no number: another value.
SHAPE_CHANGES = {
    "topology": Topology(threads=2),
    "nodes": (Node(vcpus=4, memory="1 GiB"),),
    "backend": Backend(type="memfd"),
    "machine": "pc",
    "start": "paused",
}
#: By field of a profile: another value that makes another template.
PROFILE_CHANGES = {
    "machine": "pc",
    "firmware": Firmware(code="/usr/share/OVMF/OVMF_CODE_4M.fd"),
    "cpu_model": CpuModel(tcg="qemu64", kvm="qemu64"),
    "tcg_thread": "multi",
    "network_device": "e1000e",
    "disk_device": "ide-hd",
    "driver": DriverHome(service="other", directory=r"C:\other"),
    "driver_log": r"C:\other.log",
    "probe": "other.exe",
    "qemu_args": ("-device", "i6300esb"),
}
#: What a template does not depend on: what is only for reading, asking, waiting and judging.
PROFILE_REST = {
    "description": "other",
    "system": "windows",
    "limits": Limits(max_vcpus=2),
    "ssh": Ssh(user="other", shell="cmd"),
    "require": ("driver",),
    "ost": "recorded",
    "told": "recorded",
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
    def key(self, bench: SshBench, plan: Plan) -> Callable[..., str]:
        """Return the key of the bench with some fields changed."""

        def key(*, shape: VmShape = plan.vm, **changes: Any) -> str:
            return template_key(replace(bench, **changes), shape)

        return key

    @pytest.mark.parametrize("field", VmShape.model_fields)
    def test_changes_with_the_shape(self, key: Callable[..., str], plan: Plan, field: str) -> None:
        now = getattr(plan.vm, field)
        other = SHAPE_CHANGES[field] if field in SHAPE_CHANGES else now + 1
        assert key(shape=plan.vm.model_copy(update={field: other})) != key()

    def test_changes_with_the_firmwares_variables(
        self, key: Callable[..., str], bench: SshBench, tmp_path: Path
    ) -> None:
        path, code = tmp_path / "vars.fd", tmp_path / "code.fd"
        code.write_bytes(b"code")
        without, named = ({"code": str(code), **more} for more in ({}, {"vars": str(path)}))

        def key_of(firmware: dict[str, str]) -> str:
            changed = {"firmware": Firmware.model_validate(firmware)}
            return key(profile=bench.profile.model_copy(update=changed))

        path.write_bytes(b"one")
        one = key_of(named)
        assert one != key_of(without)
        path.write_bytes(b"two")
        assert key_of(named) != one
        path.write_bytes(b"one")
        assert key_of(named) == one

    @pytest.mark.parametrize("field", ["driver", "probe"])
    def test_changes_with_the_bytes_of_a_program(
        self, key: Callable[..., str], bench: SshBench, tmp_path: Path, field: str
    ) -> None:
        path: Path = getattr(bench, field)
        assert key(**{field: bytes_changed(path, tmp_path)}) != key()
        (tmp_path / path.name).write_bytes(path.read_bytes())
        assert key(**{field: tmp_path / path.name}) == key()

    def test_changes_with_the_accelerator_but_not_with_the_reason_for_it(
        self, key: Callable[..., str], bench: SshBench
    ) -> None:
        chosen = bench.accelerator.name
        other = "tcg" if chosen == "kvm" else "kvm"
        assert key(accelerator=Accelerator(other, "test")) != key()
        assert key(accelerator=Accelerator(chosen, "another reason")) == key()

    @pytest.mark.parametrize("field", PROFILE_CHANGES)
    def test_changes_with_the_profile(self, key: Callable[..., str], bench: SshBench, field: str) -> None:
        other = bench.profile.model_copy(update={field: PROFILE_CHANGES[field]})
        assert key(profile=other) != key()

    def test_changes_with_the_drivers_parameters_but_not_with_where_its_file_lies(
        self, key: Callable[..., str], bench: SshBench
    ) -> None:
        def key_of(**changes: Any) -> str:
            home = bench.profile.driver.model_copy(update=changes)
            return key(profile=bench.profile.model_copy(update={"driver": home}))

        assert key_of(parameters={"Level": 1}) != key_of(parameters={"Level": 2}) != key()
        assert key_of(file="elsewhere.sys", signature="required") == key()

    @pytest.mark.parametrize("field", PROFILE_REST)
    def test_is_not_for_the_rest_of_the_profile(
        self, key: Callable[..., str], bench: SshBench, field: str
    ) -> None:
        other = bench.profile.model_copy(update={field: PROFILE_REST[field]})
        assert getattr(other, field) != getattr(bench.profile, field)
        assert key(profile=other) == key()

    @pytest.mark.parametrize("field", IMAGE_CHANGES)
    def test_changes_with_the_image(self, key: Callable[..., str], bench: SshBench, field: str) -> None:
        assert key(image=replace(bench.image, **{field: IMAGE_CHANGES[field]})) != key()

    @pytest.mark.parametrize("field", IMAGE_REST)
    def test_is_not_for_the_keys_to_the_image(
        self, key: Callable[..., str], bench: SshBench, field: str
    ) -> None:
        assert key(image=replace(bench.image, **{field: IMAGE_REST[field]})) == key()

    def test_changes_when_qemu_is_upgraded(
        self, key: Callable[..., str], bench: SshBench, tmp_path: Path
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
        assert PROFILE_CHANGES.keys() | PROFILE_REST.keys() | {"image"} == SshProfile.model_fields.keys()
        assert IMAGE_CHANGES.keys() | IMAGE_KEYED | IMAGE_REST.keys() == {
            field.name for field in fields(GuestImage)
        }
        assert {field.name for field in fields(SshBench)} == {
            *("profile", "image", "accelerator", "driver", "probe", "cache", "qemu"),
            "failures",  # what came of building one is no part of it
        }


# On the guest's disk, and in memory only.
PLACES = ("/root/fork", "/dev/shm/fork")
DIMM_BYTES = 128 << 20


def shell(guest: SshGuest, script: str) -> str:
    return guest.ssh.run(["sh", "-c", script], deadline=Deadline.after(30)).check().text.strip()


def write(guest: SshGuest, text: str) -> None:
    """Write a text to each place, through to the disk, and forget what is cached of it."""
    for place in PLACES:
        shell(guest, f"echo {text} >{place}")
    forget(guest)


def forget(guest: SshGuest) -> None:
    """Let the guest's next reads of its disk be reads of the disk."""
    shell(guest, "sync; echo 3 >/proc/sys/vm/drop_caches")


def read(guest: SshGuest) -> list[str]:
    """Return what each place holds; nothing when it is not there."""
    return [shell(guest, f"cat {place} 2>/dev/null || true") for place in PLACES]


def figures(guest: SshGuest) -> tuple[int, int]:
    """Return how many processors and how much memory the guest uses."""
    sample = guest.probe.sample(deadline=Deadline.after(30))
    return sample.active_processors, sample.memory_bytes


def plug(guest: SshGuest) -> None:
    """Plug a DIMM and a vCPU, and wait until the guest uses both."""
    processors, memory_bytes = figures(guest)
    slot = next(slot for slot in guest.vm.vcpu_slots() if slot.free)
    guest.vm.plug_dimm(DIMM_BYTES, device_id="dimm0")
    guest.vm.plug_vcpu(slot, device_id="vcpu0")
    deadline = Deadline.after(30)
    while figures(guest) != (processors + 1, memory_bytes + DIMM_BYTES):
        assert not deadline.expired()


def test_room_for_a_template_is_looked_for_before_its_guest_is_booted(
    bench: SshBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.host.room.free_bytes", lambda _folder: 1087 * MIB)
    other = replace(bench, cache=tmp_path / "cache", failures={})
    with (
        pytest.raises(HostError) as caught,
        template_for(other, VmShape.model_validate({"memory": "1 GiB"}), folder=tmp_path / "evidence"),
    ):
        pass
    assert str(caught.value) == (
        f"a template of {bench.profile.name} takes up to 1088 MiB in {tmp_path}/cache, and 1087 MiB is free"
        " there; make room there, such as by hil template remove, or have HIL_CACHE name another folder"
    )
    assert not (tmp_path / "evidence").exists()


class TestForks:
    @pytest.fixture
    def fork(self, session: Session, bench: SshBench, plan: Plan) -> Callable[[], Any]:
        @contextmanager
        def fork() -> Iterator[SshGuest]:
            folder = session.evidence_folder(plan)
            with open_for(bench, plan, folder=folder) as guest:
                yield guest

        return fork

    @pytest.fixture
    def template(self, session: Session, bench: SshBench, plan: Plan) -> Path:
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
