# SPDX-License-Identifier: MIT
"""One guest: its profile, its image, and the ways into it."""
