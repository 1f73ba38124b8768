# SPDX-License-Identifier: MIT
"""What was seen, and judging it: pure; knows neither plans nor profiles."""
