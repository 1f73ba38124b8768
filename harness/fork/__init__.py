# SPDX-License-Identifier: MIT
"""A guest for every plan, forked from a template or booted."""
