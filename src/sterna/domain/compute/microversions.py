"""Microversions of the Compute API: what a request asks for, and what is served."""

from __future__ import annotations

import re
from typing import NamedTuple

from sterna.domain.errors import BadRequest


class Version(NamedTuple):
    """A microversion; compares as its numbers do."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MIN, MAX = Version(2, 1), Version(2, 96)
"""Above 2.96 only fields of servers come that Sterna knows nothing of."""
_FORM = re.compile(r"([1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


def since(minor: int) -> Version:
    """2.`minor`."""
    return Version(2, minor)


def wanted(standard: str | None, legacy: str | None) -> str:
    """What the two headers ask for: the text of a version, `2.1` where they ask for none.

    `standard` is `OpenStack-API-Version`, which may name several services (`compute 2.80, volume 3.59`); `legacy`
    is `X-OpenStack-Nova-API-Version`.
    """
    for part in (standard or "").split(","):
        service, _, version = part.strip().partition(" ")
        if service.lower() == "compute":
            return version.strip()
    return (legacy or "").strip() or str(MIN)


def parse(text: str) -> Version:
    """`latest` is the newest that is served. Raises BadRequest for what is not a version; one that is not served is
    returned as it is."""
    if text == "latest":
        return MAX
    found = _FORM.fullmatch(text)
    if found is None:
        raise BadRequest(
            f"{text[:40]!r} is not a version of this API", fix=f"ask for one from {MIN} to {MAX}, or for latest"
        )
    return Version(int(found[1]), int(found[2]))


def served(version: Version) -> bool:
    """Is it one of ours?"""
    return MIN <= version <= MAX
