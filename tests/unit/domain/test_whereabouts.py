"""The decision table "where is the guest?", a row per test case, and its laws over every combination."""

import itertools
from collections.abc import Iterable

import pytest

from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import Verdict, left_behind, locate

R, P, S, A, U = (
    GuestState.RUNNING,
    GuestState.PAUSED,
    GuestState.SHUTOFF,
    GuestState.ABSENT,
    GuestState.UNKNOWN,
)
EPOCH = 7


def see(
    state: GuestState, *, job: bool = False, epoch: int | None = EPOCH, ran: bool = False, reason: str = ""
) -> Observation:
    return Observation(state=state, reason=reason, job_active=job, epoch=epoch, ran=ran or state is R)


PC, PF = see(P, job=True, reason="postcopy"), see(P, job=True, reason="postcopy-failed")

OLD = see(R, job=True, reason="postcopy")
"""The source's QEMU has set its old copy running in post-copy."""

TABLE = [
    # source, destination, started -> verdict
    (OLD, see(R, reason="postcopy"), True, Verdict.SPENT),
    (OLD, see(R, job=True, reason="postcopy-failed"), True, Verdict.SPENT),
    (OLD, see(U, ran=True), True, Verdict.SPENT),
    (OLD, see(S, ran=True), True, Verdict.SPENT),
    (OLD, see(A), True, Verdict.WAIT),
    (see(R, reason="postcopy"), see(R, job=True, reason="postcopy-failed"), True, Verdict.SPENT),
    (see(R, job=True), see(R, job=True, reason="postcopy"), True, Verdict.WAIT),
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
    (see(P, reason="api-error"), see(A), True, Verdict.STRANDED),  # libvirt could not let it run: the interlock
    (see(P, reason="api-error"), see(S, reason="failed"), True, Verdict.STRANDED),
    (see(P, reason="api-error"), see(P), True, Verdict.WAIT),
    (see(P, reason="api-error"), see(U), True, Verdict.WAIT),
    (see(P, reason="api-error"), see(A), False, Verdict.STAYED),
    (see(P), see(S, reason="unknown", ran=True), True, Verdict.DOUBT),
    (see(P), see(S, reason="unknown"), True, Verdict.DOUBT),
    (see(P), see(S, reason="ran here", ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (see(P, reason="user"), see(A), True, Verdict.STAYED),
    (see(P, reason="unknown"), see(A), True, Verdict.STAYED),  # QEMU stopped by itself: nobody resumes it
    (see(P, reason="ioerror"), see(A), True, Verdict.STAYED),
    (see(P), see(S, reason="failed", ran=True), True, Verdict.STRANDED),
    (see(P), see(S), True, Verdict.STRANDED),  # libvirt's Finish defines it before its vCPUs run
    (see(P), see(S, ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (see(S), see(S), True, Verdict.ENDED_AT_SOURCE),
    (see(S), see(S, ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (see(S, reason="migrated"), see(A), True, Verdict.ENDED_AT_DESTINATION),
    (see(S), see(A), True, Verdict.ENDED_AT_SOURCE),
    (see(A), see(A), True, Verdict.ENDED_AT_SOURCE),
    (see(R), see(R), True, Verdict.STALE),  # libvirt lost the destination's answer and let the source run again
    (see(R), see(U, ran=True), True, Verdict.STALE),  # its libvirtd is away, its agent remembers
    (see(S), see(R, epoch=EPOCH - 1), True, Verdict.DOUBT),
    (see(S), see(R, epoch=None), True, Verdict.DOUBT),
    # post-copy: the destination runs it while the source still holds pages
    (PC, see(R, reason="postcopy", job=True), True, Verdict.IN_POSTCOPY),
    (PC, see(R, reason="unknown", job=True), True, Verdict.IN_POSTCOPY),
    (PC, see(R, reason="postcopy-failed", job=True), True, Verdict.BROKEN),
    (PF, see(R, reason="postcopy", job=True), True, Verdict.BROKEN),
    (PF, see(R, reason="postcopy-failed"), True, Verdict.BROKEN),
    (PC, see(R, reason="migrated"), True, Verdict.WAIT),  # libvirt is about to end the source's QEMU
    (see(P, reason="postcopy"), see(R, reason="migrated"), True, Verdict.ARRIVED),
    (see(U), see(R, reason="postcopy", job=True), True, Verdict.WAIT),
    (see(R), see(R, reason="postcopy", job=True), True, Verdict.DOUBT),
    (see(S, reason="migrated"), see(R, reason="postcopy", job=True), True, Verdict.WAIT),
    (see(S, reason="crashed"), see(R, reason="postcopy", job=True), True, Verdict.HALF_GONE),
    (see(S, reason="unknown"), see(R, reason="unknown", job=True), True, Verdict.HALF_GONE),  # restarted
    (see(A), see(R, reason="postcopy", job=True), True, Verdict.HALF_GONE),
    (see(S, reason="migrated"), see(R, reason="unknown", job=True), True, Verdict.WAIT),
    (see(S, reason="crashed"), see(R, reason="postcopy-failed", job=True), True, Verdict.LOST),
    (see(A), see(R, reason="postcopy-failed", job=True), True, Verdict.LOST),
    (PC, see(P, reason="incoming", job=True), True, Verdict.WAIT),
    (PC, see(P, reason="user", job=True, ran=True), True, Verdict.IN_POSTCOPY),
    (PF, see(P, reason="postcopy-failed", job=True, ran=True), True, Verdict.BROKEN),
    (PC, see(U), True, Verdict.WAIT),
    (PF, see(U), True, Verdict.WAIT),
    (PF, see(S, reason="crashed", ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (PF, see(S, reason="unknown"), True, Verdict.ENDED_AT_DESTINATION),
    (PF, see(A, ran=True), True, Verdict.ENDED_AT_DESTINATION),
    (PF, see(A), True, Verdict.ENDED_AT_SOURCE),
    (PF, see(S, epoch=EPOCH - 1, ran=True), True, Verdict.ENDED_AT_SOURCE),
]


@pytest.mark.parametrize(("source", "destination", "started", "verdict"), TABLE)
def test_each_row_of_the_table(
    source: Observation, destination: Observation, started: bool, verdict: Verdict
) -> None:
    assert locate(source, destination, epoch=EPOCH, started=started).verdict is verdict


def test_a_guest_sent_away_in_postcopy_is_never_resumed_on_the_source() -> None:
    for destination in (see(s, reason=r, epoch=e, job=j, ran=x) for s in GuestState
                        for r in ("", "postcopy", "postcopy-failed", "unknown") for e in (EPOCH, 3, None)
                        for j in (False, True) for x in (False, True)):  # fmt: skip
        for source in (PC, PF, see(P, reason="postcopy"), see(P, reason="postcopy-failed")):
            for seen in (False, True):
                found = locate(source, destination, epoch=EPOCH, started=True, handed_over=seen).verdict
                assert found not in (Verdict.STRANDED, Verdict.STAYED, Verdict.START)


def test_after_a_switch_over_had_begun_a_silent_destination_is_waited_for() -> None:
    found = locate(see(R), see(U), epoch=EPOCH, started=True, switching=True).verdict
    assert found is Verdict.WAIT
    assert locate(see(R), see(A), epoch=EPOCH, started=True, switching=True).verdict is Verdict.STAYED


def test_a_transient_guest_that_was_handed_over_and_is_gone_from_both_ended_at_the_destination() -> None:
    found = locate(see(A), see(A), epoch=EPOCH, started=True, handed_over=True)
    assert found.verdict is Verdict.ENDED_AT_DESTINATION


def every_pair() -> Iterable[tuple[Observation, Observation, bool]]:
    sources = [see(s, job=j) for s in GuestState for j in (False, True)]
    destinations = [see(s, epoch=e, ran=r) for s in GuestState for e in (EPOCH, 3, None) for r in (False, True)]
    return itertools.product(sources, destinations, (False, True))


def test_nothing_is_undone_or_resumed_while_the_guest_may_run_elsewhere() -> None:
    for source, destination, started in every_pair():
        found = locate(source, destination, epoch=EPOCH, started=started).verdict
        if destination.state is R:
            assert found in (Verdict.ARRIVED, Verdict.WAIT, Verdict.DOUBT, Verdict.STALE)
        if destination.state is U:
            assert found is not Verdict.STRANDED
            assert found is not Verdict.ENDED_AT_SOURCE


def test_forward_is_never_chosen_while_the_source_runs_it() -> None:
    for source, destination, started in every_pair():
        if source.state is R or source.job_active:
            found = locate(source, destination, epoch=EPOCH, started=started).verdict
            assert found not in (Verdict.ARRIVED, Verdict.ENDED_AT_DESTINATION, Verdict.STRANDED)


def test_a_copy_starts_only_once_and_only_from_a_running_source() -> None:
    for source, destination, started in every_pair():
        if locate(source, destination, epoch=EPOCH, started=started).verdict is Verdict.START:
            assert source.state is R
            assert not started
            assert not source.job_active


def test_left_behind_is_a_paused_pre_copy_under_way_whose_guest_runs_at_the_destination() -> None:
    waiting = see(P, job=True, reason="migration")
    assert left_behind(waiting, see(R), epoch=EPOCH)
    for source in (see(R, job=True), see(P, job=True, reason="postcopy"), see(P, reason="migration"), see(S)):
        assert not left_behind(source, see(R), epoch=EPOCH)
    for destination in (see(P), see(A), see(U), see(S, ran=True), see(R, epoch=EPOCH - 1)):
        assert not left_behind(waiting, destination, epoch=EPOCH)
