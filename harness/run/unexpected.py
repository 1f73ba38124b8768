# SPDX-License-Identifier: MIT
"""What nobody foresaw: one line for people, the traceback in a file for whoever mends it."""

from __future__ import annotations

import logging
import tempfile
import traceback
from datetime import datetime
from pathlib import Path

from harness.document.printable import printable
from harness.host.cache import cache_folder
from harness.run.exhaustion import exhausted

logger = logging.getLogger(__name__)

#: What the traceback of an unexpected error is called in a folder of results or evidence.
ERROR_FILE = "hil-error.log"


def told(error: BaseException, *, folder: Path | None) -> str:
    """Return one line about an unexpected error that names the file with its traceback.

    That the host has run out of something leaves no file; the traceback is in the plan's log.

    :param folder: gets the file; if it is not there, the cache does, or else the temporary folder.
    """
    used_up = exhausted(error, folder=folder)
    if used_up is not None:
        logger.info("%s", used_up, exc_info=error)
        return printable(used_up)
    text = "".join(traceback.format_exception(error))
    name = f"hil-error-{datetime.now():%Y%m%d-%H%M%S-%f}.log"
    first = [] if folder is None else [folder / ERROR_FILE]
    where = "its traceback could not be written anywhere"
    for path in (*first, cache_folder() / name, Path(tempfile.gettempdir()) / name):
        try:
            # Of several errors in one folder none is lost; a folder that is gone is not made again.
            with path.open("a", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        where = f"its traceback is in {path}"
        break
    return printable(f"unexpected {type(error).__name__}: {error}; {where}")
