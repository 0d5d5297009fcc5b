"""What the world must be after a case, compared with what it is; Sterna's own word is checked, never believed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tests.chaos.scene import Scene
from tests.chaos.stage import SETTLE_S, Stage


def leaks(stage: Stage, scene: Scene, here: str, *, stopped: bool) -> list[str]:
    """Every difference between both hosts and what they must be with the guest on `here`, in words.

    Looked at again for a while: libvirtd and the agents clean up some things a moment later.
    """
    found: list[str] = []
    try:
        scene.wait("no leaks", lambda: not _into(found, _all(stage, scene, here, stopped)), SETTLE_S)
    except AssertionError:
        return found
    return []


def _into(found: list[str], now: Iterator[str]) -> list[str]:
    found[:] = now
    return found


def _all(stage: Stage, scene: Scene, here: str, stopped: bool) -> Iterator[str]:
    for name in scene.lab.hosts:
        wanted = stage.empty[name]
        if name == here:
            wanted = _stopped(stage.settled[name], wanted, scene) if stopped else stage.settled[name]
        yield from (f"{name}: {line}" for line in differences(scene.lab.snapshot(name), wanted))
        yield from (
            f"{name}: journal: {key} {left}" for key, left in scene.journals[name].left_over().items() if left
        )
    if (files := scene.lab.shared_files()) != stage.shared:
        yield f"shared folder: {files}, not {stage.shared}"
    yield from _epochs(scene, here)


def _epochs(scene: Scene, here: str) -> Iterator[str]:
    """The proof of ownership: this migration's epoch in every definition, once it was given to the guest."""
    source = scene.journals[scene.source]
    if not source.has(scene.migration, "take-ownership", "done"):
        return
    ((epoch,),) = source.query("select epoch from migrations where id = ?", scene.migration)
    for name in scene.lab.hosts:
        wanted = {scene.guest.name: [epoch, epoch]} if name == here else {}
        if (seen := scene.lab.epochs(name)) != wanted:
            yield f"{name}: epochs {seen}, not {wanted}"


def records(scene: Scene, ends: str, here: str, *, stopped: bool) -> list[str]:
    """What the controller says, where it is not true."""
    said = scene.fleet.show(scene.migration)
    vm = scene.fleet.api.get(f"/v1/vms/{scene.guest.name}").json()
    told = {"status": said["status"]} | {
        key: vm.get(key) for key in ("host", "state", "task_state", "migration_id")
    }
    state = "shutoff" if stopped else "running"
    wanted = {"status": ends, "host": here, "state": state, "task_state": None, "migration_id": None}
    lines = [f"record: {key} {told[key]}, not {wanted[key]}" for key in wanted if told[key] != wanted[key]]
    if ends != "completed" and not said["reason"]:
        lines.append("record: no reason is given")
    return lines


def differences(now: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Where two pieces of plain data differ, in words."""
    if isinstance(now, dict) and isinstance(wanted, dict):
        for key in sorted(now.keys() | wanted.keys()):
            yield from differences(now.get(key), wanted.get(key), f"{path}{key} ")
    elif isinstance(now, list) and isinstance(wanted, list):
        yield from (f"{path}has {item}" for item in now if item not in wanted)
        yield from (f"{path}lacks {item}" for item in wanted if item not in now)
        if len(now) != len(wanted) and all(item in wanted for item in now) and all(item in now for item in wanted):
            yield f"{path}{now}, not {wanted}"
    elif now != wanted:
        yield f"{path}{now}, not {wanted}"


def _stopped(settled: dict[str, Any], empty: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """A host with the guest defined and its QEMU gone, so with no links but its own."""
    host = copy.deepcopy(settled)
    host["domains"][scene.guest.name]["state"] = "shut off"
    host["ports"] = [p for p in host["ports"] if p["external_ids"].get("iface-id") != scene.guest.port_id]
    host["links"], host["qemu"] = empty["links"], []
    for target in host["iscsi"].values():
        target["sessions"] = 0
    return host
