# SPDX-License-Identifier: MIT
"""Where a plan may go, and what comes back as evidence: decided without a cluster."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cluster.overdue import BUILD_WITHIN_S, Overdue, longest_s
from harness.cluster.resources import VCPUS, demanded, offered, placed
from harness.cluster.silence import SILENT_WITHIN_S, Silence
from harness.cluster.worker import available_guests, pack, unpack
from harness.document.units import GIB, MIB
from harness.errors import BenchError
from harness.guest.profile import Deadlines
from harness.host.amounts import Amounts
from harness.host.budget import VCPUS_PER_CORE
from harness.plan.plan import load_plan
from tests.e2e.test_command_line import write_plan
from tests.parallel.dask_cluster import PAGE

ROOT = Path(__file__).resolve().parents[2]
HOST = Amounts(vcpus=8, memory_bytes=16 * GIB, disk_bytes=100 * GIB, files=1000)
NEED = Amounts(vcpus=2, memory_bytes=2 * GIB, disk_bytes=GIB, files=32)


class TestSilence:
    def test_is_that_the_schedulers_word_of_a_worker_does_not_change(self) -> None:
        silence = Silence()
        for at_s in range(100, 100 + round(SILENT_WITHIN_S), 10):
            assert silence.look({"lives": at_s / 7, "frozen": 3.0}, at_s=at_s) == []
        at_s = 100 + SILENT_WITHIN_S
        assert silence.look({"lives": 99.0, "frozen": 3.0, "new": 3.0}, at_s=at_s) == ["frozen"]
        assert silence.look({"lives": 100.0, "frozen": 4.0, "new": 3.0}, at_s=at_s + 1) == []

    def test_is_not_what_passed_while_nobody_looked(self) -> None:
        silence = Silence()
        silence.look({"worker": 3.0}, at_s=100)
        assert silence.look({"worker": 3.0}, at_s=100 + 2 * SILENT_WITHIN_S) == []

    def test_ends_with_the_worker(self) -> None:
        silence = Silence()
        for at_s in range(100, 100 + round(SILENT_WITHIN_S), 10):
            silence.look({"worker": 3.0}, at_s=at_s)
        assert silence.look({}, at_s=100 + SILENT_WITHIN_S) == []
        assert silence.look({"worker": 3.0}, at_s=101 + SILENT_WITHIN_S) == []


class TestOverdue:
    def test_all_that_a_plan_waits_for_counts(self, tmp_path: Path) -> None:
        plan = write_plan(
            tmp_path,
            "plan.yaml",
            "within: 5 s\nsteps:\n  - {wait: 7 s, repeat: 2, expect: {driver: []}}\n"
            "  - {plug: {dimms: [128 MiB]}, within: 11 s, expect: {driver: [memory]}}\n",
        )
        deadlines = Deadlines.model_validate({"boot": "100 s", "command": "10 s"})
        assert longest_s(load_plan(plan), deadlines) == BUILD_WITHIN_S + 200 + 2 * (5 + 7) + 11 + 3 * 110

    def test_counts_from_each_begin_anew(self) -> None:
        assert not Overdue(longest_s=0).look(0), "it waits for a worker"
        overdue = Overdue(longest_s=1000)
        assert not overdue.look(1)
        overdue.longest_s = 0
        assert not overdue.look(1), "the deadline of a begin stands"
        assert overdue.look(2)
        assert overdue.look(2)


class TestPlaces:
    def test_a_plan_goes_where_it_fits(self) -> None:
        demand = demanded(NEED, kvm=True, guest="windows server")
        able = offered(HOST, kvm=True, guests=["reference", "windows server"])
        assert placed(demand, {"able": able}, plan="p") == demand

    def test_what_a_worker_announces_is_what_the_page_says(self) -> None:
        offer = offered(HOST, kvm=True, guests=["name"])
        rows = re.findall(r"^\| `(\w+?)(?:_?<\w+>)?` \|.*\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
        assert sorted(name for name, _ in rows) == sorted(
            re.sub(r"^(guest|sources)_.*", r"\1", name) for name in offer
        )
        assert dict(rows)[VCPUS] == f"{VCPUS_PER_CORE} per core"

    def test_more_vcpus_than_any_worker_has_are_all_of_one_that_has_the_rest(self) -> None:
        demand = demanded(Amounts(vcpus=64, memory_bytes=GIB, disk_bytes=MIB, files=1), kvm=True, guest="g")
        workers = {
            "large without KVM": {**offered(HOST, kvm=False, guests=["g"]), VCPUS: 32.0},
            "small": offered(HOST, kvm=True, guests=["g"]),
        }
        assert placed(demand, workers, plan="p")[VCPUS] == HOST.vcpus

    def test_what_each_worker_lacks_is_told(self) -> None:
        demand = demanded(NEED, kvm=True, guest="g")
        full = offered(HOST, kvm=True, guests=["g"])
        workers = {
            "a": {name: amount for name, amount in full.items() if not name.startswith("sources_")},
            "b": {name: amount for name, amount in full.items() if not name.startswith("guest_")},
            "c": offered(HOST, kvm=False, guests=["g"]),
            "d": {**full, "memory_mib": 1024.0},
            "e": {**full, "disk_mib": 0.0},
            "f": {},
        }
        with pytest.raises(BenchError) as caught:
            placed(demand, workers, plan="p")
        assert str(caught.value) == (
            "no worker can run p: a has another version of the harness or the driver;"
            " b does not have the guest g; c has no KVM;"
            " d has memory of 1024 MiB and it needs 2048 MiB; e has disk of 0 MiB and it needs 1024 MiB;"
            " f has another version of the harness or the driver"
        )
        with pytest.raises(BenchError, match="no worker can run p: there is none"):
            placed(demand, {}, plan="p")

    def test_a_guest_whose_disk_is_elsewhere_is_not_announced(self, tmp_path: Path) -> None:
        profile = (ROOT / "testplans/guests/reference.yaml").read_text()
        for file in ("here.qcow2", "here.user_key", "here.host_key.pub"):
            (tmp_path / file).touch()
        for name, disk in (("here", tmp_path / "here.qcow2"), ("gone", tmp_path / "gone.qcow2")):
            text = profile.replace("{build: reference}", f"{{disk: {disk}}}")
            (tmp_path / f"{name}.yaml").write_text(text)
        (tmp_path / "reference.yaml").write_text(profile)
        assert list(available_guests(tmp_path)) == ["here", "reference"]


class TestEvidence:
    @given(
        files=st.dictionaries(
            st.text("abc-_ .é", min_size=1, max_size=8).filter(lambda name: name.strip(". ")),
            st.binary(max_size=200),
            max_size=5,
        )
    )
    def test_comes_back_as_it_was(
        self, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        there, here = tmp_path_factory.mktemp("there"), tmp_path_factory.mktemp("here")
        (there / "template").mkdir()
        for name, content in files.items():
            (there / name).write_bytes(content)
            (there / "template" / name).write_bytes(content)
        unpack(pack(there), here)
        assert {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()} == files
        assert len([path for path in here.rglob("*") if path.is_file()]) == 2 * len(files)

    @pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", ".."])
    def test_is_never_written_elsewhere(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match="which is no file inside it"):
            unpack(archive_of(tarfile.TarInfo(name)), tmp_path / "in")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_is_plain_files_only(self, kind: bytes, tmp_path: Path) -> None:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        with pytest.raises(BenchError, match="which is no file inside it"):
            unpack(archive_of(member), tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("cut", [0, 1, 20, -9])
    def test_that_is_damaged_is_an_error(self, cut: int, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there/file").write_bytes(bytes(range(256)) * 64)
        with pytest.raises(BenchError, match="cannot be unpacked"):
            unpack(pack(tmp_path / "there")[:cut], tmp_path / "here")


def archive_of(member: tarfile.TarInfo) -> bytes:
    """Return an archive of one member without content."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(member)
    return packed.getvalue()
