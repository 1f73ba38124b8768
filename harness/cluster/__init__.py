# SPDX-License-Identifier: MIT
"""The same plans on many hosts, with Dask."""
