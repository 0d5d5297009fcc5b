"""The catalogue of refusals: what each code means, what to do about it, and who raises it when. Pure.

A code that is not in `Code` cannot be written: mypy compares every `Refusal(code=...)` and every comparison with a
refusal's code. `Code` is a Literal and not an enum, so that the places that raise a refusal name its code as users
see it. The type ends where messages are read: a peer of another version may know other codes, so pydantic accepts
any string (`domain/model.py`), and such a refusal is passed on as it came.

docs/reference/refusals.md is written from it. To add a code: name it in `codes.py`, describe it in the file of its
group, raise it, test it, and run `make reference`.
"""

from __future__ import annotations

from sterna.domain.refusals.codes import Code
from sterna.domain.refusals.cpu import CPU
from sterna.domain.refusals.definition import DEFINITION
from sterna.domain.refusals.disks import DISKS
from sterna.domain.refusals.entry import Against, By, Entry, Group
from sterna.domain.refusals.hosts import HOSTS
from sterna.domain.refusals.network import NETWORK
from sterna.domain.refusals.request import REQUEST
from sterna.domain.refusals.secrets import SECRETS
from sterna.domain.refusals.storage import STORAGE
from sterna.domain.refusals.stream import STREAM
from sterna.domain.refusals.vm import VM

GROUPS = (REQUEST, HOSTS, VM, CPU, DISKS, STORAGE, SECRETS, NETWORK, DEFINITION, STREAM)
CATALOGUE: dict[str, Entry] = {entry.code: entry for group in GROUPS for entry in group.entries}


def remedy(code: str) -> str:
    """What to do about it; '' for a code that this version does not know."""
    known = CATALOGUE.get(code)
    return known.remedy if known is not None else ""


__all__ = ["CATALOGUE", "GROUPS", "Against", "By", "Code", "Entry", "Group", "remedy"]
