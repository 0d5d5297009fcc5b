"""The hypervisor's port is cut small: a stand-in has the few verbs that are used, and no more."""

from __future__ import annotations

import inspect

from sterna.ports import hypervisor, secrets
from sterna.ports.hypervisor import Hypervisor

AT_MOST = 5
"""Verbs of one protocol."""


def verbs(protocol: type) -> list[str]:
    """Those that this protocol adds to those it is made of."""
    return [name for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"]


def protocols() -> list[type]:
    """Those of the port, and the one it borrows."""
    found = [p for p in vars(hypervisor).values() if inspect.isclass(p) and getattr(p, "_is_protocol", False)]
    return [p for p in found if p.__module__ in (hypervisor.__name__, secrets.__name__)]


def test_a_protocol_of_the_hypervisor_has_a_few_verbs_or_is_made_of_others() -> None:
    found = {p.__name__: verbs(p) for p in protocols()}
    assert {name: much for name, much in found.items() if len(much) > AT_MOST} == {}
    assert [name for name in ("Inventory", "Mover", "Lifecycle", "Hypervisor") if found[name]] == []


def test_one_protocol_is_made_of_all_of_them() -> None:
    assert [p.__name__ for p in protocols() if p not in Hypervisor.__mro__] == []


def test_no_verb_is_in_two_of_them() -> None:
    every = [verb for p in protocols() for verb in verbs(p)]
    assert len(every) > 40
    assert sorted(every) == sorted(set(every))
