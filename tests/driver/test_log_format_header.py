# SPDX-License-Identifier: MIT
"""``log_format.h`` in other people's drivers: in C, and in C++, where ``wchar_t`` is a type of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.evidence.record import LogParser
from tests.driver.test_binary import HPNOTIFY

LINK = r"\??\ACPI#PNP0C80#0x00#{3fd0f03d-92e0-45fb-b75c-5ed8ffb01021}"
PROGRAM = r"""
#include "log_format.h"
#include <stdio.h>

static const wchar_t name[] = L"%s";

int main(void)
{
    HPN_FACTS facts = {7, 133500000000000000u, 123, 4294967296u, 0, 2};
    HPN_LINE line;
    char link[HPN_LINK_CHARS + 1];
    HpnCopyLink(link, name, sizeof name / sizeof *name - 1);
    HpnBeginLine(&line, "notification", &facts);
    HpnAppendWord(&line, "class", "memory");
    HpnAppendWord(&line, "event", "arrival");
    HpnAppendWord(&line, "link", link);
    HpnEndLine(&line);
    return fwrite(line.text, 1, line.length, stdout) != line.length;
}
"""


@pytest.mark.parametrize(
    ("compiler", "standard"), [("gcc", "c99"), ("gcc", "c11"), ("g++", "c++14"), ("g++", "c++20")]
)
def test_makes_the_same_line_in_every_language(tmp_path: Path, compiler: str, standard: str) -> None:
    source, program = tmp_path / ("line.c" if compiler == "gcc" else "line.cpp"), tmp_path / "line"
    source.write_text(PROGRAM % LINK.replace("\\", "\\\\").replace("?", "\\?"))
    subprocess.run(
        [
            *(compiler, f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"),
            # As on Windows: characters of a string are UTF-16 units.
            *("-fshort-wchar", f"-I{HPNOTIFY}", "-o", program, source),
        ],
        check=True,
    )
    line = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    [record] = LogParser().feed(line.encode())
    assert (record.word, record.seq, record.link) == ("memory", 7, LINK)
