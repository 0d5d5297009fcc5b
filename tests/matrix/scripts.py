"""What the cases are made of: kinds of guests, and scripts (what is meant to happen to them)."""

from __future__ import annotations

from typing import Any

from sterna.adapters.sim.things import GIB, MIB

KINDS: dict[str, dict[str, Any]] = {
    "full": {"disks": ("shared", "local", "iscsi"), "autostart": True},
    "shared": {"disks": ("shared",)},
    "transient": {"disks": ("shared", "local", "iscsi"), "persistent": False},
    "plain": {"disks": ("local", "iscsi"), "autostart": False},
    "volumes": {"disks": ("block", "iscsi", "block")},
    "postcopy": {"disks": ("shared", "local", "iscsi", "block")},
    "postcopy-transient": {"disks": ("shared", "iscsi"), "persistent": False},
    "secrets": {"disks": ("luks", "chap")},
    "large": {"disks": ("shared",), "memory_bytes": 8 * GIB},
}
OPTIONS: dict[str, dict[str, Any]] = {
    kind: {"may": ["postcopy"], "bandwidth_bytes": 64 * MIB} for kind in KINDS if kind.startswith("postcopy")
}
"""What the user asks for besides: a copy slow enough that much is left to be sent after the switch."""
SWITCHED = ("world: host1 job iteration 1 #1", "switch")
IN_POSTCOPY = "world: host1 job in post-copy #1"
SCRIPTS: dict[str, tuple[tuple[str, str], ...]] = {
    "forward": (),
    "refused-at-copy": (("host1: copy before #1", "permanent"),),
    "failed-copy": (("world: host1 job iteration 1 #1", "link-stream-5s"),),
    "aborted-copy": (("world: host1 job iteration 1 #1", "abort"),),
    "lost-finish": (("world: host1 job finished #1", "link-control-5s"),),
    "aborted-at-P2": (("host1: snapshot-volumes before #1", "abort"),),
    "turned-while-copying": (
        ("world: host1 job iteration 1 #1", "kill-both-3s"),
        ("host1: copy before #2", "permanent"),
    ),
    "copied-without-agents": (("world: host1 job iteration 1 #1", "kill-both-3s"),),
    "failed-at-P10": (("host2: plug-vifs after #1", "permanent"),),
    "deferred-R3": (
        ("host1: copy before #1", "permanent"),
        ("host1: journal intent:remove-volume-connection after #1", "bus-away-30s"),
    ),
    "abort-outlived": (
        ("host2: create-instance-directory before #1", "abort"),
        ("client: abort accepted #1", "kill-both-3s"),
    ),
    "ended-unseen": (
        ("world: host1 job iteration 1 #1", "kill-host1-20s"),
        ("world: host2 domain running (migrated) #1", "qemu-host2"),
        ("world: host1 job finished #1", "link-control-5s"),
        ("world: host2 domain shutoff (crashed) #1", "kill-host2-in-1s"),
    ),
    "ended-unseen-by-the-next-life": (
        ("world: host1 job started #1", "kill-host2-0.2s"),
        ("world: host1 job iteration 1 #1", "kill-host1-20s"),
        ("world: host2 domain running (migrated) #1", "qemu-host2"),
        ("world: host1 job finished #1", "link-control-5s"),
        ("world: host2 domain shutoff (crashed) #1", "kill-host2-in-1s"),
    ),
    "handed-over-unseen": (
        ("world: host1 job iteration 1 #1", "kill-host2-20s"),
        ("world: host1 job completed #1", "qemu-host2"),
        ("world: host2 domain shutoff (crashed) #1", "kill-host1-in-1s"),
    ),
}
"""Name -> the faults that make it what it is."""
THROUGH_CONTROLLER: dict[str, tuple[tuple[str, str], ...]] = {
    "asked-of-the-controller": (),
    "asked-of-the-controller-and-failed": (("host1: copy before #1", "permanent"),),
    "asked-of-the-controller-and-aborted": (("world: host1 job iteration 1 #1", "abort"),),
}
"""The same through the REST API's own doorstep: a controller admits, asks the source, and keeps the records."""
FOR_POSTCOPY: dict[str, tuple[tuple[str, str], ...]] = {
    "forward": (),
    "switched": (SWITCHED,),
    "switched-and-cut": (SWITCHED, (IN_POSTCOPY, "link-stream-20s")),
    "switched-and-source-lost": (SWITCHED, (IN_POSTCOPY, "qemu-host1")),
    "switched-and-destination-lost": (SWITCHED, (IN_POSTCOPY, "qemu-host2")),
}
"""What is played with guests that may be switched to post-copy."""
COMPLETED = (
    "switched",
    "switched-and-cut",
    "asked-of-the-controller",
    "forward",
    "copied-without-agents",
    "lost-finish",
    "turned-while-copying",
)


def expected(kind: str, script: str) -> str:
    """How the script ends when no other fault strikes."""
    if script == "turned-while-copying" and kind == "large":
        return "stayed"  # its copy takes longer than the agents are dead
    if "unseen" in script or script.endswith("-lost"):
        return "ended at host2"
    return "completed" if script in COMPLETED else "stayed"


def planned(script: str) -> tuple[tuple[str, str], ...]:
    """The faults that make this script what it is."""
    return (SCRIPTS | THROUGH_CONTROLLER | FOR_POSTCOPY)[script]


def scripts_for(kind: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """The scripts that are played with this kind of guest."""
    return FOR_POSTCOPY if kind in OPTIONS else SCRIPTS
