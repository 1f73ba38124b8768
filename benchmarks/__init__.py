# SPDX-License-Identifier: MIT
"""What the harness costs, measured: ``python -m benchmarks`` from the project's folder."""
