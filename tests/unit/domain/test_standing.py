"""What a definition names on its host, judged by another one: fine, missing, taken, another; and translated."""

from __future__ import annotations

import pytest

from sterna.domain.references import (
    Form,
    Kind,
    Lan,
    Reference,
    Thing,
    apart,
    huge_bytes,
    in_words,
    less_promised,
    numbers,
    translations,
)
from sterna.domain.standing import clashes, refusals

FILE = Thing(form=Form.FILE, size=10, digest="aa", inode=7, modified_ns=1)


class FakeGround:
    """A host that has what the test says."""

    host, address = "host2", "10.0.0.2"

    def __init__(self, **has: object) -> None:
        self.has = has

    def thing(self, path: str, *, digest: bool = False) -> Thing:
        found = self.has.get(path, Thing())
        assert isinstance(found, Thing)
        return found if digest else found.model_copy(update={"digest": None})

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
        return self.has.get("lans", {}).get((name, portgroup))

    def has_filter(self, name: str) -> bool:
        return name in self.has.get("filters", ())

    def has_secret(self, uuid: str) -> bool:
        return uuid in self.has.get("secrets", ())

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


def ref(kind: Kind, name: str, **more: object) -> Reference:
    return Reference(kind=kind, name=name, where="it", **more)


BLOCK = Thing(form=Form.BLOCK)
NIC = ref(Kind.NETWORK, "lan", portgroup="web", lan=Lan(forward="bridge", vlan="7"))
CASES = [
    (ref(Kind.ADDRESS, "10.0.0.2"), {}, ""),
    (ref(Kind.ADDRESS, "192.0.2.1"), {}, "listen-address-missing"),
    (ref(Kind.ADDRESS, "10.0.0.2", port=5900), {"ports": [(5900, False)]}, "port-taken"),
    (ref(Kind.ADDRESS, "10.0.0.2", port=5900), {"ports": [(5900, True)]}, ""),
    (ref(Kind.ADDRESS, "10.0.0.2", port=5900, udp=True), {"ports": [(5900, True)]}, "port-taken"),
    (ref(Kind.ADDRESS, "10.0.0.2", port=5900, cold=True), {"ports": [(5900, False)]}, ""),
    (ref(Kind.ADDRESS, "10.0.0.1", own=True, port=5900), {"ports": [(5900, False)]}, "port-taken"),
    (ref(Kind.ADDRESS, "10.2.0.1", network="10.2.0.0/24"), {}, "listen-address-missing"),
    (ref(Kind.PEER, "10.9.9.9", port=7), {"servers": [("10.9.9.9", 7)]}, ""),
    (ref(Kind.PEER, "10.9.9.9", port=7), {}, "remote-unreachable"),
    (ref(Kind.SOCKET, "/a/b"), {}, ""),
    (ref(Kind.SOCKET, "/a/b"), {"/a/b": Thing(folder=False)}, "folder-missing"),
    (ref(Kind.SOCKET, "/a/b"), {"/a/b": Thing(form=Form.SOCKET), "users": {"/a/b": "VM web"}}, "path-taken"),
    (ref(Kind.SOCKET, "/a/b"), {"/a/b": Thing(form=Form.SOCKET)}, ""),
    (ref(Kind.OUTPUT, "/a/b"), {"/a/b": FILE}, ""),
    (ref(Kind.OUTPUT, "/a/b"), {"/a/b": Thing(folder=False)}, "folder-missing"),
    (ref(Kind.OUTPUT, "/a/b"), {"/a/b": Thing(form=Form.FOLDER)}, "path-taken"),
    (ref(Kind.OUTPUT, "/a/b"), {"users": {"/a/b": "VM web"}}, "path-taken"),
    (ref(Kind.OUTPUT, "/a/b", cold=True), {"users": {"/a/b": "VM web"}}, ""),
    (ref(Kind.SERVER, "/a/b"), {"servers": ["/a/b"]}, ""),
    (ref(Kind.SERVER, "/a/b"), {"/a/b": Thing(form=Form.SOCKET)}, "socket-missing"),
    (ref(Kind.FILE, "/a/b", thing=FILE), {"/a/b": FILE}, ""),
    (ref(Kind.FILE, "/a/b", thing=FILE), {}, "file-missing"),
    (ref(Kind.FILE, "/a/b", thing=FILE), {"/a/b": FILE.model_copy(update={"inode": 8})}, ""),
    (
        ref(Kind.FILE, "/a/b", thing=FILE),
        {"/a/b": FILE.model_copy(update={"digest": "b", "inode": 8})},
        "file-differs",
    ),
    (
        ref(Kind.FILE, "/a/b", thing=FILE.model_copy(update={"digest": None})),
        {"/a/b": FILE.model_copy(update={"digest": None})},
        "",
    ),
    (
        ref(Kind.FILE, "/a/b", thing=FILE.model_copy(update={"digest": None})),
        {"/a/b": FILE.model_copy(update={"digest": None, "inode": 8})},
        "file-differs",
    ),
    (ref(Kind.FILE, "/a/b", cold=True, thing=FILE), {}, "file-missing"),
    (ref(Kind.FILE, "/a/b", cold=True, thing=Thing()), {}, ""),
    (ref(Kind.FILE, "/a/b", thing=Thing()), {}, "file-missing"),
    (ref(Kind.FIRMWARE, "/a/b", cold=True, thing=Thing()), {}, ""),
    (ref(Kind.PRESENT, "/a/b", cold=True, thing=Thing()), {}, ""),
    (ref(Kind.DEVICE, "/a/b", cold=True, thing=Thing()), {}, ""),
    (ref(Kind.OUTPUT, "/a/b", cold=True, thing=Thing(folder=False)), {"/a/b": Thing(folder=False)}, ""),
    (ref(Kind.SOCKET, "/a/b", cold=True, thing=Thing()), {"/a/b": Thing(folder=False)}, "folder-missing"),
    (ref(Kind.FIRMWARE, "/a/b", thing=FILE), {"/a/b": FILE.model_copy(update={"digest": "b", "inode": 8})}, ""),
    (ref(Kind.FIRMWARE, "/a/b", thing=FILE), {"/a/b": FILE.model_copy(update={"size": 11})}, "firmware-size"),
    (ref(Kind.FIRMWARE, "/a/b", thing=FILE), {}, "file-missing"),
    (ref(Kind.PRESENT, "/a/b"), {"/a/b": FILE}, ""),
    (ref(Kind.PRESENT, "/a/b"), {}, "file-missing"),
    (ref(Kind.PRESENT, "/a/b", unless="/nvram"), {"/nvram": FILE}, ""),
    (ref(Kind.PRESENT, "/a/b", unless="/nvram"), {}, "file-missing"),
    (ref(Kind.ARGUMENT, "/a/pipe", thing=Thing(form=Form.PIPE)), {}, "file-missing"),
    (ref(Kind.DEVICE, "/dev/x"), {"/dev/x": Thing(form=Form.DEVICE)}, ""),
    (ref(Kind.DEVICE, "/dev/x"), {}, "device-missing"),
    (ref(Kind.ARGUMENT, "/a/b", thing=FILE), {"/a/b": FILE}, ""),
    (ref(Kind.ARGUMENT, "/a/b", thing=FILE), {}, "file-missing"),
    (ref(Kind.ARGUMENT, "/dev/vg/a", thing=BLOCK), {"/dev/vg/a": BLOCK}, "argument-disk"),
    (ref(Kind.ARGUMENT, "/a/b", thing=Thing(form=Form.FOLDER)), {}, "file-missing"),
    (ref(Kind.ARGUMENT, "/a/b", thing=Thing()), {"/a/b": Thing(folder=False)}, "folder-missing"),
    (ref(Kind.ARGUMENT, "/objects/a", thing=Thing(folder=False)), {"/objects/a": Thing(folder=False)}, ""),
    (ref(Kind.NETWORK, "lan"), {"networks": {"lan": "active"}}, ""),
    (ref(Kind.NETWORK, "lan"), {}, "network-missing"),
    (ref(Kind.NETWORK, "lan"), {"networks": {"lan": "inactive"}}, "network-inactive"),
    (NIC, {"networks": {"lan": "active"}, "lans": {("lan", "web"): Lan(forward="bridge", vlan="7")}}, ""),
    (NIC, {"networks": {"lan": "active"}, "lans": {("lan", "web"): Lan(forward="bridge")}}, "network-differs"),
    (NIC, {"networks": {"lan": "active"}, "lans": {("lan", "web"): Lan(forward="nat")}}, "network-differs"),
    (NIC, {"networks": {"lan": "active"}, "lans": {("lan", "web"): Lan()}}, "network-differs"),
    (ref(Kind.FILTER, "mine"), {"filters": ["mine"]}, ""),
    (ref(Kind.FILTER, "mine"), {}, "filter-missing"),
    (ref(Kind.SECRET, "s"), {"secrets": ["s"]}, ""),
    (ref(Kind.SECRET, "s"), {}, "secret-missing"),
    (ref(Kind.CPUS, "0-3"), {}, ""),
    (ref(Kind.CPUS, "2-5"), {}, "cpus-missing"),
    (ref(Kind.NODES, "0"), {}, ""),
    (ref(Kind.NODES, "0-1"), {}, "nodes-missing"),
    (ref(Kind.PAGES, "2048", count=100), {}, ""),
    (ref(Kind.PAGES, "2048", count=101), {}, "hugepages-short"),
    (ref(Kind.PAGES, "2048", count=41, nodes="1"), {}, "hugepages-short"),
    (ref(Kind.PAGES, "1048576", count=1), {}, "hugepages-short"),
    (ref(Kind.CID, "5"), {}, "vsock-taken"),
    (ref(Kind.CID, "6"), {}, ""),
    (ref(Kind.SECURITY, "apparmor"), {}, ""),
    (ref(Kind.SECURITY, "selinux"), {}, "security-driver-missing"),
    (ref(Kind.CACHE, "CPU cache"), {"resctrl": True}, ""),
    (ref(Kind.CACHE, "CPU cache"), {}, "resctrl-missing"),
]


@pytest.mark.parametrize(("named", "has", "code"), CASES)
def test_each_kind_is_refused_where_it_is_missing_and_only_there(
    named: Reference, has: dict[str, object], code: str
) -> None:
    found = refusals([named], FakeGround(**has))
    assert [refusal.code for refusal in found] == ([code] if code else [])
    assert all(refusal.message and refusal.fix for refusal in found)
    assert all("persistent definition" in refusal.message for refusal in found) or not named.cold


def test_a_path_at_which_the_source_could_not_look_is_refused() -> None:
    found = refusals([ref(Kind.FILE, "/a/b", silent=True)], FakeGround(**{"/a/b": FILE}))
    assert [refusal.code for refusal in found] == ["path-silent"]
    assert "/a/b" in found[0].message and found[0].fix


def test_references_are_looked_at_apart_by_what_may_not_answer() -> None:
    log, again = ref(Kind.OUTPUT, "/a/log"), ref(Kind.ARGUMENT, "/a/log")
    other, listens, rest = ref(Kind.FILE, "/b"), ref(Kind.ADDRESS, "web", port=1), ref(Kind.ADDRESS, "web", port=2)
    cpus, pages = ref(Kind.CPUS, "0-3"), ref(Kind.PAGES, "2048")
    silent = ref(Kind.FILE, "/c", silent=True)
    found = apart([log, cpus, listens, other, silent, again, pages, rest])
    assert found == [(log, again), (cpus, silent, pages), (listens, rest), (other,)]


def test_every_kind_is_judged() -> None:
    assert {named.kind for named, _, _ in CASES} == set(Kind)
    assert {named.kind for named, _, code in CASES if code} == set(Kind)


def test_addresses_that_only_the_source_has_are_translated() -> None:
    named = [
        ref(Kind.ADDRESS, "10.0.0.1", own=True),
        ref(Kind.ADDRESS, "10.1.0.1", network="10.1.0.0/24"),
        ref(Kind.ADDRESS, "10.2.0.1", network="10.2.0.0/24"),
        ref(Kind.ADDRESS, "192.0.2.1"),
        ref(Kind.ADDRESS, "0.0.0.0"),
    ]
    assert translations(named, FakeGround()) == {"10.0.0.1": "10.0.0.2", "10.1.0.1": "10.1.0.2"}


def test_one_reason_is_given_once_and_all_of_them_at_once() -> None:
    named = [ref(Kind.FILTER, "mine"), ref(Kind.FILTER, "mine"), ref(Kind.NETWORK, "lan")]
    assert [r.code for r in refusals(named, FakeGround())] == ["filter-missing", "network-missing"]


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
    assert refusals(less_promised([fits], [other]), FakeGround()) == []
    assert [r.code for r in refusals(less_promised([short], [other]), FakeGround())] == ["hugepages-short"]


def test_only_pages_that_the_running_guest_has_are_counted() -> None:
    named = [ref(Kind.PAGES, "2048", count=3), ref(Kind.PAGES, "2048", count=9, cold=True)]
    assert huge_bytes(named) == 3 * 2048 * 1024
