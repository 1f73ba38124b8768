# SPDX-License-Identifier: MIT
"""A YAML document with the place of every key and value, and the units people write."""
