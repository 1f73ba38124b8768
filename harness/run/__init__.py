# SPDX-License-Identifier: MIT
"""Plans on benches: one plan step by step, many at once, and what is reported."""
