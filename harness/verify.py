# SPDX-License-Identifier: MIT
"""Judges a run: a plan's expectations and the witnesses' evidence in, mismatches out.

Pure: no clock, no file, no connection. No mismatch means passed, and any means that the product is wrong; a
bench that broke never gets here. Four layers can be to blame, and they are asked in this order:

=========  =============================================  ==================================
``vm``     did QEMU plug it?                              :func:`_check_vm`
``ospm``   did the guest's ACPI take it?                  :func:`_check_ospm`
``guest``  does the operating system use it?              :func:`_check_guest`
``driver`` was the driver told, once, in order, in time?  :class:`harness.verify_driver.DriverJudge`
=========  =============================================  ==================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.evidence import ObservedRecord, StepEvidence
from harness.mismatch import Mismatch, by_blame, first_broken
from harness.plan import Plan, Step
from harness.profile import Profile, required_witnesses
from harness.units import format_size
from harness.verify_driver import DriverJudge

__all__ = ["Mismatch", "RunJudge", "first_broken", "verify"]

# ACPI 6.5, section 6.3.5: the source events of _OST that a plug raises, and its status codes.
_PLUG_SOURCES = {0: "bus check", 1: "device check"}
_IN_PROGRESS = 0x80
_OST_STATUS = {
    0: "success",
    1: "failure without a reason given",
    2: "notification not recognized",
    _IN_PROGRESS: "insertion still in progress",
    0x81: "the operating system could not load a driver",
    0x82: "the device is not supported by the operating system",
}


def verify(
    plan: Plan,
    profile: Profile,
    steps: Sequence[StepEvidence],
    *,
    earlier: Sequence[ObservedRecord] = (),
) -> tuple[Mismatch, ...]:
    """Return every expectation of a plan that did not hold, the first broken layer first.

    :param steps: the evidence of every step of :meth:`Plan.unrolled`, in order; of fewer only if they do not
        pass, as a run ends with the first step that is not as planned.
    :param earlier: the driver's records from before the first step, so that a gap, a repeated arrival or a
        wrong baseline there is noticed too.
    :raise ValueError: the evidence is not of this plan, so that nothing passes for lack of evidence.
    """
    judge = RunJudge(plan, profile, earlier=earlier)
    for evidence in steps:
        judge.step(evidence)
    return judge.verdict()


class RunJudge:
    """Judges a run while it goes on, each step once, however many there have been.

    :param earlier: see :func:`verify`.
    """

    def __init__(self, plan: Plan, profile: Profile, *, earlier: Sequence[ObservedRecord] = ()) -> None:
        self._planned = plan.unrolled()
        self._required = required_witnesses(plan, profile)
        self._earlier = earlier
        self._driver = DriverJudge(profile)
        self._driver_before = self._driver  #: as it was before the last step judged
        self._first: StepEvidence | None = None
        self._number = 0
        self._found: list[Mismatch] = []  #: before the last step judged
        self._found_last: list[Mismatch] = []

    def step(self, evidence: StepEvidence) -> tuple[Mismatch, ...]:
        """Judge the next step, or the last one again of which more is known now.

        Returns what is not as planned so far, the first broken layer first.

        :raise ValueError: the evidence is not of that step.
        """
        if evidence.number == self._number + 1 <= len(self._planned):
            self._number += 1
            self._found += self._found_last
            if self._first is None:
                self._first = evidence
                self._found += self._driver.before_first_step(self._earlier, evidence.guest_before)
            self._driver_before = self._driver.copy()
        elif evidence.number == self._number:
            self._driver = self._driver_before.copy()
        else:
            steps = f"{self._number} of {len(self._planned)} steps"
            raise ValueError(f"evidence of step {evidence.number} after that of {steps}")
        planned, first = self._planned[self._number - 1], self._first
        assert first is not None
        _check_evidence_is_of(planned, evidence)
        self._found_last = [
            *_check_vm(evidence),
            *_check_ospm(evidence),
            *_check_guest(evidence, first),
            *self._driver.step(planned, evidence),
        ]
        return self.mismatches()

    def mismatches(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned so far, the first broken layer first."""
        found = [*self._found, *self._found_last]
        return by_blame(mismatch for mismatch in found if mismatch.witness in self._required)

    def verdict(self) -> tuple[Mismatch, ...]:
        """Return what is not as planned, of a run that is over.

        :raise ValueError: steps are missing and nothing is wrong with the others.
        """
        mismatches = self.mismatches()
        if not mismatches and self._number != len(self._planned):
            raise ValueError(f"evidence of {self._number} steps for a plan of {len(self._planned)}")
        return mismatches


def refused_before_first_step(reason: str) -> Mismatch:
    """Return the mismatch of a driver that could not even be started for the plan."""
    what = "the driver did not start"
    return Mismatch(0, "before the first step", "driver", what, "driver start succeeds", reason)


def _check_evidence_is_of(step: Step, evidence: StepEvidence) -> None:
    vcpus = sum(device.kind == "vcpu" for device in evidence.devices)
    dimms_bytes = tuple(device.size_bytes for device in evidence.devices if device.kind == "dimm")
    wanted = (step.plug.vcpus, step.plug.dimms_bytes) if step.plug else (0, ())
    if (vcpus, dimms_bytes) != wanted:
        raise ValueError(f"the evidence of step {evidence.number} is not of '{step.title}'")


def _check_vm(evidence: StepEvidence) -> Iterator[Mismatch]:
    """What QEMU says when asked again: the step's devices were added, and nothing else changed."""
    before, after = evidence.vm_before, evidence.vm_after

    def mismatch(what: str, expected: object, seen: object) -> Mismatch:
        return Mismatch(evidence.number, evidence.title, "vm", what, str(expected), str(seen))

    dimms = {device.device_id: device.size_bytes for device in evidence.devices if device.kind == "dimm"}
    vcpu_ids = {device.device_id for device in evidence.devices if device.kind == "vcpu"}

    expected_ids = sorted({*before.vcpu_ids, *vcpu_ids})
    if expected_ids != sorted(after.vcpu_ids):
        yield mismatch("hot-plugged vCPUs in the vm", _listed(expected_ids), _listed(sorted(after.vcpu_ids)))
    if before.active_vcpus + len(vcpu_ids) != after.active_vcpus:
        yield mismatch("vCPUs in the vm", _sum(before.active_vcpus, len(vcpu_ids)), after.active_vcpus)
    expected_dimms = {**before.dimm_bytes, **dimms}
    if expected_dimms != dict(after.dimm_bytes):
        yield mismatch("DIMMs in the vm", _listed_dimms(expected_dimms), _listed_dimms(after.dimm_bytes))
    dimms_bytes = _plugged_bytes(evidence)
    if before.plugged_memory_bytes + dimms_bytes != after.plugged_memory_bytes:
        yield mismatch(
            "plugged memory of the vm in bytes",
            _sum(before.plugged_memory_bytes, dimms_bytes),
            after.plugged_memory_bytes,
        )


def _check_ospm(evidence: StepEvidence) -> Iterator[Mismatch]:
    """What the guest's ACPI answered: success for each device of the step, and no failure on the way."""
    for device in evidence.devices:
        answers = [
            answer
            for answer in evidence.ospm
            if answer.device_id == device.device_id and answer.source in _PLUG_SOURCES
        ]
        statuses = [answer.status for answer in answers]
        if 0 not in statuses or not {0, _IN_PROGRESS}.issuperset(statuses):
            yield Mismatch(
                evidence.number,
                evidence.title,
                "ospm",
                f"the guest's ACPI answer (_OST) for {device.device_id}",
                f"status 0x0 ({_OST_STATUS[0]})",
                ", ".join(_ost_text(status) for status in statuses) or "no answer",
            )


def _check_guest(evidence: StepEvidence, first: StepEvidence) -> Iterator[Mismatch]:
    """What the operating system says: more by exactly what was plugged, and never booted again."""
    before, after = evidence.guest_before, evidence.guest_after

    def mismatch(what: str, expected: object, seen: object) -> Mismatch:
        return Mismatch(evidence.number, evidence.title, "guest", what, str(expected), str(seen))

    boot_id = first.guest_before.boot_id
    other_boots = [state.boot_id for state in (before, after) if state.boot_id != boot_id]
    if other_boots:
        yield mismatch("the guest booted again", f"boot {boot_id}", f"boot {other_boots[0]}")
    vcpus = sum(device.kind == "vcpu" for device in evidence.devices)
    if before.active_processors + vcpus != after.active_processors:
        yield mismatch("active processors", _sum(before.active_processors, vcpus), after.active_processors)
    dimms_bytes = _plugged_bytes(evidence)
    off_bytes = after.memory_bytes - before.memory_bytes - dimms_bytes
    if off_bytes:
        seen = f"{after.memory_bytes} ({abs(off_bytes)} too {'many' if off_bytes > 0 else 'few'})"
        yield mismatch("physical memory in bytes", _sum(before.memory_bytes, dimms_bytes), seen)


def _plugged_bytes(evidence: StepEvidence) -> int:
    return sum(device.size_bytes or 0 for device in evidence.devices)


def _sum(before: int, plugged: int) -> str:
    return f"{before + plugged} ({before} + {plugged} plugged)" if plugged else f"{before} as before"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _listed_dimms(dimms: Mapping[str, int | None]) -> str:
    return _listed([f"{name} {format_size(size_bytes or 0)}" for name, size_bytes in sorted(dimms.items())])


def _ost_text(status: int) -> str:
    return f"status {status:#x} ({_OST_STATUS.get(status, 'unknown to ACPI 6.5')})"
