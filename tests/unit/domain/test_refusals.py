"""A refusal has a code of the catalogue and says what to do; those of other versions are taken as they come."""

from __future__ import annotations

import pytest

from sterna.domain.model import Refusal
from sterna.domain.refusals import CATALOGUE, Entry, remedy


def test_a_refusal_without_a_fix_has_the_remedy_of_its_code() -> None:
    bare = Refusal(code="memory-short", message="host2 has 200 MiB of memory free")
    assert bare.fix == CATALOGUE["memory-short"].remedy
    assert Refusal.model_validate({"code": "memory-short", "message": "", "fix": ""}).fix == bare.fix


def test_a_refusal_keeps_the_fix_it_has() -> None:
    assert Refusal(code="memory-short", message="", fix="stop web2").fix == "stop web2"


def test_a_code_of_a_newer_peer_is_taken_as_it_comes() -> None:
    sent = {"code": "disk-on-the-moon", "message": "it is far away", "fix": ""}
    assert Refusal.model_validate(sent).model_dump() == sent
    assert remedy("disk-on-the-moon") == ""


def test_nobody_is_told_to_delete_what_nova_has() -> None:
    """No call of Nova's deletes a record alone: deleting the server ends the guest and removes its volumes."""
    assert "delete" not in remedy("nova-owned") and "take" not in remedy("nova-owned")


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_an_entry_is_a_sentence_and_a_fix(entry: Entry) -> None:
    assert entry.cause[0].isupper()
    assert entry.cause.endswith(".")
    assert ". " not in entry.cause
    assert entry.remedy[0].islower()
    assert not entry.remedy.endswith(".")
