"""Where the guest is, once an operator has declared one of the two hosts dead (ADR 7).

Called after the source has asked both hypervisors, by `find_guest.py`, `rollback.py` and `agent/fencing.py`.
The decisions are in `domain/fencing.py`.
"""

from __future__ import annotations

from sterna.domain.entries.notes import CopyStarted, CopySucceeded, WroteOffPeer
from sterna.domain.entries.source import Copied, Snapshot
from sterna.domain.fencing import SourceFacts, after_return, without_destination
from sterna.domain.model import DiskKind, GuestState, Observation
from sterna.domain.whereabouts import Finding, Verdict
from sterna.migration.context import Context

_OUTCOME = {
    Verdict.ENDED_AT_DESTINATION: "completed",
    Verdict.ENDED_AT_SOURCE: "failed",
    Verdict.STRANDED: "failed",
}
"""Verdicts that rest on the declaration; the others rest on what is seen here."""


def source_facts(ctx: Context) -> SourceFacts:
    """What this journal knows of the copy."""
    history, settled = ctx.history, ctx.history.find(WroteOffPeer)
    handed_over = ctx.handed_over or history.has(CopySucceeded) or history.has(Copied)
    shared = False
    if history.has(Snapshot):
        disks = ctx.vm_before().disks
        shared = any(not d.local and not d.read_only and d.kind is not DiskKind.EMPTY for d in disks)
    return SourceFacts(
        started=history.has(CopyStarted),
        handed_over=handed_over or (settled is not None and settled.outcome == "completed"),
        shared_disks=shared,
    )


def judge(ctx: Context, here: Observation, there: Observation) -> Finding | None:
    """Where the guest is, if one of the two hosts was declared dead; None where the observations decide."""
    if ctx.written_off is not None and not (ctx.stayed and ctx.written_off.outcome == "completed"):
        return after_return(here, ctx.written_off)
    if not ctx.peer_fenced or there.state is not GuestState.UNKNOWN:
        return None
    finding = without_destination(here, source_facts(ctx))
    if finding.verdict in _OUTCOME:
        ctx.write_off(_OUTCOME[finding.verdict], finding.why)
    return finding
