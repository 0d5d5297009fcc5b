"""How much one message may hold: each thing that it names is looked for on this host."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sterna.domain import untrusted
from sterna.domain.errors import BadRequest
from sterna.domain.model import Data
from sterna.domain.references import numbers
from sterna.domain.secrets import Need

VM: Data = {"uuid": "aaaa", "name": "tern", "state": "running", "vcpus": 1, "memory_bytes": 1}
PEERS = [{"kind": "peer", "name": f"10.0.0.{n}", "where": "x", "port": 1} for n in range(200)]
DISK: Data = {"kind": "file", "target": "vda", "path": "/srv/x"}
NIC: Data = {"mac": "52:54:00:00:00:01", "plug": "ovs"}

LARGEST: dict[str, list[Any]] = {
    "references": [{"kind": "present", "name": "/x", "where": "x"}] * untrusted.MOST_REFERENCES,
    "disks": [DISK] * untrusted.MOST_DISKS,
    "cold": [DISK] * untrusted.MOST_DISKS,
    "nics": [NIC] * untrusted.MOST_NICS,
    "firmware": [{"kind": "nvram", "path": "/x"}] * untrusted.MOST_DEVICES,
    "immovable": ["x"] * untrusted.MOST_DEVICES,
    "unjudged": ["x"] * untrusted.MOST_DEVICES,
}


@pytest.mark.parametrize("field", LARGEST)
def test_of_each_thing_so_many_and_no_more(field: str) -> None:
    assert len(getattr(untrusted.vm(VM | {field: LARGEST[field]}), field)) == len(LARGEST[field])
    with pytest.raises(BadRequest, match=f"too much: .* vm.{field}, at most {len(LARGEST[field])} are taken"):
        untrusted.vm(VM | {field: [*LARGEST[field], LARGEST[field][0]]})


@pytest.mark.parametrize(
    "more",
    [
        {"references": PEERS},
        {"disks": [DISK | {"chain": ["/x"] * 1_000}]},
        {"disks": [DISK | {"secrets": [{"kind": "volume", "usage": "x"}] * 1_000}]},
        {"cold": [DISK | {"rbd": {"name": "a/b", "monitors": ["10.0.0.1:6789"] * 1_000}}]},
        {"nics": [NIC | {"addresses": ["10.0.0.1"] * 1_000}]},
        {"nics": [NIC | {"external_ids": {str(n): "" for n in range(1_000)}}]},
    ],
)
def test_nor_of_what_is_inside(more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="too much"):
        untrusted.vm(VM | more)


def test_a_disk_of_the_persistent_definition_is_looked_at_as_any_other() -> None:
    with pytest.raises(BadRequest, match="path"):
        untrusted.vm(VM | {"cold": [DISK | {"path": "nbd://x"}]})


def test_an_answer_has_bounds_as_well() -> None:
    answer: Data = {"address": "10.0.0.1", "addresses": ["10.0.0.1"] * 1_000, "disks": [], "nics": []}
    with pytest.raises(BadRequest, match="too much: 1000 addresses"):
        untrusted.answer(answer)


def test_so_many_secrets_and_no_more() -> None:
    need = Need.model_validate({"ref": {"kind": "volume", "usage": "x"}})
    with pytest.raises(BadRequest, match="too much: 1001 secrets"):
        untrusted.needs((need,) * 1_001)


@pytest.mark.parametrize(
    "text",
    [",".join(["0-65535"] * 60_000), ",".join(["0-65535", *(["1", "^1"] * 100_000)])],
    ids=("spans", "single"),
)
def test_a_set_of_cpus_is_read_in_no_time(text: str) -> None:
    """Such a text fits into one message; each part of it took as long as all that it had named before."""
    began = time.process_time()
    ref = {"kind": "cpus", "name": text, "where": "x"}
    try:
        untrusted.vm(VM | {"references": [ref]})
    except BadRequest as error:
        assert "x = '0-65535" in error.message
    assert time.process_time() - began < 5
    assert numbers("0-3,^2,7") == frozenset({0, 1, 3, 7})
