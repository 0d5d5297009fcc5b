"""What the source's own hypervisor says of a guest that the destination claims to have."""

import itertools

import pytest

from sterna.domain.departure import Departure, checked, departure
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import PASSED, Finding, Verdict

R, P, S, A, U = (
    GuestState.RUNNING,
    GuestState.PAUSED,
    GuestState.SHUTOFF,
    GuestState.ABSENT,
    GuestState.UNKNOWN,
)

TABLE = [
    # source, its reason, a stream was sent whole -> departure
    (R, "booted", False, Departure.NEVER_LEFT),
    (R, "migration-canceled", True, Departure.LEFT),  # libvirt let the old copy run again
    (R, "postcopy", False, Departure.LEFT),
    (R, "booted", None, Departure.NOT_KNOWN),
    (P, "migration", False, Departure.NEVER_LEFT),  # in a switch-over that is not over
    (P, "migration", True, Departure.LEFT),
    (P, "api-error", True, Departure.LEFT),
    (P, "user", False, Departure.NEVER_LEFT),
    (P, "postcopy-failed", None, Departure.LEFT),
    (S, "migrated", None, Departure.LEFT),
    (S, "crashed", None, Departure.UNPROVEN),
    (A, "", None, Departure.UNPROVEN),
    (U, "", None, Departure.NOT_KNOWN),
]


@pytest.mark.parametrize(("state", "reason", "sent", "expected"), TABLE)
def test_each_row_of_the_table(state: GuestState, reason: str, sent: bool | None, expected: Departure) -> None:
    source = Observation(state=state, reason=reason)
    assert departure(source, stayed=False, handed_over=False, sent_anew=sent) is expected


@pytest.mark.parametrize("state", GuestState)
def test_what_the_journal_proves_is_not_asked_again(state: GuestState) -> None:
    source = Observation(state=state, reason="migration")
    for sent in (None, False, True):
        assert departure(source, stayed=True, handed_over=True, sent_anew=sent) is Departure.NEVER_LEFT
        assert departure(source, stayed=False, handed_over=True, sent_anew=sent) is Departure.LEFT


def test_no_verdict_that_the_guest_is_the_destinations_stands_against_the_sources_word() -> None:
    for verdict, seen in itertools.product(Verdict, Departure):
        found = checked(Finding(verdict, "so it is said"), seen).verdict
        if verdict not in PASSED or seen in (Departure.LEFT, Departure.UNPROVEN):
            assert found is verdict
        else:
            assert found is (Verdict.WAIT if seen is Departure.NOT_KNOWN else Verdict.DOUBT)
