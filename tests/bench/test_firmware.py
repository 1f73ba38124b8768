# SPDX-License-Identifier: MIT
"""UEFI firmware with variables: the guest boots with it, and every fork has variables of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import ImageError
from harness.fork.manifest import VARIABLES
from harness.fork.template import find_template
from harness.guest.profile import find_profile
from harness.guest.ssh_guest import SshGuest
from harness.host.cache import file_hash
from harness.host.checkout import PROJECT_PROFILES
from harness.plan.plan import Plan
from harness.run.run import run_plan
from harness.run.session import Session
from tests.opening import open_for

#: Debian's package ovmf.
OVMF = Path("/usr/share/OVMF")
PLAN = """
guest: uefi
steps:
  - plug: {vcpus: 1, dimms: [128 MiB]}
    expect: {driver: [processor, memory]}
"""
#: The variables lie below the code, which ends at 4 GiB, in the 4 MiB that both have in OVMF's images.
FLASH_ADDRESS = (4 << 30) - (4 << 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan and, in ``guests/``, the reference guest's profile with UEFI and variables beside it."""
    folder = tmp_path_factory.mktemp("uefi")
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "guests").mkdir()
    shutil.copy(OVMF / "OVMF_VARS_4M.fd", folder / "guests/vars.fd")
    profile = find_profile("reference", PROJECT_PROFILES).source.read_text()
    firmware = f"firmware: {{code: {OVMF / 'OVMF_CODE_4M.fd'}, vars: vars.fd}}"
    assert "firmware: seabios\n" in profile
    (folder / "guests/uefi.yaml").write_text(profile.replace("firmware: seabios", firmware))
    return folder


@pytest.fixture(scope="module")
def plan(session: Session, folder: Path) -> Plan:
    return session.load(folder / "plan.yaml")


@pytest.fixture(scope="module")
def template(session: Session, plan: Plan) -> Path:
    return find_template(session.bench(plan), plan.vm, folder=session.results)


@pytest.fixture
def fork(session: Session, plan: Plan, template: Path) -> Callable[[], Any]:
    @contextmanager
    def fork() -> Iterator[SshGuest]:
        folder = session.evidence_folder(plan)
        with open_for(session.bench(plan), plan, folder=folder) as guest:
            yield guest

    return fork


def shell(guest: SshGuest, script: str) -> str:
    return guest.ssh.run(["sh", "-c", script], deadline=Deadline.after(30)).check().text.strip()


def flash(guest: SshGuest, offset: int) -> int:
    """Return a word of the variables as the guest's processor reads it."""
    return int(shell(guest, f"busybox devmem {FLASH_ADDRESS + offset:#x} 32"), 16)


def write_flash(guest: SshGuest, offset: int, value: int) -> None:
    """Write a word of the variables as firmware does, by Intel's commands."""
    address = f"{FLASH_ADDRESS + offset:#x}"
    shell(guest, "; ".join(f"busybox devmem {address} 32 {word:#x}" for word in (0x40, value, 0xFF)))


def test_a_plan_passes_in_a_fork_and_leaves_the_templates_variables_alone(
    session: Session, plan: Plan, template: Path, folder: Path
) -> None:
    before = file_hash(template / VARIABLES)
    # The boot has written some, so it is the state after it that forks start from.
    assert before != file_hash(folder / "guests/vars.fd") == file_hash(OVMF / "OVMF_VARS_4M.fd")
    evidence = session.evidence_folder(plan)
    verdict = run_plan(plan, bench=session.bench(plan), folder=evidence)
    assert verdict.outcome == "passed", verdict
    assert file_hash(template / VARIABLES) == before
    assert file_hash(folder / "guests/vars.fd") == file_hash(OVMF / "OVMF_VARS_4M.fd")


def test_forks_have_the_templates_variables_and_then_their_own(
    fork: Callable[[], Any], template: Path, folder: Path
) -> None:
    saved, fresh = (template / VARIABLES).read_bytes(), (folder / "guests/vars.fd").read_bytes()
    words = range(0, len(fresh), 4)
    changed = next(offset for offset in words if saved[offset : offset + 4] != fresh[offset : offset + 4])
    expected = int.from_bytes(saved[changed : changed + 4], "little")
    spare = len(fresh) - 4
    with fork() as first, fork() as second:
        assert shell(first, "ls /sys/firmware/efi").split(), "it was UEFI that booted it"
        assert flash(first, changed) == flash(second, changed) == expected
        untouched = flash(second, spare)
        write_flash(first, spare, 0xCAFE)
        assert flash(second, spare) == untouched != 0xCAFE
        write_flash(second, spare, 0xBEEF)
        assert (flash(first, spare), flash(second, spare)) == (0xCAFE, 0xBEEF)
    with fork() as later:
        assert flash(later, spare) == untouched
    assert (template / VARIABLES).read_bytes() == saved


@pytest.mark.parametrize("missing", ["code", "vars"])
def test_firmware_that_is_not_there_is_told_before_anything_is_built(
    tmp_path: Path, folder: Path, missing: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    profile = tmp_path / "guests/uefi.yaml"
    wrong = {"code": ("OVMF_CODE_4M.fd", "nosuch.fd"), "vars": ("vars: vars.fd", "vars: nosuch.fd")}
    profile.write_text(profile.read_text().replace(*wrong[missing]))
    session = Session(results=tmp_path / "results")
    plan = session.load(tmp_path / "plan.yaml")
    with pytest.raises(
        ImageError,
        match=r"needs the firmware('s variables)? \S+nosuch\.fd, which is not there",
    ):
        session.bench(plan)
