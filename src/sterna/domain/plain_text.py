"""Text from elsewhere (names, reasons, what libvirt or another host says) for a terminal or a log. Pure."""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""They make a line read in another order than it is written."""
_UNSEEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff{_BIDI}]")
_UNSEEN_BUT_BREAKS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff{_BIDI}]")


def printable(text: str, *, breaks: bool = False) -> str:
    """The same with every character that would steer a terminal written out (`\\x1b`, `\\u202e`).

    `breaks`: line breaks and tabs stay."""
    return (_UNSEEN_BUT_BREAKS if breaks else _UNSEEN).sub(_written_out, text)


def json_safe(document: str) -> str:
    """A JSON document in which such characters are JSON's own escapes: it means the same, and steers nothing."""
    return _UNSEEN_BUT_BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _written_out(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
