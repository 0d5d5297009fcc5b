"""What a definition names on its host, judged by another one: fine, missing, taken, another; and translated."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain.references import (
    Kind,
    Lan,
    Reference,
    Thing,
    apart,
    huge_bytes,
    in_words,
    less_promised,
    numbers,
    outputs_in,
    translations,
)
from sterna.domain.resource_checks import clashes, refusals
from tests.unit.domain.reference_cases import CASES, FILE, ref


class FakeHost:
    """A host that has what the test says."""

    name, address = "host2", "10.0.0.2"

    def __init__(self, **has: Any) -> None:
        self.has = has

    def thing(self, path: str, *, digest: bool = False) -> Thing:
        found = self.has.get(path, Thing())
        assert isinstance(found, Thing)
        return found if digest else found.model_copy(update={"digest": None})

    def makes(self, folder: str) -> bool:
        return folder == self.has.get("made")

    def bindable(self, address: str, port: int = 0, *, udp: bool = False) -> str:
        if address not in self.has.get("addresses", ("0.0.0.0", "10.0.0.2", "10.1.0.2")):
            return "address"
        return "port" if (port, udp) in self.has.get("ports", ()) else ""

    def addresses_in(self, network: str) -> tuple[str, ...]:
        return {
            "10.0.0.0/24": ("10.0.0.2",),
            "10.1.0.0/24": ("10.1.0.2",),
            "10.2.0.0/24": ("10.2.0.2", "10.2.0.3"),
        }.get(network, ())

    def reaches(self, address: str, port: int) -> bool:
        return (address, port) in self.has.get("servers", ())

    def listening(self, path: str) -> bool:
        return path in self.has.get("servers", ())

    def user_of(self, path: str) -> str:
        return str(self.has.get("users", {}).get(path, ""))

    def network(self, name: str) -> str:
        return str(self.has.get("networks", {}).get(name, ""))

    def lan(self, name: str, portgroup: str) -> Lan | None:
        lans: dict[tuple[str, str], Lan] = self.has.get("lans", {})
        return lans.get((name, portgroup))

    def has_filter(self, name: str) -> bool:
        return name in self.has.get("filters", ())

    def cpus(self) -> frozenset[int]:
        return frozenset(range(4))

    def nodes(self) -> frozenset[int]:
        return frozenset({0})

    def free_pages(self, size_kib: int, nodes: frozenset[int]) -> int | None:
        return {2048: 100 if not nodes else 40}.get(size_kib)

    def cid_user(self, cid: str) -> str:
        return "VM web" if cid == "5" else ""

    def security_models(self) -> frozenset[str]:
        return frozenset({"dac", "apparmor"})

    def allocates_cache(self) -> bool:
        return bool(self.has.get("resctrl"))


@pytest.mark.parametrize(("named", "has", "code"), CASES)
def test_each_kind_is_refused_where_it_is_missing_and_only_there(
    named: Reference, has: dict[str, object], code: str
) -> None:
    found = refusals([named], FakeHost(**has))
    assert [refusal.code for refusal in found] == ([code] if code else [])
    assert all(refusal.message and refusal.fix for refusal in found)
    assert all("persistent definition" in refusal.message for refusal in found) or not named.cold


def test_a_path_at_which_the_source_could_not_look_is_refused() -> None:
    found = refusals([ref(Kind.FILE, "/a/b", silent=True)], FakeHost(**{"/a/b": FILE}))
    assert [refusal.code for refusal in found] == ["path-silent"]
    assert "/a/b" in found[0].message and found[0].fix


def test_the_vms_own_folder_is_made_for_it() -> None:
    log = ref(Kind.OUTPUT, "/srv/instances/UUID/console.log")
    absent = {log.name: Thing(folder=False)}
    assert [r.code for r in refusals([log], FakeHost(**absent))] == ["folder-missing"]
    assert refusals([log], FakeHost(made="/srv/instances/UUID", **absent)) == []


def test_output_in_the_vms_own_folders() -> None:
    named = [ref(Kind.OUTPUT, f"/a/{n}") for n in ("b/log", "c/log", "log")] + [ref(Kind.FILE, "/a/b/x")]
    assert outputs_in(named, ("/a/b",)) == ("/a/b/log",)


def test_references_are_looked_at_apart_by_what_may_not_answer() -> None:
    log, again = ref(Kind.OUTPUT, "/a/log"), ref(Kind.ARGUMENT, "/a/log")
    other, listens, rest = ref(Kind.FILE, "/b"), ref(Kind.ADDRESS, "web", port=1), ref(Kind.ADDRESS, "web", port=2)
    cpus, pages = ref(Kind.CPUS, "0-3"), ref(Kind.PAGES, "2048")
    silent = ref(Kind.FILE, "/c", silent=True)
    found = apart([log, cpus, listens, other, silent, again, pages, rest])
    assert found == [(log, again), (cpus, silent, pages), (listens, rest), (other,)]


def test_every_kind_is_judged() -> None:
    assert {named.kind for named, _, _ in CASES} == set(Kind)
    brought = {Kind.SECRET}  # judged with the secrets of disks: domain/secrets.py
    assert {named.kind for named, _, code in CASES if code} == set(Kind) - brought


def test_addresses_that_only_the_source_has_are_translated() -> None:
    named = [
        ref(Kind.ADDRESS, "10.0.0.1", own=True),
        ref(Kind.ADDRESS, "10.1.0.1", network="10.1.0.0/24"),
        ref(Kind.ADDRESS, "10.2.0.1", network="10.2.0.0/24"),
        ref(Kind.ADDRESS, "192.0.2.1"),
        ref(Kind.ADDRESS, "0.0.0.0"),
    ]
    assert translations(named, FakeHost()) == {"10.0.0.1": "10.0.0.2", "10.1.0.1": "10.1.0.2"}


def test_one_reason_is_given_once_and_all_of_them_at_once() -> None:
    named = [ref(Kind.FILTER, "mine"), ref(Kind.FILTER, "mine"), ref(Kind.NETWORK, "lan")]
    assert [r.code for r in refusals(named, FakeHost())] == ["filter-missing", "network-missing"]


def test_sets_as_libvirt_writes_them() -> None:
    assert numbers("0-3,^2,7") == {0, 1, 3, 7}
    assert in_words({0, 1, 3, 7}) == "0-1,3,7"
    for wrong in ("", "a", "3-1", "0-99999999999"):
        with pytest.raises(ValueError, match=r"."):
            numbers(wrong)


@pytest.mark.parametrize(
    ("named", "promised", "code"),
    [
        (ref(Kind.ADDRESS, "10.0.0.1", port=7), ref(Kind.ADDRESS, "10.0.0.1", port=7), "port-taken"),
        (ref(Kind.ADDRESS, "10.0.0.1", port=7), ref(Kind.ADDRESS, "0.0.0.0", port=7), "port-taken"),
        (ref(Kind.ADDRESS, "10.0.0.1", port=7), ref(Kind.ADDRESS, "10.0.0.3", port=7), ""),
        (ref(Kind.ADDRESS, "10.0.0.1", port=7), ref(Kind.ADDRESS, "10.0.0.1", port=7, udp=True), ""),
        (ref(Kind.ADDRESS, "10.0.0.1"), ref(Kind.ADDRESS, "10.0.0.1"), ""),
        (ref(Kind.OUTPUT, "/a"), ref(Kind.OUTPUT, "/a"), "path-taken"),
        (ref(Kind.SOCKET, "/a"), ref(Kind.SOCKET, "/a", cold=True), ""),
        (ref(Kind.CID, "7"), ref(Kind.CID, "7"), "vsock-taken"),
        (ref(Kind.FILE, "/a"), ref(Kind.FILE, "/a"), ""),
    ],
)
def test_what_is_promised_to_another_guest_on_its_way(named: Reference, promised: Reference, code: str) -> None:
    assert [r.code for r in clashes([named], "web", [promised])] == ([code] if code else [])


def test_promised_pages_are_not_free() -> None:
    other = [ref(Kind.PAGES, "2048", count=60), ref(Kind.PAGES, "1048576", count=1)]
    fits, short = ref(Kind.PAGES, "2048", count=40), ref(Kind.PAGES, "2048", count=41)
    assert refusals(less_promised([fits], [other]), FakeHost()) == []
    assert [r.code for r in refusals(less_promised([short], [other]), FakeHost())] == ["hugepages-short"]


def test_only_pages_that_the_running_guest_has_are_counted() -> None:
    named = [ref(Kind.PAGES, "2048", count=3), ref(Kind.PAGES, "2048", count=9, cold=True)]
    assert huge_bytes(named) == 3 * 2048 * 1024
