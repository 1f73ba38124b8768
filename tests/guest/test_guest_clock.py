# SPDX-License-Identifier: MIT
"""The mapping from the guest's performance counter to host time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evidence.guest_clock import GuestClock

HZ = 10_000_000


@dataclass(frozen=True)
class Sample:
    qpc: int
    host_before_s: float
    host_after_s: float
    boot_id: str = "boot"
    qpc_hz: int = HZ


def taken(true_offset_s: float, instant_s: float, before_s: float, after_s: float) -> Sample:
    """Return a sample whose counter was read at that host instant, so long after and before host looks."""
    qpc = round((instant_s + true_offset_s) * HZ)
    return Sample(qpc, instant_s - before_s, instant_s + after_s)


DELAY = st.floats(1e-5, 0.5)


@given(
    st.floats(0, 1e7),
    st.lists(st.tuples(st.floats(100, 200), DELAY, DELAY), min_size=1, max_size=10),
    st.floats(0, 1000),
)
def test_the_truth_lies_within_the_error(
    offset_s: float, looks: list[tuple[float, float, float]], instant_s: float
) -> None:
    samples = [taken(offset_s, *look) for look in looks]
    clock = GuestClock.fit(samples)
    assert abs(clock.host_s(round((instant_s + offset_s) * HZ)) - instant_s) <= clock.error_s + 1e-6
    assert clock.error_s <= min(s.host_after_s - s.host_before_s for s in samples) / 2 + 1e-6


def test_samples_delayed_on_different_sides_narrow_each_other() -> None:
    clock = GuestClock.fit([taken(5, 100, 0.4, 0.01), taken(5, 101, 0.01, 0.4)])
    assert clock.error_s == pytest.approx(0.01, abs=1e-6)
    assert clock.host_s(round(107 * HZ)) == pytest.approx(102, abs=0.001)


def test_clocks_that_drift_apart_widen_the_error() -> None:
    clock = GuestClock.fit([taken(5.0, 100, 0.01, 0.01), taken(5.1, 200, 0.01, 0.01)])
    assert 0.04 < clock.error_s < 0.06


def test_a_counter_of_years_keeps_its_microseconds() -> None:
    late = 10**17
    clock = GuestClock.fit([Sample(late, 50.0, 50.0)])
    assert clock.host_s(late + HZ // 1000) == pytest.approx(50.001, abs=1e-9)


@pytest.mark.parametrize(
    "samples",
    [[], [Sample(1, 0, 1), Sample(2, 0, 1, boot_id="other")], [Sample(1, 0, 1), Sample(2, 0, 1, qpc_hz=1)]],
)
def test_samples_that_do_not_belong_together_are_refused(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="guest clock"):
        GuestClock.fit(samples)
