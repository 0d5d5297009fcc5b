"""Texts that become part of a command, a path or XML. Pure."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ISCSI_NAME = re.compile(r"(?!-)[^\s,\"'\\\x00-\x20\x7f-\x9f]{1,223}")


def is_plain(text: str) -> bool:
    """One line of text that no option could be taken for."""
    return not text.startswith("-") and CONTROL.search(text) is None


def is_uuid(text: str) -> bool:
    """With its hyphens; in capitals as well."""
    return UUID.fullmatch(text) is not None
