"""Plays one case on the stage and says what came of it."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import verdict
from tests.chaos.case import Case
from tests.chaos.moments import ARRIVED, COPYING, ROLLING_BACK
from tests.chaos.scene import Scene
from tests.chaos.stage import Stage
from tests.chaos.watcher import TwoCopies

EVIDENCE = Path("out/chaos")
LONGEST_S = 120.0
UP_S = 15.0
"""A host whose libvirtd works again is up within this: its agent asks every second; a question may have hung."""


@dataclass
class Outcome:
    """What came of a case. `why` is empty when all was as it must be."""

    case: str
    ends: str = "?"
    """The migration's final status."""
    service_s: float | None = None
    """From the fault until the VM may migrate again (no lock is held where it is) AND the guest answers."""
    gap_ms: float | None = None
    """Longest time without an answer to a ping (sent every 5 ms), from the migration's start to `service_s`."""
    leaks: list[str] = field(default_factory=list)
    two_copies: list[str] = field(default_factory=list)
    together_ms: float = 0.0
    """How long two copies were seen to run. More than the case allows is a failure."""
    looks: int = 0
    """How often both libvirtds said whether the guest runs."""
    seconds: float = 0.0
    """The whole case, the second migration and all comparisons included."""
    phases: dict[str, float] = field(default_factory=dict)
    """When, in seconds from the case's start, it came to: staged, fired, free, settled."""
    why: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.why or self.leaks or self.two_copies)

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def play(stage: Stage, case: Case) -> Outcome:
    """Play it. A case that fails leaves its logs and journals in out/chaos, and the stage empty."""
    outcome, began = Outcome(case.name), time.monotonic()
    try:
        scene = stage.set(case.disks)
        with TwoCopies(scene.lab.hosts, scene.guest.name, scene.guest.uuid) as watcher:
            try:
                _act(stage, case, scene, outcome)
            finally:
                outcome.together_ms, outcome.looks = watcher.together_ms, watcher.looks
                outcome.two_copies = watcher.violations
    except Exception as error:
        outcome.why.append(f"{type(error).__name__}: {error}")
        outcome.why += traceback.format_exc().splitlines()[-12:-1]
    outcome.seconds = time.monotonic() - began
    outcome.phases = {name: round(at - began, 2) for name, at in outcome.phases.items()}
    if not outcome.passed:
        folder = EVIDENCE / "".join(c if c.isalnum() else "-" for c in case.name)
        stage.keep_evidence(folder)
        outcome.why.append(f"logs and journals: {folder}; to replay: make chaos CASE='{case.name}'")
        stage.close()
    return outcome


def _act(stage: Stage, case: Case, scene: Scene, outcome: Outcome) -> None:
    boot = scene.guest.status().boot_id
    outcome.phases["staged"] = time.monotonic()
    with scene.lab.ping(scene.guest) as ping:
        _break_and_heal(case, scene)
        scene.wait("the VM is free", lambda: _free(scene) is not None, LONGEST_S)
        here = _free(scene) or ""
        outcome.phases |= {"fired": scene.fired, "free": time.monotonic()}
        outcome.service_s = time.monotonic() - scene.fired
        if case.guest_dies:
            _settle(stage, case, scene, here, outcome)
        asked = time.monotonic()
        if case.guest_dies:  # Sterna never starts it again: its owner does
            scene.lab.hosts[here].virsh("start", scene.guest.name)
        scene.guest.status(timeout=LONGEST_S)
        outcome.service_s += time.monotonic() - asked
    outcome.gap_ms = ping.longest_gap_ms
    if not case.guest_dies:
        _settle(stage, case, scene, here, outcome)
        if scene.guest.status().boot_id != boot:
            outcome.why.append("the guest was booted again")
    if outcome.ends not in case.allowed:
        return
    case.fault.tidy(scene)
    outcome.phases["settled"] = time.monotonic()
    _again(stage, scene, here, outcome)
    if not (status := scene.guest.status()).clean:
        outcome.why.append(f"the guest's own checks: {status.last_error}; all of them: {status.model_dump_json()}")


def _break_and_heal(case: Case, scene: Scene) -> None:
    case.fault.prepare(scene)
    more = {"may": ["postcopy"]} if case.postcopy else {}
    scene.migration = scene.fleet.started(scene.guest.name, scene.destination, bandwidth_bytes_s=case.limit, **more)
    if case.postcopy:
        scene.await_moment(COPYING)
        scene.switch_to_postcopy()
    if case.at is not None:
        scene.await_moment(case.at)
    scene.fired = time.monotonic()
    case.fault.strike(scene)
    try:
        if case.until is not None:
            scene.await_moment(case.until)
        time.sleep(case.for_s)
    finally:
        case.fault.heal(scene)


def _free(scene: Scene) -> str | None:
    """The host where the VM is now, once it may migrate again from there: the lock is that host's journal. Which
    host it is, the source's says: the pivot was passed, or it is rolled back."""
    if ARRIVED.reached(scene):
        here = scene.destination
    elif ROLLING_BACK.reached(scene):
        here = scene.source
    else:
        return None
    journal = scene.journals[here]
    return here if journal.knows(scene.migration) and not journal.holds(scene.migration) else None


def _settle(stage: Stage, case: Case, scene: Scene, here: str, outcome: Outcome) -> None:
    """Wait until both agents have nothing left to do, then compare the world and the record with what must be."""
    scene.fleet.wait_closed(scene.migration)
    outcome.ends = scene.fleet.wait(scene.migration)["status"]
    stopped = case.guest_dies
    if outcome.ends not in case.allowed:
        wanted, reason = " or ".join(case.allowed), scene.fleet.show(scene.migration)["reason"]
        outcome.why.append(f"it ended {outcome.ends}, not {wanted}: {reason}")
        return
    if here != (scene.destination if outcome.ends == "completed" else scene.source):
        outcome.why.append(f"it ended {outcome.ends}, and the VM was free on {here}")
        return
    outcome.leaks += verdict.leaks(stage, scene, here, stopped=stopped)
    outcome.why += verdict.records(scene, outcome.ends, here, stopped=stopped)


def _all_up(scene: Scene) -> bool:
    """As the controller sees it: a host whose libvirtd hung is down until its agent is heard again."""
    return all(host["state"] == "up" for host in scene.fleet.api.get("/v1/hosts").json()["hosts"])


def _again(stage: Stage, scene: Scene, here: str, outcome: Outcome) -> None:
    """The same VM migrates once more, without a fault, and leaves nothing behind either."""
    there = scene.fleet.other(here)
    scene.source, scene.destination = here, there
    scene.wait("both hosts are up again", lambda: _all_up(scene), UP_S)
    scene.migration = scene.fleet.started(scene.guest.name, there)
    scene.fleet.wait_closed(scene.migration)
    ended = scene.fleet.wait(scene.migration)
    if ended["status"] != "completed":
        outcome.why.append(f"the next migration of the VM ended {ended['status']}: {ended['reason']}")
        return
    outcome.leaks += [f"next migration: {line}" for line in verdict.leaks(stage, scene, there, stopped=False)]
    outcome.why += verdict.records(scene, "completed", there, stopped=False)
