"""What a host that was taken over sends: every method in every way, and ten thousand malformed messages."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from sterna.domain.model import Data
from sterna.rpc.envelope import Event, Reply, Request, encode
from tests.contract.hostile_stage import HOST3, Stage

Words = tuple[str, int, Data]
"""Migration id, epoch and parameters of a message."""


def about_another(stage: Stage) -> Iterator[Words]:
    """Everything that any method may want, about the migration of host1 and host2: true, and with host3 in it."""
    m = stage.migration
    yield m.id, m.epoch, {}
    for change in ({}, {"source": HOST3.name}, {"destination": HOST3.name}, {"epoch": m.epoch + 1}):
        told = stage.forged(**change)
        yield m.id, told.epoch, everything(stage, told.model_dump(mode="json"))


def about_none(stage: Stage) -> Iterator[Words]:
    """The same, in a message that is about no migration, or about an unknown one."""
    for id in ("", "of-which-nobody-has-heard", stage.migration.id[:-1]):
        for change in ({}, {"id": id}, {"id": id, "source": HOST3.name}):
            told = stage.forged(**change)
            yield id, told.epoch, everything(stage, told.model_dump(mode="json"))


def everything(stage: Stage, migration: Data) -> Data:
    """Parameters under which each method finds what it wants."""
    vm = {"uuid": stage.moving, "name": "tern", "state": "running", "memory_bytes": 1 << 30, "vcpus": 1}
    return {
        "id": stage.migration.id,
        "migration": migration,
        "vm": vm,
        "destination": HOST3.name,
        "options": {},
        "bandwidth_bytes_s": 1,
        "row": "R7",
        "method": "x",
        "why": "y",
        "host": "host1",
        "peer": "host1",
        "dead": "host1",
        "fenced": True,
        "others": [],
        "silent": [],
        "repair": True,
        "cursor": 0,
        "limit": 10,
        "path": "/srv/x",
        "offset": 0,
        "data": "",
        "token": "t",
        "name": "x",
        "needs": [],
        "address": stage.world.hosts["host2"].address,
        "xml": "<domain/>",
        "autostart": False,
    }


ODD_PATHS = ("/dev/watchdog", "/dev/zero", "/dev/mem", "/dev/tty", "/proc/kmsg", "/proc/self/mem", "/dev/fd/0")
"""To open these does something, waits, or never ends."""


def numerous(stage: Stage) -> Iterator[tuple[str, Words]]:
    """Messages that name more than any VM has: each thing in them would be looked for."""
    migration = stage.migration.model_dump(mode="json")
    sound = everything(stage, migration)
    peers = [{"kind": "peer", "name": f"10.{n >> 8}.{n & 255}.1", "where": "x", "port": 1} for n in range(4_000)]
    paths = [{"kind": "file", "name": f"/{n}", "where": "x"} for n in range(4_000)]
    cpus = [{"kind": "cpus", "name": ",".join(["0-65535"] * 20_000), "where": "x"}]
    disk = {"kind": "file", "target": "vda", "path": "/dev/zero", "local": False, "capacity_bytes": 1}
    nic = {"mac": "52:54:00:00:00:01", "plug": "ovs"}
    more: tuple[Data, ...] = (
        {"references": peers},
        {"references": paths},
        {"references": cpus},
        {"disks": [disk] * 2_000},
        {"cold": [disk] * 2_000},
        {"disks": [disk | {"chain": [f"/{n}" for n in range(4_000)]}]},
        {"nics": [nic] * 4_000},
        {"unjudged": ["x"] * 40_000},
    )
    for each in more:
        yield "check_destination", ("", 0, sound | {"vm": sound["vm"] | each})
    need = {"ref": {"kind": "volume", "usage": "x"}}
    yield "check_destination", ("", 0, sound | {"needs": [need] * 2_000})
    yield "secrets_wanted", ("", 0, {"vm": stage.moving, "needs": [need] * 2_000})


def about_odd_paths(stage: Stage) -> Iterator[tuple[str, Words]]:
    """Messages after which a path is looked at, with paths of devices and of files without an end."""
    sound = everything(stage, stage.migration.model_dump(mode="json"))
    for path in ODD_PATHS:
        yield "digest", ("", 0, {"path": path})
        yield "sees_token", ("", 0, {"path": path, "token": "t", "place": 2**61})
        yield "sees_file", ("", 0, {"path": path, "token": "t", "name": "x"})
        for change in ({"local": False}, {"local": True, "backing_path": path, "backing_shared": True}):
            disk = {"kind": "file", "target": "vda", "path": path, "format": "qcow2", "capacity_bytes": 1} | change
            reference = {"kind": "file", "name": path, "where": "x", "thing": {"form": "file", "digest": "0"}}
            vm = sound["vm"] | {"disks": [disk | {"backing_format": "raw"}], "references": [reference]}
            yield "check_destination", ("", 0, sound | {"vm": vm})


def message(method: str, words: Words, kind: str = "call", *, sender: str = HOST3.name, n: int = 0) -> bytes:
    id, epoch, params = words
    built = Request.build(
        kind=kind,
        id=f"{id}/{method}-{n}",
        method=method,
        sender=sender,
        migration_id=id,
        epoch=epoch,
        params=params,
    )
    return encode(built)


def named(method: str, words: Words) -> Words:
    """The same, with a VM's UUID where a method takes no more than that."""
    id, epoch, params = words
    return id, epoch, params | ({"vm": params["vm"]["uuid"]} if isinstance(params.get("vm"), dict) else {})


# malformed ones


def malformed(seed: int, number: int, shapes: list[Any]) -> Iterator[bytes]:
    """Real messages, each spoilt in one way or several."""
    rng = random.Random(seed)
    for _ in range(number):
        shape = copy.deepcopy(rng.choice(shapes))
        for _ in range(rng.choice((1, 1, 2, 4))):
            shape = rng.choice(_SPOILERS)(rng, shape)
        raw = json.dumps(shape, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        yield rng.choice(_BREAKERS)(rng, raw)[: 600 * 1024]


def shapes_of(stage: Stage, methods: list[str]) -> list[Any]:
    """Each message that a host sends to another one, or to a controller."""
    words = next(w for w in about_another(stage) if w[2])
    requests = [message(m, words, kind) for m in methods for kind in ("call", "cast")]
    hints = [Event(sender=HOST3.name, data=data) for data in ({"last": 1}, {}, {"sample": {"iteration": 1}})]
    replies = [Reply(kind=kind, id="1", data={"boot": "x"}) for kind in ("result", "ack", "heartbeat")]
    return [json.loads(raw) for raw in (*requests, *map(encode, hints), *map(encode, replies))]


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    10**400,
    1e308,
    "",
    "\x00",
    "\ud800",
    "x" * 10_000,
    [],
    {},
    [[]],
    {"": {}},
)


def _places(shape: Any) -> list[tuple[Any, Any]]:
    found, todo = [], [shape]
    while todo:
        here = todo.pop()
        keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        found += [(here, key) for key in keys]
        todo += [here[key] for key in keys]
    return found


def _put(rng: random.Random, shape: Any, value: Any) -> Any:
    places = _places(shape)
    if not places:
        return value
    where, key = rng.choice(places)
    where[key] = value
    return shape


def _wrong_type(rng: random.Random, shape: Any) -> Any:
    return _put(rng, shape, copy.deepcopy(rng.choice(WRONG)))


def _deep(rng: random.Random, shape: Any) -> Any:
    deep: Any = 0
    for _ in range(rng.choice((50, 400))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return _put(rng, shape, deep)


def _without(rng: random.Random, shape: Any) -> Any:
    places = [(where, key) for where, key in _places(shape) if isinstance(where, dict)]
    if places:
        where, key = rng.choice(places)
        del where[key]
    return shape


def _another_sender(rng: random.Random, shape: Any) -> Any:
    others = ("host1", "host2", "@controller", "", "host3.x", "*", ">", "HOST3", "host3\n")
    return {**shape, "sender": rng.choice(others)} if isinstance(shape, dict) else shape


def _more(rng: random.Random, shape: Any) -> Any:
    return (
        {**shape, "x" * rng.randrange(1, 500): [1] * rng.randrange(1, 2_000)} if isinstance(shape, dict) else shape
    )


def _another_version(rng: random.Random, shape: Any) -> Any:
    return {**shape, "v": rng.choice((0, 2, -1, 2**70, "1", 1.0, None))} if isinstance(shape, dict) else shape


def _whole(rng: random.Random, raw: bytes) -> bytes:
    return raw


def _cut(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))]


def _no_utf8(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\x1b[2J")) + raw[at:]


def _flipped(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]


def _twice(rng: random.Random, raw: bytes) -> bytes:
    return raw + rng.choice((raw, b" ", b"{", b"\n{}"))


def _never_ending(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice((b"[", b'{"a":', b"1", b'"')) * rng.choice((10, 1_000, 20_000))


def _noise(rng: random.Random, raw: bytes) -> bytes:
    return rng.randbytes(rng.randrange(300))


_SPOILERS = (_wrong_type, _wrong_type, _wrong_type, _deep, _without, _another_sender, _more, _another_version)
_BREAKERS = (_whole, _whole, _whole, _whole, _cut, _no_utf8, _flipped, _twice, _never_ending, _noise)
