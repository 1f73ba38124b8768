# SPDX-License-Identifier: MIT
"""Where a Dask cluster is and how to get in: encrypted, unless it does not leave this host."""

from __future__ import annotations

import importlib.util
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import UsageError

INSTALL = "pip install 'hil-hotplug[cluster]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """The address of a scheduler, and the certificates to show and to trust.

    Without certificates, those of Dask's own configuration are used (``distributed.comm.tls``).
    """

    address: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def is_encrypted(self) -> bool:
        """Whether the address asks for TLS."""
        return urlsplit(self.address).scheme == "tls"

    def check(self) -> None:
        """Do nothing when these options can be used.

        :raise UsageError: they cannot; nothing was connected to.
        """
        if importlib.util.find_spec("distributed") is None:
            raise UsageError(f"a cluster needs Dask, which is not installed; install it with {INSTALL}")
        self._check_address()
        files = {"--tls-ca": self.tls_ca, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        missing = [option for option, file in files.items() if file is None]
        if 0 < len(missing) < len(files):
            raise UsageError(f"{' and '.join(missing)} must be given too; TLS needs all three files")
        for option, file in files.items():
            if file is not None and not file.is_file():
                raise UsageError(f"{option}: {file}: no such file")
        if self.is_encrypted and missing and not _dask_has_certificates():
            raise UsageError(f"{self.address} needs {', '.join(files)}; see docs/cluster.md")

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.address)
            host, port = parts.hostname, parts.port
        except ValueError as err:
            raise UsageError(f"{self.address}: {err}; an address looks like tls://head:8786") from err
        if parts.scheme not in ("tls", "tcp") or not host or port is None:
            raise UsageError(f"{self.address} is no address of a scheduler; one looks like tls://head:8786")
        if parts.scheme == "tcp" and not _is_this_host(host):
            raise UsageError(
                f"{self.address}: plain TCP is refused to another host, for whoever reaches the scheduler"
                f" runs programs on all workers; use tls://{host}:{port}, see docs/cluster.md"
            )


def _is_this_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _dask_has_certificates() -> bool:
    import dask.config

    names = ("ca-file", "client.cert", "client.key")
    return all(dask.config.get(f"distributed.comm.tls.{name}", default=None) for name in names)
