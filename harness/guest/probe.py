# SPDX-License-Identifier: MIT
"""Witness ``guest``: what the operating system says it uses, asked of ``hpprobe`` running in the guest.

On request the probe also has the guest's PnP manager tell of a device interface that no hardware is behind.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence, Set
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.deadline import Deadline
from harness.errors import GuestError, UsageError
from harness.evidence.guest_clock import GuestClock
from harness.evidence.witness import ClockReading, GuestState
from harness.wires.ssh import RemoteProcess, SshConnection

#: As many as a guest's clock is fitted to.
KEPT_SAMPLES = 5

# What the probe takes, guest-driver/probe/announce.h.
_NAME = re.compile(r"[a-z0-9]{1,64}")

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


_Answer = TypeVar("_Answer", bound=ProbeAnswer)


class ProbeSample(ProbeAnswer):
    """An answer, and when it was asked and received on the host's ``time.monotonic``."""

    host_before_s: float
    host_after_s: float

    @property
    def state(self) -> GuestState:
        """The figures the guest is judged by."""
        return GuestState(
            active_processors=self.active_processors,
            memory_bytes=self.memory_bytes,
            boot_id=self.boot_id,
            reading=self.reading,
        )

    @property
    def reading(self) -> ClockReading:
        """The guest's two clocks, read at one time."""
        return ClockReading(qpc=self.qpc, qpc_hz=self.qpc_hz, time_100ns=self.system_time_100ns)


class ToldInterface(BaseModel):
    """A device interface of which the guest's PnP manager told programs that it came or went."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    number: _Positive  #: without gaps
    interface_class: Literal["processor", "memory"] = Field(alias="class")
    event: Literal["arrival", "removal"]
    qpc: _Count
    link: str


class ToldAnswer(ProbeAnswer):
    """A line of the probe that was to say of what programs were told; None if it cannot know."""

    told: tuple[ToldInterface, ...] | None = None


class AnnounceAnswer(ProbeAnswer):
    """A line of the probe after it was to announce a device interface; a probe that cannot says neither."""

    announced: str | None = None  #: the symbolic link, as drivers see it
    announce_error: str | None = None


class Probe:
    """``hpprobe --loop`` kept running in the guest, so that a question costs one round trip.

    :ivar samples: the latest answers, at most :data:`KEPT_SAMPLES`, the oldest first.
    """

    def __init__(self, process: RemoteProcess) -> None:
        self._process = process
        self._asked = 0
        self._told = 0  #: number of the last interface of which programs were told
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
        sample, _ = self._sample(ProbeAnswer, "", deadline=deadline)
        return sample

    def look(self, *, deadline: Deadline) -> tuple[ProbeSample, tuple[ToldInterface, ...] | None]:
        """Ask once, also for the interfaces of which programs were told since this was last asked.

        None for those where the guest does not tell the probe.

        :raise GuestError: as :meth:`sample`, or there were more than it keeps.
        """
        sample, answer = self._sample(ToldAnswer, " told", deadline=deadline)
        for one in answer.told or ():
            if one.number != self._told + 1:
                count = one.number - self._told - 1
                raise GuestError(
                    f"the probe in the guest lost {count} interfaces of which programs were told"
                )
            self._told = one.number
        return sample, answer.told

    def _sample(
        self, model: type[_Answer], request: str, *, deadline: Deadline
    ) -> tuple[ProbeSample, _Answer]:
        self._asked += 1
        question = str(self._asked)
        before_s = time.monotonic()
        self._process.write_line(f"{question}{request}", deadline=deadline)
        # To a probe that does not know the request the whole line is the question's id.
        answer = self._answer(model, {question, f"{question}{request}"}, deadline=deadline)
        known = {name: getattr(answer, name) for name in ProbeAnswer.model_fields}
        sample = ProbeSample(**known, host_before_s=before_s, host_after_s=time.monotonic())
        self.samples.append(sample)
        return sample, answer

    def announce(
        self,
        class_: Literal["processor", "memory"],
        event: Literal["arrival", "removal"],
        *,
        name: str,
        deadline: Deadline,
    ) -> str:
        """Have the guest's PnP manager tell of a device interface without hardware; return its symbolic link.

        When this returns, every driver's callback has on the reference guest; on Windows it may come later.
        The interface is gone with the probe on Windows; the reference guest keeps it until its removal.

        :param name: the device's instance: up to 64 of a to z and 0 to 9.
        :raise UsageError: the name is another.
        :raise DeadlineExpiredError: no answer in time; a late one does not disturb the next question.
        :raise GuestError: the guest refused, with its reason: an arrival of what is there, a removal of what
            is not, a probe that cannot announce; or the probe ended, or said something that is no answer.
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"the name {name!r} of an announced device is not up to 64 of a-z and 0-9")
        self._asked += 1
        question = str(self._asked)
        what = f"announce {class_} {event} {name}"
        request = f"{question} {what}"
        self._process.write_line(request, deadline=deadline)
        # To a probe that knows no announcements the whole line is the question's id.
        answer = self._answer(AnnounceAnswer, {question, request}, deadline=deadline)
        if answer.announced is not None:
            return answer.announced
        reason = answer.announce_error or "this probe cannot announce anything; it is an old one"
        raise GuestError(f"the guest did not {what}: {reason}")

    def clock(self, *, samples: int = 8, deadline: Deadline) -> GuestClock:
        """Ask several times and return how the guest's performance counter maps to host time."""
        return GuestClock.fit([self.sample(deadline=deadline) for _ in range(samples)])

    def _answer(self, model: type[_Answer], ids: Set[str], *, deadline: Deadline) -> _Answer:
        """Return the answer to the question of one of these ids; late answers to others are dropped."""
        while True:
            line = self._process.read_line(deadline=deadline)
            answer = _parse(line, model)
            if answer.id in ids:
                return answer
            asked = answer.id.partition(" ")[0]
            if not (asked.isdecimal() and int(asked) < self._asked):
                raise GuestError(f"the probe in the guest was asked {self._asked} and answered {line[:200]}")

    def close(self) -> None:
        """End the probe."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _parse(line: str, model: type[_Answer]) -> _Answer:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise GuestError(f"the probe in the guest said {line[:200]!r}: {problem}") from error
