"""The decision table "where is the guest?", a row per test case, and its laws over every combination."""

import itertools

import pytest

from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import Verdict, locate

R, P, S, A, U = (
    GuestState.RUNNING,
    GuestState.PAUSED,
    GuestState.SHUTOFF,
    GuestState.ABSENT,
    GuestState.UNKNOWN,
)
EPOCH = 7


def see(state, *, job=False, epoch=EPOCH, ran=False, reason=""):
    return Observation(state=state, reason=reason, job_active=job, epoch=epoch, ran=ran or state is R)


TABLE = [
    # source, destination, started -> verdict
    (see(R), see(A), False, Verdict.START),
    (see(R), see(A), True, Verdict.STAYED),
    (see(R), see(P), True, Verdict.STAYED),
    (see(R), see(U), True, Verdict.STAYED),
    (see(R, job=True), see(P), True, Verdict.WAIT),
    (see(P, job=True), see(P), True, Verdict.WAIT),
    (see(P, job=True), see(R), True, Verdict.WAIT),
    (see(P), see(R), True, Verdict.ARRIVED),
    (see(S), see(R), True, Verdict.ARRIVED),
    (see(A), see(R), True, Verdict.ARRIVED),
    (see(S), see(P, ran=True), True, Verdict.ARRIVED),
    (see(P), see(P), True, Verdict.WAIT),
    (see(S), see(P), True, Verdict.WAIT),
    (see(P), see(U), True, Verdict.WAIT),
    (see(S), see(U), True, Verdict.WAIT),
    (see(U), see(A), True, Verdict.WAIT),
    (see(U), see(R), True, Verdict.WAIT),
    (see(P), see(A), True, Verdict.STRANDED),
    (see(P), see(A), False, Verdict.STAYED),
    (see(P), see(S, epoch=EPOCH - 1), True, Verdict.STRANDED),
    (see(P), see(S, epoch=EPOCH - 1, ran=True), True, Verdict.STRANDED),
    (see(S), see(S, epoch=EPOCH - 1, ran=True), True, Verdict.ENDED_AT_SOURCE),
    (see(P, reason="migration"), see(A), True, Verdict.STRANDED),
    (see(P), see(S, reason="unknown", ran=True), True, Verdict.DOUBT),
    (see(P), see(S, reason="unknown"), True, Verdict.DOUBT),
    (see(P), see(S, reason="ran here", ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (see(P, reason="user"), see(A), True, Verdict.STAYED),
    (see(P), see(S, reason="failed", ran=True), True, Verdict.STRANDED),
    (see(P), see(S), True, Verdict.STRANDED),  # libvirt's Finish defines it before its vCPUs run
    (see(P), see(S, ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (see(S), see(S), True, Verdict.ENDED_AT_SOURCE),
    (see(S), see(S, ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (see(S, reason="migrated"), see(A), True, Verdict.ENDED_AT_DESTINATION),
    (see(S), see(A), True, Verdict.ENDED_AT_SOURCE),
    (see(A), see(A), True, Verdict.ENDED_AT_SOURCE),
    (see(R), see(R), True, Verdict.DOUBT),
    (see(S), see(R, epoch=EPOCH - 1), True, Verdict.DOUBT),
    (see(S), see(R, epoch=None), True, Verdict.DOUBT),
]


@pytest.mark.parametrize(("source", "destination", "started", "verdict"), TABLE)
def test_each_row_of_the_table(source, destination, started, verdict):
    assert locate(source, destination, epoch=EPOCH, started=started).verdict is verdict


def test_a_transient_guest_that_was_handed_over_and_is_gone_from_both_ended_at_the_destination():
    found = locate(see(A), see(A), epoch=EPOCH, started=True, handed_over=True)
    assert found.verdict is Verdict.ENDED_AT_DESTINATION


def every_pair():
    sources = [see(s, job=j) for s in GuestState for j in (False, True)]
    destinations = [see(s, epoch=e, ran=r) for s in GuestState for e in (EPOCH, 3, None) for r in (False, True)]
    return itertools.product(sources, destinations, (False, True))


def test_nothing_is_undone_or_resumed_while_the_guest_may_run_elsewhere():
    for source, destination, started in every_pair():
        found = locate(source, destination, epoch=EPOCH, started=started).verdict
        if destination.state is R:
            assert found in (Verdict.ARRIVED, Verdict.WAIT, Verdict.DOUBT)
        if destination.state is U:
            assert found is not Verdict.STRANDED
            assert found is not Verdict.ENDED_AT_SOURCE


def test_forward_is_never_chosen_while_the_source_runs_it():
    for source, destination, started in every_pair():
        if source.state is R or source.job_active:
            found = locate(source, destination, epoch=EPOCH, started=started).verdict
            assert found not in (Verdict.ARRIVED, Verdict.ENDED_AT_DESTINATION, Verdict.STRANDED)


def test_a_copy_starts_only_once_and_only_from_a_running_source():
    for source, destination, started in every_pair():
        if locate(source, destination, epoch=EPOCH, started=started).verdict is Verdict.START:
            assert source.state is R
            assert not started
            assert not source.job_active
