# SPDX-License-Identifier: MIT
"""The public key by which a guest is recognised, in OpenSSH's one-line form."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class HostKey:
    """A server's public key: its type, such as ``ssh-ed25519``, and the encoded key itself."""

    key_type: str
    blob: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<type> <base64> [comment]``, as in a ``.pub`` file.

        :raise ValueError: when it is not that.
        """
        match text.split():
            case [key_type, encoded, *_]:
                try:
                    blob = base64.b64decode(encoded, validate=True)
                except (binascii.Error, ValueError):
                    blob = b""
                # RFC 4253 section 6.6: the encoded key repeats its type, length first.
                name = key_type.encode()
                if blob.startswith(len(name).to_bytes(4, "big") + name):
                    return cls(key_type, blob)
        raise ValueError("the pinned host key is not a line of the form '<type> <base64> [comment]'")

    @property
    def fingerprint(self) -> str:
        """The key's SHA-256, written as ``ssh-keygen -l`` does."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
