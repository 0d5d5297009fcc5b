"""One code of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sterna.domain.refusals.codes import Code


class By(StrEnum):
    """Which process checks it."""

    SOURCE = "source agent"
    DESTINATION = "destination agent"
    AGENTS = "both agents"
    CONTROLLER = "controller"
    ALL = "controller and agents"


class Against(StrEnum):
    """What it speaks against."""

    VM = "vm"
    """The VM, its host, or the request: every other destination would refuse as well."""
    HOST = "host"
    """This destination, or this pair of hosts: another destination may take the VM."""


@dataclass(frozen=True)
class Entry:
    """What a code means.

    A refusal's message and fix name the things and the commands; this is what all refusals of the code share.
    """

    code: Code
    cause: str
    """What is true when it is raised: one sentence."""
    remedy: str
    """What the operator does, written as a `fix`; it is the fix of a refusal that comes without one."""
    by: By
    when: str
    """`plan`: in `sterna plan`, and again when a migration is accepted; P2, P6, ...: the row of the protocol."""
    since: str = "0.1.0"
    """The version of Sterna that raised it first."""
    against: Against = Against.HOST
    """Operations try another host, or not (`domain/fleet/attempts.py`)."""
    passing: bool = False
    """It goes away by itself, or something could not be asked: the same migration may succeed a while later."""


@dataclass(frozen=True)
class Group:
    """Codes about one thing."""

    title: str
    entries: tuple[Entry, ...]
