# SPDX-License-Identifier: MIT
"""Witness ``guest``: what the operating system says it uses, asked of ``hpprobe`` running in the guest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.evidence import GuestState
from harness.guest_clock import GuestClock
from harness.ssh import RemoteProcess, SshConnection

#: As many as a guest's clock is fitted to.
KEPT_SAMPLES = 5

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]


class ProbeAnswer(BaseModel):
    """One line of the probe."""

    # A newer probe may say more.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    format: Literal[1]
    id: str
    active_processors: _Positive
    memory_bytes: _Positive
    boot_id: Annotated[str, Field(min_length=1)]
    boot_time_100ns: _Count
    qpc: _Count
    qpc_hz: _Positive
    system_time_100ns: _Count
    platform: Literal["windows", "wine"]


class ProbeSample(ProbeAnswer):
    """An answer, and when it was asked and received on the host's ``time.monotonic``."""

    host_before_s: float
    host_after_s: float

    @property
    def state(self) -> GuestState:
        """The figures the guest is judged by."""
        return GuestState(
            active_processors=self.active_processors, memory_bytes=self.memory_bytes, boot_id=self.boot_id
        )


class Probe:
    """``hpprobe --loop`` kept running in the guest, so that a question costs one round trip.

    :ivar samples: the latest answers, at most :data:`KEPT_SAMPLES`, the oldest first.
    """

    def __init__(self, process: RemoteProcess) -> None:
        self._process = process
        self._asked = 0
        self.samples: deque[ProbeSample] = deque(maxlen=KEPT_SAMPLES)

    @classmethod
    def start(cls, ssh: SshConnection, command: Sequence[str], *, deadline: Deadline) -> Self:
        """Start the probe; close it after use.

        :param command: its name or path in the guest, and arguments before ``--loop`` if any.
        """
        return cls(ssh.start([*command, "--loop"], deadline=deadline))

    def sample(self, *, deadline: Deadline) -> ProbeSample:
        """Ask once.

        :raise DeadlineExpiredError: no answer in time; a late one does not disturb the next question.
        :raise GuestError: the probe ended, or said something that is no answer.
        """
        self._asked += 1
        question = str(self._asked)
        before_s = time.monotonic()
        self._process.write_line(question, deadline=deadline)
        while True:
            line = self._process.read_line(deadline=deadline)
            sample = _parse(line, before_s=before_s, after_s=time.monotonic())
            if sample.id == question:
                self.samples.append(sample)
                return sample
            if not (sample.id.isdecimal() and int(sample.id) < self._asked):
                raise GuestError(f"the probe in the guest was asked {question} and answered {line[:200]}")

    def clock(self, *, samples: int = 8, deadline: Deadline) -> GuestClock:
        """Ask several times and return how the guest's performance counter maps to host time."""
        return GuestClock.fit([self.sample(deadline=deadline) for _ in range(samples)])

    def close(self) -> None:
        """End the probe."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _parse(line: str, *, before_s: float, after_s: float) -> ProbeSample:
    try:
        answer = ProbeAnswer.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise GuestError(f"the probe in the guest said {line[:200]!r}: {problem}") from error
    return ProbeSample(**answer.model_dump(), host_before_s=before_s, host_after_s=after_s)
