# SPDX-License-Identifier: MIT
"""The two ways in: QMP to QEMU and SSH to the guest. One module owns each library."""
