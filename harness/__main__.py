# SPDX-License-Identifier: MIT
"""``python -m harness`` is ``hil``."""

import sys

# Python looks for modules in the current folder first, and that is somebody else's: a file yaml.py there
# would be taken for the library. This package and all it needs are found without it; see python -P.
if not sys.flags.safe_path:
    del sys.path[0]

from harness.cli.app import main

main()
