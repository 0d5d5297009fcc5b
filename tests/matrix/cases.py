"""Derives the cases from the flows: a fault-free run is recorded, and each of its moments meets each fault.

So a step, a port call or a message that is new tomorrow is struck tomorrow. `test_matrix.py` checks that every
step of every flow is among the moments.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache

from sterna.migration import flow
from tests.matrix.moments import Moment
from tests.matrix.mortal_controller import NAME
from tests.matrix.play import Case, play
from tests.matrix.scripts import KINDS, POSTCOPY, STEERED, THROUGH_CONTROLLER, planned, scripts_for

STEPS = {
    step.name
    for listed in (flow.SOURCE, flow.DESTINATION, flow.DESTINATION_POST)
    for step in (
        *listed.until_pivot,
        *listed.after_pivot,
        *listed.compensation([s.name for s in listed.until_pivot]),
    )
} | {step.name for step in flow.REMOVE_VOLUME_CONNECTION}

ERRORS_BEFORE = ("temporary", "permanent", "bug")
KILLS = ("kill-70s", "kill-peer-3s", "kill-peer-70s", "kill-both-3s")
HANGS = ("hang-3s", "hang-20s", "hang-70s")
"""Shorter and longer than a call is waited for in silence; longer than every step's patience."""
LINKS = ("link-stream-5s", "link-control-5s", "link-both-60s")
HOSTS = tuple(f"{what}-{host}{long}" for host in ("host1", "host2") for what, long in (
    ("libvirtd", "-4s"), ("libvirtd", "-60s"), ("power", "-30s"), ("qemu", "")))  # fmt: skip
CLOCKS = ("clock+9h", "clock-9h")
MESSAGES = ("bus-away-2s", "bus-away-30s", "hang-20s")
SERVICES = ("network-away-1s", "network-away-70s")
"""The network service: away for less and for longer than anybody waits for it."""
ASKED = ("start_migration", "check_migration", "abort_migration", "list_vms", "journal_since")
"""What a controller asks an agent."""
DURING = ("hang-20s", "kill-peer-3s", "kill-both-3s", "bus-away-30s")
"""Half-way through what an agent does to the world."""


@cache
def moments(kind: str, script: str) -> tuple[Moment, ...]:
    """What happens in this script when no other fault strikes, from its own first fault on.

    What was before that is a moment of `forward`; what only repeats a look is left out.
    """
    trace = play(Case(kind, script), again=False).trace
    own = {key for key, _ in planned(script)}
    first = next((i for i, m in enumerate(trace) if m.key in own), -1)
    late = trace[first + 1 :]
    return tuple(m for m in late if m.nth <= 2 and m.key not in own and not m.what.startswith("-/"))


def family(moment: Moment) -> str:
    """`world`, `journal`, `message`, `step` or `port`."""
    if moment.host in ("world", "client"):
        return "world"
    if moment.what.startswith("journal "):
        return "journal"
    if moment.what.startswith(("call ", "cast ")) and "/" not in moment.what:
        return "message"
    return "port" if "/" in moment.what else "step"


def faults_for(moment: Moment) -> Iterator[str]:
    """The faults that make sense there, death at every distinguishable moment aside."""
    end = moment.what.rpartition(" ")[2]
    match family(moment), end:
        case "port", "before":
            yield from ("temporary", "permanent") if moment.nth == 1 else ()
        case "port", "after":
            yield from ("unknown",) if moment.nth == 1 else ()
        case "port", _:  # `change WHAT`
            yield from DURING if moment.nth == 1 else ()
            yield from ("unknown", "network-away-20s") if end == "binding" else ()
        case "step", "before":
            yield from (*ERRORS_BEFORE, "abort", *KILLS, *HANGS, "bus-away-30s", *CLOCKS, *HOSTS)
            yield from SERVICES if moment.nth == 1 else ()
        case "step", "after":
            yield from ("unknown", "abort", "kill-70s", "kill-both-3s")
        case "message", "sent":
            yield from ("request-lost", *MESSAGES)
        case "message", "replying":
            yield from ("answer-lost", "kill-70s", *MESSAGES)
        case "message", "received":
            yield from ("kill-70s", "bus-away-30s", *HANGS)
        case "journal", "after":
            yield from (f"power-{moment.host}-30s",) if " note:" in moment.what else ()
        case "world", _:
            yield from ("abort", "kill-both-3s", *LINKS, *HOSTS, *SERVICES)


def deaths(kind: str, script: str) -> Iterator[Case]:
    """kill -9 of each agent at every moment at which the world, the journals or the bus are not as at another."""
    seen: set[tuple[str, int]] = set()
    for moment in moments(kind, script):
        if moment.host in ("world", "client") or (moment.host, moment.version) in seen:
            continue
        seen.add((moment.host, moment.version))
        yield Case(kind, script, ((moment.key, "kill-3s"),))


def others(kind: str, script: str) -> Iterator[Case]:
    """Every other fault at every moment where it makes sense."""
    for moment in moments(kind, script):
        for fault in faults_for(moment):
            yield Case(kind, script, ((moment.key, fault),))


def singles() -> list[Case]:
    """One fault each. All of them for the full guest; for the others what the kind of guest can change."""
    found: list[Case] = []
    for kind in KINDS:
        for script in scripts_for(kind):
            whole = kind == "full" or (kind, script) in (("transient", "forward"), ("postcopy", "switched"))
            varied = kind in ("transient", "volumes", *STEERED) or (kind in POSTCOPY and script != "forward")
            if whole or varied or (script in ("forward", "failed-copy") and kind not in POSTCOPY):
                found += deaths(kind, script)
            if whole or kind in STEERED or (kind in POSTCOPY and script == "switched-and-cut"):
                found += others(kind, script)
            elif script == "forward" and kind not in POSTCOPY:
                found += (c for c in others(kind, script) if c.faults[0][0].startswith("world"))
    return found


def of_the_controller(kind: str = "full") -> list[Case]:
    """The controller dies at every moment that changes its records or its messages, hangs, or loses its database;
    and is away, or its database is, or an agent dies under its eyes, at every step."""
    found: list[Case] = []
    for script in THROUGH_CONTROLLER:
        seen: set[int] = set()
        for moment in moments(kind, script):
            faults: list[str] = []
            if moment.host == NAME:
                if moment.version not in seen:
                    faults += ["controller-away-5s", "controller-away-60s"]
                    seen.add(moment.version)
                if moment.nth == 1 and moment.what.endswith((" before", " sent")):
                    faults += ["controller-hangs-20s", "database-away-5s", "database-away-60s"]
            elif family(moment) == "step" and moment.nth == 1 and moment.what.endswith(" before"):
                faults += ["controller-away-60s", "database-away-60s", "kill-both-3s", "bus-away-30s"]
            elif family(moment) == "message" and moment.nth == 1 and any(w in moment.what for w in ASKED):
                faults += [f for f in ("request-lost", "answer-lost") if f in faults_for(moment)] + ["kill-3s"]
            found += [Case(kind, script, ((moment.key, fault),)) for fault in faults]
    return found


def pair(number: int, seed: int) -> Case:
    """The `number`th pair of this seed: any single fault, then any other at a moment of the run it has made.

    So the second one strikes the recovery from the first as often as anything else.
    """
    chosen = random.Random(f"{seed}/{number}")
    kind = chosen.choice(("full", "full", "transient", "volumes", *POSTCOPY, *STEERED))
    usual = "switched" if kind in POSTCOPY else next(iter(scripts_for(kind)))
    script = chosen.choice((usual, usual, usual, *(s for s in scripts_for(kind) if s != usual)))
    first = chosen.choice(_all(kind, script))
    trace = play(first, again=False).trace
    struck = next((i for i, m in enumerate(trace) if m.key == first.faults[0][0]), 0)
    later = [m for m in trace[struck + 1 :] if not m.what.startswith("-/")]
    while later:
        moment = chosen.choice(later)
        faults = [*faults_for(moment), *(() if family(moment) == "world" else ("kill-3s", "kill-3s"))]
        if faults:
            return Case(kind, script, (*first.faults, (moment.key, chosen.choice(faults))))
    return first


@cache
def _all(kind: str, script: str) -> tuple[Case, ...]:
    return (*deaths(kind, script), *others(kind, script))


def covered(cases: Iterable[Case]) -> set[str]:
    """Names of the steps at which some case strikes."""
    words = " ".join(key for case in cases for key, _ in case.faults)
    return {step for step in STEPS if any(f"{before}{step}{after}" in words for before in " :" for after in " /")}
