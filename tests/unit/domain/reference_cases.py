"""References of a definition, with what the other host has and the code of the refusal."""

from __future__ import annotations

from typing import Any

from sterna.domain.references import Form, Kind, Lan, Reference, Thing

BLOCK = Thing(form=Form.BLOCK)
FILE = Thing(form=Form.FILE, size=10, digest="aa", inode=7, modified_ns=1)


def ref(kind: Kind, name: str, **more: Any) -> Reference:
    return Reference(kind=kind, name=name, where="it", **more)


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
    (ref(Kind.FILE, "/a/b", thing=FILE), {"/a/b": FILE.model_copy(update={"digest": "b"})}, "file-differs"),
    (ref(Kind.FILE, "/a/b", thing=FILE), {"/a/b": FILE.model_copy(update={"digest": None})}, ""),
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
    (ref(Kind.ARGUMENT, "/a/b", thing=FILE, written=True), {"/a/b": FILE}, "argument-disk"),
    (ref(Kind.ARGUMENT, "/a/b", thing=FILE, written=True), {}, "argument-disk"),
    (ref(Kind.ARGUMENT, "/a/b", thing=FILE, written=True, shared=True), {"/a/b": FILE}, ""),
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
    (ref(Kind.SECRET, "s"), {}, ""),
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
