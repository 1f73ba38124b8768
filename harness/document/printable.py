# SPDX-License-Identifier: MIT
"""Text of others, shown to people: it stays on its line and has no power over the terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with whatever cannot be seen spelled out, such as escapes and line ends."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _spelled(letter) for letter in text)


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
