"""One run: faults strike and users go on, then all is healed, and the world is compared with what it must be."""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2

from sterna.lab.errors import LabError
from sterna.lab.lab import Lab
from tests.soak import verdict
from tests.soak.api import Api
from tests.soak.faults import Saboteur
from tests.soak.journals import Freedom
from tests.soak.plan import parts, plan
from tests.soak.stage import STATE, Options, Stage, draw_for, keep_evidence
from tests.soak.timeline import Timeline
from tests.soak.traffic import FINAL, Follower, Lister, Mover, Requests
from tests.soak.watcher import Watcher

LISTERS = 2
SETTLE_S = 300.0
"""Bound of the wait until everything has ended once all is healed."""
CALM_S = 30.0
"""For what no journal tells of: libvirtd ends a QEMU, an agent sweeps a tap."""
HOOKED_S = 120.0
"""Until the last user has heard of the end of the run."""


@dataclass
class Report:
    """What came of a run. `wrong` is empty when all was as it must be."""

    seed: int
    minutes: float
    guests: int
    database: str
    controllers: int
    wrong: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    """By kind, that struck; `missed` are those for which there was nothing to strike."""
    missed: int = 0
    requests: int = 0
    accepted: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """Accepted migrations by how they ended."""
    looks: int = 0
    windows: int = 0
    events: int = 0
    settle_s: float | None = None
    longest_held_s: dict[str, float] = field(default_factory=dict)
    """Per guest: how long a host held it for one migration after the other, at the longest."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.wrong

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


class Run:
    """One run on a lab of its own."""

    def __init__(self, options: Options) -> None:
        self.options = options
        shutil.rmtree(options.folder, ignore_errors=True)
        self.timeline = Timeline(options.folder / "timeline.jsonl")
        self.requests = Requests()
        self._final: dict[str, dict[str, str]] = {}
        """Controller's URL -> how each migration ended there."""
        self.report = Report(**asdict(options))

    def play(self) -> Report:
        """All of it. A run that fails keeps its evidence."""
        began, lab, o = time.monotonic(), None, self.options
        threading.excepthook = self._thread_failed
        try:
            lab = Lab.up(
                STATE / str(o.seed),
                owner=True,
                database=o.database,  # type: ignore[arg-type]
                controllers=o.controllers,
                insecure=True,  # some memory streams are TCP
            )
            stage = Stage(lab, o)
            self._shake(stage)
            if self.report.settle_s is not None:  # else there is no state of the world to compare with
                self._judge(stage)
        except Exception as error:
            self.report.wrong.append(f"{type(error).__name__}: {error}")
            (o.folder / "traceback.txt").write_text(traceback.format_exc())
        finally:
            self.report.wrong += self.timeline.violations
            self.report.seconds = time.monotonic() - began
            for line in self.report.wrong:
                self.timeline.note("wrong", text=line)
            if lab is not None:
                if self.report.wrong:
                    keep_evidence(lab, self.options.folder)
                lab.down()
            self.timeline.close()
        return self.report

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """One that watches or asks no longer does."""
        name = failed.thread.name if failed.thread else "?"
        trace = traceback.format_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)
        self.timeline.violation(f"the thread `{name}` failed: {failed.exc_value!r}", trace=trace)

    def _shake(self, stage: Stage) -> None:
        """Users and faults, for as long as was asked for; then everything is healed."""
        o, lab, stop = self.options, stage.lab, threading.Event()
        breakable = parts(stage.names, o.controllers, o.database)
        strikes = plan(o.seed, o.minutes * 60, breakable)
        saboteur, followers = Saboteur(lab, self.timeline), []
        with ExitStack() as stack:
            names = {guest.uuid: guest.name for guest in stage.guests}
            freedom = stack.enter_context(Freedom(lab, names))
            watcher = stack.enter_context(Watcher(lab.hosts, stage.names, self.timeline.violation))
            self.timeline.begin()
            urls = lab.controller_urls.values()
            followers = [Follower(url, self.timeline, stop, lab.api_access) for url in urls]
            threads = [threading.Thread(target=f.run, daemon=True, name="follower") for f in followers]
            threads += self._users(stage, freedom, stop)
            for thread in threads:
                thread.start()
            breaking = threading.Thread(target=saboteur.play, args=(strikes, stop), name="saboteur", daemon=True)
            breaking.start()
            stop_at = time.monotonic() + o.minutes * 60
            while time.monotonic() < stop_at and breaking.is_alive():
                time.sleep(0.2)
            stop.wait(max(0.0, stop_at - time.monotonic()))
            breaking.join()
            self.timeline.note("the time is over")
            stop.set()
            saboteur.heal_everything()
            for thread in threads:
                thread.join(HOOKED_S)
                if thread.is_alive():
                    self.timeline.violation(f"a client hangs: {thread.name}")
            self._settle(stage)
            self.report.looks, self.report.windows = watcher.looks, watcher.windows
        self.report.events = sum(follower.events for follower in followers)
        self.report.longest_held_s = {name: round(s, 1) for name, s in sorted(freedom.longest.items())}
        self._count()

    def _users(self, stage: Stage, freedom: Freedom, stop: threading.Event) -> list[threading.Thread]:
        urls, seed = list(stage.lab.controller_urls.values()), self.options.seed
        access = stage.lab.api_access
        found = []
        for guest in stage.guests:
            draw = draw_for(seed, guest.name)
            api = Api(urls, self.timeline, draw, access)
            mover = Mover(guest, api, self.timeline, draw, self.requests, freedom.holds, stop)
            found.append(threading.Thread(target=mover.run, name=f"mover {guest.name}", daemon=True))
        for number in range(LISTERS):
            draw = draw_for(seed, f"lister {number}")
            lister = Lister(Api(urls, self.timeline, draw, access), draw, stop)
            found.append(threading.Thread(target=lister.run, name=f"lister {number}", daemon=True))
        return found

    def _count(self) -> None:
        counts: Counter[str] = self.timeline.counts
        self.report.faults = dict(sorted(self.timeline.faults.items()))
        self.report.missed = counts["fault missed"]
        self.report.requests, self.report.accepted = counts["request"], len(self.requests.accepted)

    # the end

    def _settle(self, stage: Stage) -> None:
        """Wait until nothing is left to be done by anybody."""
        began, left = time.monotonic(), ["not looked yet"]
        while left and time.monotonic() < began + SETTLE_S:
            left = list(self._undone(stage))
            time.sleep(0.5 if left else 0)
        took = round(time.monotonic() - began, 1)
        self.timeline.note("settled" if not left else "not settled", after_s=took, left=left)
        self.report.settle_s = None if left else took
        self.report.wrong += [f"not settled within {SETTLE_S:g} s: {line}" for line in left]

    def _undone(self, stage: Stage) -> Iterator[str]:
        yield from verdict.journals(stage.journals)
        for number, url in stage.lab.controller_urls.items():
            try:
                told = httpx2.get(f"{url}/v1/hosts", timeout=30, **stage.lab.api_access)
                hosts = told.raise_for_status().json()["hosts"]
                yield from (f"{host['name']} is {host['state']}" for host in hosts if host["state"] != "up")
                yield from (f"controller {number}: {line}" for line in self._records(stage, url))
            except httpx2.HTTPError as error:
                yield f"controller {number}: {error!r}"

    def _records(self, stage: Stage, url: str) -> Iterator[str]:
        """Of every migration that was asked for, what cannot be said of it now that all is over."""
        with self.requests.lock:
            asked = [(id, guest, True) for id, guest in self.requests.accepted.items()]
            asked += [(id, guest, False) for id, guest in self.requests.unanswered.items()]
        known = self._final.setdefault(url, {})
        for id, guest, accepted in asked:
            if id in known:
                continue
            shown = stage.record(url, id)
            wrong = list(verdict.record(shown, id, guest, accepted=accepted))
            yield from wrong
            if not wrong and shown is not None:
                known[id] = shown["status"]

    def _judge(self, stage: Stage) -> None:
        """Compare everything with what it must be; then each guest moves once more, and everything again."""
        ends = Counter(self._final.get(next(iter(stage.lab.controller_urls.values())), {}).values())
        self.report.ends = {status: ends[status] for status in sorted(FINAL)}
        where = self._compare(stage, "")
        if self.report.wrong:
            return
        other = {"host1": "host2", "host2": "host1"}
        stage.move({guest: other[host] for guest, host in where.items()})
        self._compare(stage, "after one more move: ")

    def _compare(self, stage: Stage, when: str) -> dict[str, str]:
        deadline = time.monotonic() + CALM_S
        while wrong := list(self._wrong(stage)):
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        self.report.wrong += [when + line for line in wrong]
        return verdict.places(stage.lab, stage.names)[0]

    def _wrong(self, stage: Stage) -> Iterator[str]:
        where, wrong = verdict.places(stage.lab, stage.names)
        yield from wrong
        yield from verdict.world(stage.lab, stage.base, where)
        yield from verdict.journals(stage.journals)
        for guest in stage.guests:
            try:
                yield from verdict.guest_itself(guest.status(timeout=20), guest.name, stage.boots[guest.name])
            except LabError as error:
                yield str(error)
        for number, url in stage.lab.controller_urls.items():
            access = stage.lab.api_access
            vms = httpx2.get(f"{url}/v1/vms", timeout=30, **access).raise_for_status().json()["vms"]
            yield from (f"controller {number}: {line}" for line in verdict.inventory(vms, where))
            found = httpx2.post(f"{url}/v1/audit", json={}, timeout=120, **access).raise_for_status()
            yield from (f"controller {number}: {line}" for line in verdict.audit(found.json()))
