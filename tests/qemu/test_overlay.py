# SPDX-License-Identifier: MIT
"""An overlay is made although the host's kernel once did not start the program that makes it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.vm.overlay import nameless_overlay

run = subprocess.run


@pytest.mark.parametrize(("number", "times"), [(errno.EFAULT, 1), (errno.EFAULT, 2), (errno.EACCES, 1)])
def test_a_start_that_the_kernel_refused_is_asked_for_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int, times: int
) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    left = [number] * times

    def refusing(*command: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        if left:
            raise OSError(left.pop(), "refused")
        return run(*command, **options)

    monkeypatch.setattr(subprocess, "run", refusing)
    overlay = nameless_overlay(tmp_path / "disk", "raw", folder=tmp_path, deadline=Deadline.after(30))
    if (number, times) == (errno.EFAULT, 1):
        with overlay as fd:
            assert os.pread(fd, 4, 0) == b"QFI\xfb"
        assert "did not start" in caplog.text
    else:
        with pytest.raises(OSError, match="refused"), overlay:
            pass
