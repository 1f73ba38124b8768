# SPDX-License-Identifier: MIT
"""The file a user writes, whether a guest has what it asks for, and what it takes of the host."""
