# SPDX-License-Identifier: MIT
"""The driver's log, format 1: text in, records out; and the gaps that show lost records.

The format is the contract between ``hpnotify.sys`` and this module and is described in
``docs/driver-log.md``: ASCII, one record per line, ``key=value`` separated by one space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from harness.errors import DriverLogError

FORMAT = 1

_U32_MAX = 2**32 - 1
_U64_MAX = 2**64 - 1

#: The keys that open every line, in this order, with the largest value of each number.
_COMMON_KEYS = {
    "seq": _U64_MAX,
    "record": None,
    "time_100ns": _U64_MAX,
    "qpc": _U64_MAX,
    "active_processors": _U32_MAX,
    "memory_bytes": _U64_MAX,
    "lost": _U64_MAX,
}

#: The keys each kind of record must have after the common ones. More may follow and are kept.
_KEYS_OF_KIND = {
    "load": ("format", "driver", "qpc_hz", "interfaces", "synchronous"),
    "baseline": (),
    "notification": ("class", "event", "link"),
    "processor_change": ("state", "number", "group", "group_number", "status"),
    "unload": (),
}

#: Keys that a later driver has at the end of a record, and an earlier one has not.
_LATER_KEYS = {"load": ("existing", "memory_from")}

#: Behind them, of any kind of record: all of these or none.
_CONTEXT_KEYS = ("irql", "thread", "apcs_disabled", "cpu")

#: The words that may stand at a key.
CHOICES = {
    "interfaces": ("both", "processor", "memory"),
    "synchronous": ("0", "1"),
    "existing": ("0", "1"),
    "class": ("processor", "memory", "other"),
    "event": ("arrival", "removal", "other"),
    "state": ("add_start", "add_complete", "add_failure", "other"),
}

#: The largest value of each number that is not a common key.
_LARGEST = {
    "format": _U32_MAX,
    "qpc_hz": _U64_MAX,
    "number": _U32_MAX,
    "group": 2**16 - 1,
    "group_number": 2**8 - 1,
    "irql": 2**8 - 1,
    "thread": _U64_MAX,
    "apcs_disabled": 2,
    "cpu": _U32_MAX,
}

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_STATUS = re.compile(r"0x[0-9a-f]{8}")
_KEY = re.compile(r"[a-z][a-z0-9_]*")

#: No record comes near this; a longer line without an end is something else than a driver log.
_LONGEST_LINE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the driver's log."""

    seq: int
    kind: str
    time_100ns: int
    qpc: int
    active_processors: int
    memory_bytes: int
    lost: int
    fields: Mapping[str, str] = field(hash=False)  #: every key after the common ones
    line: str  #: the line as the driver wrote it, without its end

    @property
    def context(self) -> Mapping[str, int]:
        """In what context it was made: irql, thread, apcs_disabled, cpu; empty if the driver does not say."""
        return {key: int(self.fields[key]) for key in _CONTEXT_KEYS if key in self.fields}

    @property
    def class_(self) -> str | None:
        """The interface class of a notification: ``processor``, ``memory`` or ``other``."""
        return self.fields.get("class")

    @property
    def event(self) -> str | None:
        """The event of a notification: ``arrival``, ``removal`` or ``other``."""
        return self.fields.get("event")

    @property
    def link(self) -> str | None:
        """The symbolic link of a notification."""
        return self.fields.get("link")

    @property
    def is_arrival(self) -> bool:
        """Whether this tells of the arrival of a processor or of memory."""
        return self.class_ in ("processor", "memory") and self.event == "arrival"

    @property
    def interface(self) -> tuple[str, str]:
        """Class and link of a notification; the letter case of a link does not matter."""
        return self.class_ or "", (self.link or "").lower()

    @property
    def tells_existing(self) -> bool:
        """Whether this opens a load that is told of the interfaces that exist already."""
        return self.kind == "load" and self.fields.get("existing", "0") == "1"

    @property
    def word(self) -> str:
        """The word a plan uses for this record, or one that no plan uses.

        Plans use ``processor`` and ``memory`` (arrivals), ``processor_removal`` and ``memory_removal``,
        ``add_start``, ``add_complete``, ``add_failure``, ``load``, ``baseline`` and ``unload``.
        ``other arrival`` is in no plan.
        """
        if self.kind == "notification":
            if self.is_arrival:
                return f"{self.class_}"
            is_removal = self.class_ in ("processor", "memory") and self.event == "removal"
            return f"{self.class_}_removal" if is_removal else f"{self.class_} {self.event}"
        return self.fields["state"] if self.kind == "processor_change" else self.kind


class LogParser:
    """Turns the bytes of a growing log into records; a line not yet ended waits for its rest."""

    def __init__(self) -> None:
        self._tail = b""
        self._line_number = 0

    @property
    def pending(self) -> bytes:
        """The bytes of a line that has not ended yet."""
        return self._tail

    def feed(self, data: bytes) -> list[Record]:
        """Return the records completed by these bytes.

        :raise DriverLogError: a line is no record, naming the line. The parser is of no use afterwards.
        """
        *lines, self._tail = (self._tail + data).split(b"\n")
        records = []
        for line in lines:
            self._line_number += 1
            records.append(self._parse(line))
        if len(self._tail) > _LONGEST_LINE_BYTES:
            self._line_number += 1
            raise self._error("has no end")
        return records

    def _parse(self, raw: bytes) -> Record:
        if len(raw) > _LONGEST_LINE_BYTES:
            raise self._error("is too long")
        if any(not 0x20 <= byte <= 0x7E for byte in raw):
            raise self._error(f"is not printable ASCII: {raw[:60]!r}")
        line = raw.decode("ascii")
        values = self._split(line)
        numbers = self._common_numbers(values)
        kind = values["record"]
        if kind not in _KEYS_OF_KIND:
            raise self._error(f"has the unknown record kind '{kind}'; known: {', '.join(_KEYS_OF_KIND)}")
        fields = {key: value for key, value in values.items() if key not in _COMMON_KEYS}
        self._check_fields(kind, fields)
        if (kind == "load") != (numbers["seq"] == 0):
            raise self._error("breaks the rule that seq=0 is the load record, and only it")
        return Record(**numbers, kind=kind, fields=fields, line=line)

    def _split(self, line: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for part in line.split(" "):
            key, equals, value = part.partition("=")
            if not equals or not _KEY.fullmatch(key):
                raise self._error(f"has '{part[:60]}' where key=value must be")
            if key in values:
                raise self._error(f"has the key '{key}' twice")
            values[key] = value
        return values

    def _common_numbers(self, values: Mapping[str, str]) -> dict[str, int]:
        if list(values)[: len(_COMMON_KEYS)] != list(_COMMON_KEYS):
            raise self._error(f"does not start with the keys {' '.join(_COMMON_KEYS)}")
        numbers = {}
        for key, largest in _COMMON_KEYS.items():
            if largest is not None:
                if not _DECIMAL.fullmatch(values[key]) or int(values[key]) > largest:
                    raise self._error(f"has {key}={values[key][:30]}, not a number up to {largest}")
                numbers[key] = int(values[key])
        return numbers

    def _check_fields(self, kind: str, fields: Mapping[str, str]) -> None:
        keys = _KEYS_OF_KIND[kind]
        if tuple(fields)[: len(keys)] != keys:
            raise self._error(f"is a {kind} record without the keys {' '.join(keys)} in this order")
        context = tuple(key for key in fields if key in _CONTEXT_KEYS)
        if context not in ((), _CONTEXT_KEYS):
            raise self._error(f"has {' '.join(context)} where {' '.join(_CONTEXT_KEYS)} must be, or none")
        for key in (*keys, *(later for later in _LATER_KEYS.get(kind, ()) if later in fields), *context):
            self._check_value(key, fields[key])
        if kind == "load" and fields["format"] != str(FORMAT):
            raise self._error(f"announces format {fields['format'][:30]}; this harness reads format {FORMAT}")

    def _check_value(self, key: str, value: str) -> None:
        if key in CHOICES and value not in CHOICES[key]:
            raise self._error(f"has {key}={value[:30]}; allowed: {', '.join(CHOICES[key])}")
        if key in _LARGEST and not (_DECIMAL.fullmatch(value) and int(value) <= _LARGEST[key]):
            raise self._error(f"has {key}={value[:30]}, not a number up to {_LARGEST[key]}")
        if key == "status" and not _STATUS.fullmatch(value):
            raise self._error(f"has {key}={value[:30]}, not 0x and 8 hex digits")
        if not value and key != "link":
            raise self._error(f"has {key}= without a value")

    def _error(self, problem: str) -> DriverLogError:
        return DriverLogError(f"line {self._line_number} of the driver's log {problem}")


@dataclass(frozen=True, slots=True)
class Gap:
    """Two neighbouring records of one load whose sequence numbers do not follow each other."""

    before: Record
    after: Record

    @property
    def missing(self) -> int:
        """How many records are missing between the two; zero or less when the numbers went back."""
        return self.after.seq - self.before.seq - 1


def find_gaps(records: Iterable[Record]) -> list[Gap]:
    """Return every place where a sequence number is not its predecessor's plus one.

    A load record starts counting anew; what precedes the first record given is not known and no gap.
    """
    return [
        Gap(before, after)
        for before, after in pairwise(records)
        if after.kind != "load" and after.seq != before.seq + 1
    ]
