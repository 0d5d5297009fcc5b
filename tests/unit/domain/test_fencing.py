"""The decisions about a migration whose other host is dead and fenced: a test per row, and their laws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from sterna.domain.fencing import SourceFacts, Survivor, WriteOff, after_return, without_destination, without_source
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import Verdict

RUNNING, PAUSED, SHUTOFF = GuestState.RUNNING, GuestState.PAUSED, GuestState.SHUTOFF
ABSENT, UNKNOWN = GuestState.ABSENT, GuestState.UNKNOWN
EPOCH = 7


def seen(state: GuestState, reason: str = "", **more: Any) -> Observation:
    return Observation(state=state, reason=reason, **more)


OWN: dict[str, Any] = {"epoch": EPOCH}

DESTINATION_ROWS = [
    (seen(UNKNOWN), False, Survivor.WAIT),
    (seen(RUNNING, ran=True, **OWN), False, Survivor.TAKE_OVER),
    (seen(RUNNING, ran=True, epoch=8), False, Survivor.HOLD),
    (seen(RUNNING, ran=True), True, Survivor.HOLD),
    (seen(PAUSED, "user", ran=True, **OWN), False, Survivor.TAKE_OVER),
    (seen(PAUSED, "migration", **OWN), True, Survivor.TAKE_OVER),
    (seen(PAUSED, "postcopy-failed", ran=True, **OWN), True, Survivor.TAKE_OVER),
    (seen(PAUSED, "incoming", **OWN), False, Survivor.CLEAN_UP),
    (seen(PAUSED, "incoming", epoch=8), False, Survivor.HOLD),
    (seen(SHUTOFF, "unknown", ran=True, **OWN), False, Survivor.TAKE_OVER),
    (seen(SHUTOFF, "failed", **OWN), False, Survivor.TAKE_OVER),
    (seen(SHUTOFF, "shutdown", epoch=3), False, Survivor.CLEAN_UP),
    (seen(ABSENT), True, Survivor.TAKE_OVER),
    (seen(ABSENT), False, Survivor.CLEAN_UP),
]


@pytest.mark.parametrize(("here", "ran", "act"), DESTINATION_ROWS)
def test_the_destinations_half(here: Observation, ran: bool, act: Survivor) -> None:
    decision = without_source(here, epoch=EPOCH, ran=ran)
    assert decision.act is act
    assert decision.why


BEGUN = SourceFacts(started=True, handed_over=False, shared_disks=True)
OWN_DISKS = BEGUN._replace(shared_disks=False)
HANDED = BEGUN._replace(handed_over=True)
NOT_BEGUN = BEGUN._replace(started=False)

SOURCE_ROWS = [
    (seen(UNKNOWN), BEGUN, Verdict.WAIT),
    (seen(PAUSED, "migration", job_active=True), BEGUN, Verdict.WAIT),
    (seen(RUNNING), BEGUN, Verdict.STAYED),
    (seen(RUNNING, "postcopy"), HANDED, Verdict.SPENT),
    (seen(RUNNING, "postcopy", job_active=True), HANDED, Verdict.SPENT),
    (seen(RUNNING), NOT_BEGUN, Verdict.STAYED),
    (seen(PAUSED, "migration"), HANDED, Verdict.ENDED_AT_DESTINATION),
    (seen(PAUSED, "postcopy"), BEGUN, Verdict.ENDED_AT_DESTINATION),
    (seen(PAUSED, "postcopy-failed"), OWN_DISKS, Verdict.ENDED_AT_DESTINATION),
    (seen(PAUSED, "postcopy-failed", job_active=True), OWN_DISKS, Verdict.ENDED_AT_DESTINATION),
    (seen(PAUSED, "migration"), NOT_BEGUN, Verdict.STAYED),
    (seen(PAUSED, "user"), BEGUN, Verdict.STAYED),
    (seen(PAUSED, "ioerror"), OWN_DISKS, Verdict.STAYED),
    (seen(PAUSED, "migration"), OWN_DISKS, Verdict.STRANDED),
    (seen(PAUSED, "api-error"), OWN_DISKS, Verdict.STRANDED),
    (seen(PAUSED, "api-error"), BEGUN, Verdict.DOUBT),
    (seen(PAUSED, "migration"), BEGUN, Verdict.DOUBT),
    (seen(SHUTOFF, "migrated"), BEGUN, Verdict.ENDED_AT_DESTINATION),
    (seen(SHUTOFF, "migrated"), NOT_BEGUN, Verdict.ENDED_AT_SOURCE),  # somebody else moved it
    (seen(PAUSED, "postcopy"), NOT_BEGUN, Verdict.STAYED),
    (seen(SHUTOFF, "unknown"), HANDED, Verdict.ENDED_AT_DESTINATION),
    (seen(ABSENT), HANDED, Verdict.ENDED_AT_DESTINATION),
    (seen(SHUTOFF, "crashed"), BEGUN, Verdict.ENDED_AT_SOURCE),
    (seen(SHUTOFF, "unknown"), BEGUN, Verdict.ENDED_AT_SOURCE),
    (seen(ABSENT), BEGUN, Verdict.ENDED_AT_SOURCE),
]


@pytest.mark.parametrize(("here", "facts", "verdict"), SOURCE_ROWS)
def test_the_sources_half(here: Observation, facts: SourceFacts, verdict: Verdict) -> None:
    finding = without_destination(here, facts)
    assert finding.verdict is verdict
    assert finding.why


TAKEN, LOST = WriteOff(outcome="completed", why="taken over"), WriteOff(outcome="failed", why="it was on host1")

RETURN_ROWS = [
    (seen(UNKNOWN), TAKEN, Verdict.WAIT),
    (seen(RUNNING, job_active=True), LOST, Verdict.WAIT),
    (seen(RUNNING), TAKEN, Verdict.DOUBT),
    (seen(RUNNING), LOST, Verdict.STAYED),
    (seen(PAUSED, "migration"), TAKEN, Verdict.ARRIVED),
    (seen(PAUSED, "migration"), LOST, Verdict.DOUBT),
    (seen(SHUTOFF, "unknown"), TAKEN, Verdict.ARRIVED),
    (seen(SHUTOFF, "unknown"), LOST, Verdict.ENDED_AT_SOURCE),
    (seen(ABSENT), LOST, Verdict.ENDED_AT_SOURCE),
]


@pytest.mark.parametrize(("here", "written_off", "verdict"), RETURN_ROWS)
def test_a_source_that_comes_back(here: Observation, written_off: WriteOff, verdict: Verdict) -> None:
    assert after_return(here, written_off).verdict is verdict


REASONS = (
    "",
    "migration",
    "postcopy",
    "postcopy-failed",
    "user",
    "ioerror",
    "unknown",
    "incoming",
    "migrated",
    "api-error",
)


def every_observation() -> Iterator[Observation]:
    for state, reason, job, epoch, ran in itertools.product(
        GuestState, REASONS, (False, True), (None, 3, EPOCH), (False, True)
    ):
        yield Observation(state=state, reason=reason, job_active=job, epoch=epoch, ran=ran)


def test_a_guest_torn_apart_in_post_copy_is_told_as_such() -> None:
    torn = seen(PAUSED, "postcopy-failed", ran=True, **OWN)
    assert "memory was lost" in without_source(torn, epoch=EPOCH, ran=True).why
    assert "memory" not in without_source(seen(PAUSED, "user", ran=True, **OWN), epoch=EPOCH, ran=True).why


def test_laws_of_the_sources_half() -> None:
    for here, (started, handed, shared) in itertools.product(
        every_observation(), itertools.product((False, True), repeat=3)
    ):
        verdict = without_destination(here, SourceFacts(started, handed, shared)).verdict
        assert verdict is not Verdict.START
        if verdict is Verdict.STRANDED:  # the only one that sets a guest running
            assert here.state is PAUSED and not handed and not shared and not here.reason.startswith("postcopy")
        if here.state is RUNNING:
            old = handed and here.reason.startswith("postcopy")
            assert verdict is Verdict.SPENT if old else verdict in (Verdict.STAYED, Verdict.WAIT)


def test_laws_of_the_destinations_half() -> None:
    for here, ran in itertools.product(every_observation(), (False, True)):
        act = without_source(here, epoch=EPOCH, ran=ran).act
        if act is Survivor.CLEAN_UP:  # the only one that ends or removes anything
            assert here.state is not RUNNING and not ran
            assert here.state is not PAUSED or (here.epoch == EPOCH and not here.ran)
            assert here.state is not SHUTOFF or here.epoch != EPOCH


def test_a_returned_source_never_starts_anything() -> None:
    for here, word in itertools.product(every_observation(), (TAKEN, LOST)):
        assert after_return(here, word).verdict not in (Verdict.START, Verdict.STRANDED)
