# SPDX-License-Identifier: MIT
"""One QEMU: its command line, its process, its devices and its device state."""
