"""Every good answer has the fields that Nova's has, of the same types: route by route, version by version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cloud import FLAVOR, VOLUME, WEB1, Cloud

SEEN: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "nova_answers.json").read_text())["answers"]
FREE = {"addresses", "metadata", "extra_specs", "cpu_info", "hosts"}
"""Objects whose keys are names."""
AS_STATES_ARE = {"servers[].progress", "migrations[].links[].href", "migrations[].links[].rel"}
"""Nova shows them in some states only; not all were seen."""
QUERIES = {
    "/os-hypervisors 2.96 admin": "?with_servers=True",
    "/servers/detail 2.80 admin": "?all_tenants=1&limit=2",
}
"""What was asked for, where the answer depends on it."""
TWICE = [case for case in SEEN if case.startswith(("/servers/{server} ", "/os-migrations "))]
"""At rest, and while the server moves."""


def flat(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Each field with its type; of a list, the first entry's."""
    name = place.rpartition(".")[2]
    if isinstance(value, dict) and name in FREE:
        yield place, "object"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        if not value:
            yield f"{place}[]", "array"
        for inner in value[:1]:
            yield from flat(inner, f"{place}[]")
    else:
        kinds = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
        yield place, kinds[type(value)]


def is_listed(place: str, names: set[str]) -> bool:
    """Is it there, or an empty list of it?"""
    return place in names or (place.endswith("[]") and any(name.startswith(place) for name in names))


def compare(answer: Any, seen: dict[str, str]) -> list[str]:
    """What is different, in words."""
    ours = dict(flat(answer))
    theirs = {name.removesuffix("?"): kinds for name, kinds in seen.items()}
    required = {name for name in seen if not name.endswith("?")} - AS_STATES_ARE
    wrong = [f"{name} is too much" for name in ours if not is_listed(name, {*theirs, *AS_STATES_ARE})]
    for name in required:
        empty = any(
            place.endswith("[]") and name.startswith(place) for place, kind in ours.items() if kind == "array"
        )
        if not is_listed(name, set(ours)) and not empty:
            wrong.append(f"{name} is missing")
    for name, kind in ours.items():
        kinds = set(theirs.get(name, kind).split("|"))
        if kind not in kinds and "null" not in {kind, *kinds}:
            wrong.append(f"{name} is of type {kind}, not {kinds}")
    return wrong


async def filled(cloud: Cloud, route: str, version: str) -> str:
    """The route with names of things that are there."""
    values = {"server": WEB1, "volume": VOLUME, "flavor": FLAVOR, "host": "a", "number": "1"}
    if "{request}" in route:
        done = (await cloud.get(f"/servers/{WEB1}/os-instance-actions"))["instanceActions"]
        values["request"] = done[0]["request_id"]
    if "{hypervisor}" in route:
        listed = (await cloud.get("/os-hypervisors", version))["hypervisors"]
        values["hypervisor"] = str(listed[0]["id"])
    return route.format(**values)


@pytest.mark.parametrize("case", SEEN)
async def test_an_answer_has_novas_fields(cloud: Cloud, case: str) -> None:
    route, version, token = case.rsplit(" ", 2)
    if "migrations" in route or "os-instance-actions" in route:
        assert (await cloud.migrate()).status_code == 202
        await cloud.world.pull()
    path = await filled(cloud, route, version) + QUERIES.get(case, "")
    assert compare(await cloud.get(path, version, token), SEEN[case]) == []


@pytest.mark.parametrize("case", TWICE)
async def test_so_it_has_while_a_server_moves_and_afterwards(cloud: Cloud, case: str) -> None:
    route, version, token = case.rsplit(" ", 2)
    assert (await cloud.migrate()).status_code == 202
    path = await filled(cloud, route, version)
    assert compare(await cloud.get(path, version, token), SEEN[case]) == []
    await cloud.arrive()
    assert compare(await cloud.get(path, version, token), SEEN[case]) == []


def test_a_difference_is_found() -> None:
    assert compare({"a": 1}, {"a": "string"}) == ["a is of type integer, not {'string'}"]
    assert compare({"a": [{"b": 1, "c": 2}]}, {"a[].b": "integer"}) == ["a[].c is too much"]
    assert compare({"a": [{"b": 1}]}, {"a[].b": "integer", "a[].c": "string", "d?": "null"}) == ["a[].c is missing"]
    assert compare({"a": [], "e": None}, {"a[].b": "integer", "e": "string"}) == []
