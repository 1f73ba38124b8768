# SPDX-License-Identifier: MIT
"""This machine: its programs, its cache, and how much of it many plans may use."""
