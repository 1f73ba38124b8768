# SPDX-License-Identifier: MIT
"""What a step of a plan can do: one file per kind. ``actions.py`` has the list."""
