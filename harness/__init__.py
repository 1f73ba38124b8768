# SPDX-License-Identifier: MIT
"""Hot-plug vCPUs and DIMMs with QEMU and judge the notification log of a driver in the guest.

Start reading at :func:`harness.run.run_plan`.
"""

__version__ = "0.1.0"
