"""A migration's options: read and written as every version does, whatever another version put into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sterna.controller.intents.request import MigrateRequest
from sterna.domain.forecast import Expectations, Link
from sterna.domain.journal import Migration
from sterna.domain.objective import Asked
from sterna.domain.options import MigrationOptions, Requester

JOURNALS = Path(__file__).with_name("journals_v1")
REQUESTED = MigrateRequest(vm="web1", asked=Asked(bandwidth_bytes_s=2**20)).options


def migrations() -> list[dict[str, Any]]:
    """The migrations of the version before, with all their options."""
    return [json.loads(path.read_text(encoding="utf-8"))["migration"] for path in sorted(JOURNALS.glob("*.json"))]


@pytest.mark.parametrize("written", migrations(), ids=lambda migration: migration["id"][:8])
def test_what_an_earlier_version_wrote_is_read_and_written_alike(written: dict[str, Any]) -> None:
    options = Migration.model_validate(written).options
    assert options.to_data() == written["options"]
    assert options.memory_bytes == written["options"]["memory_bytes"]
    assert options.wanted.max_downtime_ms == written["options"]["objective"]["max_downtime_ms"]
    assert options.expectations is not None and options.network_hosts == ("", "")


def test_a_request_has_what_was_said_and_nothing_else() -> None:
    assert list(REQUESTED.to_data()) == ["objective"]
    requester = Requester(user_id="u", project_id="p")
    options = MigrateRequest(vm="web1", rehearse="copy", requester=requester).options
    assert list(options.to_data()) == ["objective", "rehearse", "requester"]
    assert MigrationOptions.of_request(options.to_data()) == options


def test_what_was_agreed_is_always_written() -> None:
    """The version before reads both without asking whether they are there."""
    agreed = REQUESTED.agreed(memory_bytes=0, network_hosts=("", "")).to_data()
    assert (agreed["memory_bytes"], agreed["network_hosts"]) == (0, ["", ""])


def test_what_a_newer_version_added_is_kept() -> None:
    raw = REQUESTED.to_data() | {"colour": {"of": "the sky"}}
    options = MigrationOptions.of_request(raw).expecting(Expectations())
    assert options.to_data() == raw | {"expectations": {"load": None, "link": None}}


def test_a_migration_with_options_in_words_of_another_version_can_be_read() -> None:
    raw = {
        "objective": {"policy": "default"},
        "requester": {"user": "u"},
        "expectations": {"link": {"bandwidth_bytes_s": "enough"}},
    }
    facts = {"id": "m", "epoch": 1, "vm_uuid": "v", "vm_name": "web1", "source": "a", "destination": "b"}
    options = Migration.model_validate(facts | {"options": raw}).options
    assert (options.objective, options.requester, options.expectations) == (None, None, None)
    with pytest.raises(ValueError, match="objective"):
        _ = options.wanted


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (None, "valid dictionary"),
        ({}, "Objective"),
        ({"objective": {"policy": "default"}}, "max_downtime_ms"),
        (REQUESTED.to_data() | {"rehearse": 1}, "rehearse"),
        (REQUESTED.to_data() | {"network_hosts": "x"}, "network_hosts"),
    ],
)
def test_a_request_with_options_that_cannot_be_read_is_refused(raw: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        MigrationOptions.of_request(raw)


def test_expectations_replace_those_before() -> None:
    link = Link(bandwidth_bytes_s=1)
    assert REQUESTED.expecting(Expectations(link=link)).expectations == Expectations(link=link)
