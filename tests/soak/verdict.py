"""What the world must be after a run, compared with what it is; Sterna's own word is checked, never believed.

What a host must look like depends on which guests are there now: of its picture with all guests, the parts that
belong to those; of its picture with none, what stays of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sterna.lab import secrets
from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from sterna.lab.places import target_name
from tests.chaos.scene import Journal
from tests.chaos.verdict import differences

Picture = dict[str, Any]


@dataclass(frozen=True)
class Owners:
    """Whose each thing of a picture is, by the ids that it carries."""

    marks: Mapping[str, tuple[str, ...]]
    """Guest -> words, one of which is in everything that belongs to it."""

    @classmethod
    def of(cls, guests: Sequence[Guest], pictures: Sequence[Picture]) -> Owners:
        marks = {}
        for guest in guests:
            ports = [port for picture in pictures for port in picture["ports"]]
            taps = [p["name"] for p in ports if p["external_ids"].get("iface-id") == guest.port_id]
            disks = [word for disk in guest.disks for word in (disk.id, target_name(disk.id))]
            marks[guest.name] = (guest.name, guest.uuid, guest.port_id, *disks, *taps)
        return cls(marks)

    def owner(self, thing: Any) -> str | None:
        """The guest that a thing belongs to; None: the host's own."""
        words = list(_words(thing))
        for guest, marks in self.marks.items():
            if any(word == mark or word.startswith(f"{mark}/") for word in words for mark in marks):
                return guest
        return None

    def only(self, picture: Any, here: set[str | None]) -> Any:
        """The parts of a picture that belong to the guests `here` (None among them: and to the host)."""
        kept: Picture = {}
        for key, things in picture.items():
            if isinstance(things, dict):
                kept[key] = {name: thing for name, thing in things.items() if self.owner(name) in here}
            else:
                kept[key] = [thing for thing in things if self.owner(thing) in here]
        return kept


def _words(thing: Any) -> Iterator[str]:
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield from (*_words(key), *_words(value))
    elif isinstance(thing, str):
        yield thing


def picture(lab: Lab, host: str) -> Picture:
    """What is really on a host, with its secrets."""
    return {**lab.snapshot(host), "secrets": secrets.values(lab.hosts[host])}


@dataclass(frozen=True)
class Baseline:
    """Both hosts with all guests and with none, after moves without faults, and the shared folder."""

    owners: Owners
    full: Mapping[str, Picture]
    empty: Mapping[str, Picture]
    shared: Sequence[str]

    def wanted(self, host: str, here: set[str]) -> Picture:
        """What a host must look like with these guests on it."""
        away = {*self.owners.marks} - here
        there = self.owners.only(self.full[host], {None, *here})
        gone = self.owners.only(self.empty[host], {*away})
        both = {}
        for key, things in there.items():
            both[key] = (
                {**things, **gone[key]} if isinstance(things, dict) else sorted([*things, *gone[key]], key=str)
            )
        return both


def world(lab: Lab, base: Baseline, where: Mapping[str, str]) -> Iterator[str]:
    """Every difference between both hosts and what they must be with each guest where it is, in words."""
    for host in lab.hosts:
        here = {guest for guest, at in where.items() if at == host}
        now, wanted = picture(lab, host), base.wanted(host, here)
        yield from (f"{host}: {line}" for line in differences(_in_order(now), _in_order(wanted)))
        for guest, marks in sorted(lab.epochs(host).items()):
            if len(set(marks)) != 1 or None in marks:
                yield f"{host}: {guest} has the epochs {marks}"
    if (files := lab.shared_files()) != base.shared:
        yield f"shared folder: {files}, not {base.shared}"


def _in_order(host: Picture) -> Picture:
    return {key: things if isinstance(things, dict) else sorted(things, key=str) for key, things in host.items()}


def places(lab: Lab, guests: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Where each guest runs, and those that do not run exactly once, in words."""
    running = {host: set(lab.hosts[host].virsh("list", "--name", "--state-running").split()) for host in lab.hosts}
    processes = {host: lab.snapshot(host)["qemu"] for host in lab.hosts}
    where, wrong = {}, []
    for guest in guests:
        says = [host for host in lab.hosts if guest in running[host]]
        qemus = [host for host, names in processes.items() for name in names if name == guest]  # type: ignore[attr-defined]
        if len(says) == 1 and qemus == says:
            where[guest] = says[0]
        else:
            wrong.append(f"{guest}: libvirt says it runs on {says}, QEMUs are on {qemus}")
    return where, wrong


def journals(found: Mapping[str, Journal]) -> Iterator[str]:
    """What is still to be done by an agent."""
    for host, journal in found.items():
        yield from (f"{host}: journal: {key} {left}" for key, left in journal.left_over().items() if left)


def record(shown: Mapping[str, Any] | None, migration: str, guest: str, *, accepted: bool) -> Iterator[str]:
    """What a controller says of a migration (None: it knows none) after all is over, where that cannot be."""
    if shown is None:
        if accepted:
            yield f"migration {migration} of {guest} was accepted and has no record"
        return
    if shown["status"] not in {"completed", "failed", "cancelled"}:
        yield f"migration {migration} of {guest} has not ended: {shown['status']}, {shown['reason']}"
    elif not shown["finished_at"]:
        yield f"migration {migration} of {guest} ended {shown['status']}, nobody knows when"
    if shown["status"] in {"failed", "cancelled"} and not shown["reason"]:
        yield f"migration {migration} of {guest} ended {shown['status']} without a reason"


def inventory(vms: Sequence[Mapping[str, Any]], where: Mapping[str, str]) -> Iterator[str]:
    """What a controller says of the guests, where it is not true."""
    said = {vm["name"]: vm for vm in vms}
    for guest, host in where.items():
        wanted = {"host": host, "state": "running", "task_state": None, "migration_id": None}
        vm = said.get(guest, {})
        for key, value in wanted.items():
            if vm.get(key, "missing") != value:
                yield f"record of {guest}: {key} {vm.get(key, 'missing')}, not {value}"


def audit(answer: Mapping[str, Any]) -> Iterator[str]:
    """What Sterna's own audit found."""
    if answer["silent_hosts"]:
        yield f"audit: silent hosts {answer['silent_hosts']}"
    yield from (f"audit: {leftover}" for leftover in answer["leftovers"])
    if not answer["clean"] and not answer["leftovers"]:
        yield "audit: not clean"


def guest_itself(status: Any, guest: str, boot: str) -> Iterator[str]:
    """What a guest says of itself."""
    if status.boot_id != boot:
        yield f"{guest} was booted again"
    if not status.clean:
        yield f"{guest}'s own checks: {status.last_error}"
