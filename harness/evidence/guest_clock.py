# SPDX-License-Identifier: MIT
"""Guest time told in host time: the guest's performance counter mapped to ``time.monotonic`` of the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self


class ClockSample(Protocol):
    """One look at the guest's counter, taken between two looks at the host's clock."""

    @property
    def boot_id(self) -> str: ...
    @property
    def qpc(self) -> int: ...
    @property
    def qpc_hz(self) -> int: ...
    @property
    def host_before_s(self) -> float: ...
    @property
    def host_after_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class GuestClock:
    """Says when, in host time, the guest's performance counter showed a value.

    Holds for one boot, and only until the guest is stopped, saved or restored.

    :ivar error_s: the true instant lies within plus or minus this, at the time of the samples.
    """

    reference_qpc: int
    reference_host_s: float
    qpc_hz: int
    error_s: float

    @classmethod
    def fit(cls, samples: Iterable[ClockSample]) -> Self:
        """Return the clock that agrees best with the samples.

        Each sample says that the counter's instant lies between two host instants; all of them together
        leave a narrower span, whose middle is taken. Where the two clocks run so differently that the spans
        exclude each other, the error covers all of them.

        :raise ValueError: for no sample, or samples of different boots or counter rates.
        """
        taken = sorted(samples, key=lambda sample: sample.host_after_s - sample.host_before_s)
        if not taken:
            raise ValueError("a guest clock needs at least one sample")
        best = taken[0]
        if any((sample.boot_id, sample.qpc_hz) != (best.boot_id, best.qpc_hz) for sample in taken):
            raise ValueError("the samples of a guest clock come from different boots")

        def since_best_s(sample: ClockSample) -> float:
            # Subtracted as whole numbers: a counter of months would lose microseconds as a float.
            return (sample.qpc - best.qpc) / best.qpc_hz

        earliest_s = max(sample.host_before_s - since_best_s(sample) for sample in taken)
        latest_s = min(sample.host_after_s - since_best_s(sample) for sample in taken)
        error_s = abs(latest_s - earliest_s) / 2
        if latest_s < earliest_s:
            error_s += (best.host_after_s - best.host_before_s) / 2
        return cls(best.qpc, (earliest_s + latest_s) / 2, best.qpc_hz, error_s)

    def host_s(self, qpc: int) -> float:
        """Return the host's ``time.monotonic`` at which the counter showed this value."""
        return self.reference_host_s + (qpc - self.reference_qpc) / self.qpc_hz
