"""`sterna host list`, and what `sterna hosts` says of a bus that knows nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from sterna.controller.records.members import Members
from sterna.domain.trust.enrolment import EnrolledHost
from sterna.domain.trust.revocation import RevokedList
from tests.unit.cli.reading import document

from .served import Served

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)


class Listed:
    """Implements ports.identity.Enrolment."""

    def known(self) -> Mapping[str, EnrolledHost]:
        one = EnrolledHost(name="a", state="joined", addresses=("10.0.0.1", "10.1.0.1"), until=UNTIL)
        return {"b": EnrolledHost(name="b", state="removed", removed=UNTIL), "a": one}

    def revoked(self) -> RevokedList | None:
        return None

    async def hosts(self) -> Mapping[str, EnrolledHost]:
        return self.known()


def test_enrolled_hosts(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.controller.members = Members(Listed(), insecure=False)
    shown = sterna("host", "list").stdout
    assert re.search(r"^a +joined +2026-03-01 +- +10\.0\.0\.1, 10\.1\.0\.1 *$", shown, re.M)
    assert re.search(r"^b +removed +- +2026-03-01 +- *$", shown, re.M)
    listed = document(sterna("host", "list", "--json"))["hosts"]
    assert [(h["name"], h["certificate_until"]) for h in listed] == [("a", UNTIL.isoformat()), ("b", None)]
    assert sterna("hosts").stderr == ""


def test_a_host_that_may_let_in_a_removed_one(sterna, fleet: Served, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    fleet.controller.members = Members(Listed(), insecure=False)
    monkeypatch.setattr(fleet.controller.revoking, "knows", lambda host: False)
    assert "a does not have the latest list of revoked certificates" in sterna("host", "list").stdout
    listed = document(sterna("host", "list", "--json"))["hosts"]
    assert [h["knows_revoked"] for h in listed] == [False, None], "b was removed itself"


def test_without_a_ca(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.controller.members = Members(None, insecure=True)
    assert "ca_folder" in sterna("host", "list", code=5).stderr
    said = sterna("hosts")
    assert "insecure: the bus does not authenticate senders" in said.stderr and "insecure" not in said.stdout
