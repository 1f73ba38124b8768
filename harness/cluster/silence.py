# SPDX-License-Identifier: MIT
"""Which workers of a cluster have fallen silent: a process that was frozen keeps its connections open."""

from __future__ import annotations

from collections.abc import Mapping

#: A worker tells its scheduler every few seconds at most that it lives, whatever its plans do.
SILENT_WITHIN_S = 60.0
#: Of what happened between two looks further apart than this, nothing is known.
LOOK_WITHIN_S = 30.0


class Silence:
    """How long each worker has not been heard of, by the caller's own clock and the scheduler's word."""

    def __init__(self) -> None:
        self._looked_at_s = 0.0
        self._heard: dict[str, tuple[float, float]] = {}

    def look(self, last_seen: Mapping[str, float], *, at_s: float) -> list[str]:
        """Return which workers are silent by now.

        :param last_seen: when the scheduler last heard of each, by its clock; only whether it moves counts.
        :param at_s: now, by a clock of the caller's that only moves forward.
        """
        if at_s - self._looked_at_s > LOOK_WITHIN_S:
            self._heard.clear()
        self._looked_at_s = at_s
        before = self._heard
        self._heard = {
            worker: before[worker] if worker in before and before[worker][0] == seen else (seen, at_s)
            for worker, seen in last_seen.items()
        }
        return [worker for worker, (_, since_s) in self._heard.items() if at_s - since_s >= SILENT_WITHIN_S]
