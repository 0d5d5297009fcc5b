"""The corpus: what becomes of definitions as people have them (docs/reference/corpus.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from lxml import etree

from sterna.adapters.libvirt.xml.render import render_live
from sterna.domain.definition_changes import UNKNOWN, reason_of
from tests.corpus.arrival import LIVE, PERSISTENT, arrives, differences, plan_of
from tests.corpus.catalogue import Definition, elements, tools
from tests.corpus.corpus_page import moved_for_real
from tests.corpus.judge import Verdict, verdicts
from tests.corpus.ports import text
from tests.unit.schema_rules import RULES, class_of

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
EVERY = (*tools(), *elements())
OTHER_HYPERVISORS = "of containers or other hypervisors, which libvirt's QEMU driver does not take"
NOT_IN_THE_CORPUS = {
    "devices/*/address/zpci/@*": "of another architecture (s390x)",
    "@id": "a number of the running guest, which no tool writes",
}


def places_of(element: etree._Element, path: str = "") -> Iterator[str]:
    """As `schema_places.py` writes them."""
    for child in element:
        if not isinstance(child.tag, str):
            continue
        here = f"{path}{etree.QName(child).localname}"
        yield here
        yield from (f"{here}/@{name}" for name in map(str, child.attrib))
        yield from places_of(child, f"{here}/")


def every() -> Iterator[tuple[Definition, Verdict]]:
    """Each definition with each of its verdicts."""
    known = verdicts()
    yield from ((each, known[each.id, shared]) for each in EVERY for shared in (False, True))


@cache
def arrivals() -> tuple[tuple[Definition, Counter[str], Counter[str]], ...]:
    """What differs of each that moves, in the running guest and in the definition of its next start."""
    found = []
    for each, verdict in every():
        if verdict.moves:
            live, persistent = arrives(each, verdict)
            found.append((each, differences(verdict.migratable, live), differences(each.domain, persistent)))
    return tuple(found)


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schemas are not installed")
def test_the_schema_allows_them() -> None:
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    assert [each.id for each in EVERY if not schema.validate(etree.fromstring(text(each.domain)))] == []


def test_every_class_of_places_has_a_definition() -> None:
    places = {place for each in EVERY for place in places_of(each.domain)}
    covered = set(map(class_of, places))
    missing = [rule.pattern for rule in RULES if rule not in covered and rule.by != OTHER_HYPERVISORS]
    assert missing == list(NOT_IN_THE_CORPUS)


def test_every_refusal_says_what_is_meant_and_what_would_fix_it() -> None:
    refusals = [(each.id, refusal) for each, verdict in every() for refusal in verdict.refusals]
    assert [name for name, refusal in refusals if not refusal.message or not refusal.fix] == []
    assert [name for name, refusal in refusals if refusal.code == "check-failed"] == []


def test_shared_storage_is_never_worse() -> None:
    """But for the state of a TPM, which two hosts must not share."""
    known = verdicts()
    pairs = [(each.id, set(known[each.id, True].codes), set(known[each.id, False].codes)) for each in EVERY]
    assert [name for name, shared, own in pairs if not shared - {"tpm-shared"} <= own] == []


def test_what_was_run_for_real_had_the_same_verdict() -> None:
    ran = {each.id: each.ran for each in EVERY if each.ran}
    assert set(ran.values()) <= moved_for_real().keys()
    moves = {each.id for each, verdict in every() if verdict.moves}
    assert [name for name, kind in ran.items() if moved_for_real()[kind] and name not in moves] == []


def test_what_arrives_equals_what_left() -> None:
    unlisted = {
        each.id: [*(live.keys() - LIVE.keys()), *(persistent.keys() - PERSISTENT.keys())]
        for each, live, persistent in arrivals()
    }
    assert {name: places for name, places in unlisted.items() if places} == {}


def test_every_difference_has_a_reason() -> None:
    assert [place for place in LIVE if reason_of(place) == UNKNOWN] == []


def test_every_difference_that_is_listed_happens() -> None:
    live = {place for _, found, _ in arrivals() for place in found}
    persistent = {place for _, _, found in arrivals() for place in found}
    assert LIVE.keys() - live == set()
    assert PERSISTENT.keys() - persistent == set()


def test_a_second_move_changes_nothing_more() -> None:
    changed = []
    known = verdicts()
    for each, verdict in ((each, known[each.id, True]) for each in EVERY):
        if not verdict.moves or verdict.listens or any(nic.plug == "hostdev" for nic in verdict.vm.nics):
            continue
        plan = plan_of(verdict)
        once = render_live(text(verdict.migratable), plan)
        if differences(etree.fromstring(once), etree.fromstring(render_live(once, plan))):
            changed.append(each.id)
    assert changed == []
