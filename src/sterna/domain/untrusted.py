"""Data from another host, checked before it becomes part of a URI, a command, a path or XML. Pure.

A peer may be broken, of another version, or taken over. Each function returns the typed value or raises BadRequest
with the field that is wrong. `agent/` and `migration/` call them where a message comes in; nothing looks again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sized
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sterna.domain.addresses import bare, is_address, is_among
from sterna.domain.calls import Call
from sterna.domain.copying import DestinationNic
from sterna.domain.entries.source import Answer
from sterna.domain.errors import BadRequest
from sterna.domain.hosts import HostFacts, VmSummary
from sterna.domain.journal import LONGEST_PERMIT, LONGEST_REQUESTER, Migration
from sterna.domain.model import Disk, Nic, Reached, Value, Vm
from sterna.domain.plugs import is_supported
from sterna.domain.references import Kind, Reference, numbers
from sterna.domain.secrets import Need
from sterna.domain.sightings import MOST_CHANGES, MOST_VMS, Mark, News
from sterna.domain.texts import CONTROL, ISCSI_NAME, is_plain
from sterna.domain.trouble import Trouble

STREAM_PORTS = range(49152, 49216)
"""libvirt's own range for memory streams: what a firewall lets through."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""A host's name in Sterna, as `config` demands it."""
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_DEVICE = re.compile(r"(?![-.])[^\s/\\\x00-\x1f\x7f]{1,64}")
"""A network device, a bridge, or a port's id, whose first characters become part of a device's name."""
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_PCI = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}")
_LARGEST_BYTES = 2**60
MOST_REFERENCES = 1_000
MOST_PEERS = 64
"""Of these references: each is connected to."""
MOST_DISKS = 512
"""Also of those that only the persistent definition names."""
MOST_NICS = 256
MOST_DEVICES = 512
"""Of any other kind."""
MOST_BELOW = 512
"""Files that one disk stands on; QEMU opens 200."""
MOST_ADDRESSES = 256
"""Of a NIC, a host, or a volume's monitors."""
MOST_NEEDS = 1_000
"""Secrets."""
_LONGEST_NAME = 1_000
"""Of a VM; libvirt keeps each in a file of its name, which is shorter."""
_LONGEST_TEXT = 500
"""Of a text from another host."""

M = TypeVar("M", bound=BaseModel)
A = TypeVar("A", bound=Value)
C = TypeVar("C", bound=Call[Any])


def address(text: object) -> str:
    """An address that may become part of a URI. Raises BadRequest."""
    _demand(is_address(text), "address", text)
    return str(text)


def host_facts(raw: object, *, name: str | None = None) -> HostFacts:
    """A host's description of itself; `name`: the host that was asked. Raises BadRequest."""
    facts = _read(HostFacts, raw, "host")
    _demand(bool(_NAME.fullmatch(facts.name)), "host.name", facts.name)
    _demand(name is None or facts.name == name, "host.name", facts.name)
    _demand(is_address(facts.address), "host.address", facts.address)
    _demand(not facts.network_host or is_plain(facts.network_host), "host.network_host", facts.network_host)
    _demand(
        facts.initiator is None or bool(ISCSI_NAME.fullmatch(facts.initiator)), "host.initiator", facts.initiator
    )
    return facts


def is_name(text: object) -> bool:
    """A host's name."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text))


def version(raw: object) -> str:
    """Of an agent's Sterna; '' where it says none, or what cannot be one."""
    return raw if isinstance(raw, str) and _VERSION.fullmatch(raw) else ""


def trouble(raw: object) -> Trouble:
    """A host's own report of what is wrong with it. Raises BadRequest."""
    found = _read(Trouble, raw, "trouble")
    try:
        since = datetime.fromisoformat(found.since).astimezone(UTC)
    except ValueError:
        since = None
    _demand(since is not None, "trouble.since", found.since)
    assert since is not None
    longest = {"why": found.why[:_LONGEST_TEXT], "fix": found.fix[:_LONGEST_TEXT]}
    return found.model_copy(update=longest | {"since": since.isoformat(timespec="seconds")})


def mark(raw: object, boot: object) -> Mark:
    """How far a host has counted its changes of VMs, in its agent's life `boot`. Raises BadRequest."""
    found = _read(Mark, raw | {"boot": boot} if isinstance(raw, dict) else raw, "vms")
    _demand(0 <= found.seq < 2**63, "vms.seq", found.seq)
    _demand(bool(_ID.fullmatch(found.boot)), "boot", found.boot)
    _demand(bool(_ID.fullmatch(found.digest)), "vms.digest", found.digest)
    return found


def vm_news(raw: Mapping[str, Any]) -> News:
    """Changes of a host's VMs. Raises BadRequest."""
    seen, gone = raw.get("seen"), raw.get("gone")
    _demand(isinstance(seen, list) and isinstance(gone, list), "vms", "no lists")
    assert isinstance(seen, list) and isinstance(gone, list)
    _demand(len(seen) + len(gone) <= MOST_CHANGES, "vms", f"{len(seen) + len(gone)} changes")
    for uuid in gone:
        _demand(isinstance(uuid, str) and bool(_ID.fullmatch(uuid)), "vms.gone", uuid)
    return News(mark=mark(raw, raw.get("boot")), whole=False, seen=_summaries(seen), gone=tuple(gone))


def vm_list(raw: Mapping[str, Any]) -> News:
    """All VMs of a host, of an agent that counts its changes or of an older one. Raises BadRequest."""
    seen = raw["vms"]
    _demand(isinstance(seen, list) and len(seen) <= MOST_VMS, "vms", "no list, or a very long one")
    counted = mark(raw, raw.get("boot")) if "seq" in raw else None
    return News(mark=counted, whole=True, seen=_summaries(seen))


def _summaries(raw: list[Any]) -> tuple[VmSummary, ...]:
    found = tuple(_read(VmSummary, one, "vms") for one in raw)
    for one in found:
        _demand(bool(_ID.fullmatch(one.uuid)), "vms.uuid", one.uuid)
        _demand(0 < len(one.name) <= _LONGEST_NAME, "vms.name", one.name)
        _demand(0 <= one.memory_bytes <= _LARGEST_BYTES, "vms.memory_bytes", one.memory_bytes)
        _demand(0 <= one.vcpus < 2**16, "vms.vcpus", one.vcpus)
    _demand(len({one.uuid for one in found}) == len(found), "vms", "one UUID twice")
    return found


def migration(raw: object) -> Migration:
    """A migration as its source describes it. Raises BadRequest."""
    found = _read(Migration, raw, "migration")
    _demand(bool(_ID.fullmatch(found.id)), "migration.id", found.id)
    _demand(bool(_ID.fullmatch(found.vm_uuid)), "migration.vm_uuid", found.vm_uuid)
    _demand(found.epoch > 0, "migration.epoch", found.epoch)
    _demand(len(found.vm_name) <= _LONGEST_NAME, "migration.vm_name", found.vm_name)
    by = found.requested_by
    _demand(len(by) <= LONGEST_REQUESTER and not CONTROL.search(by), "migration.requested_by", by)
    _demand(not found.created_at or _is_moment(found.created_at), "migration.created_at", found.created_at)
    for side in ("source", "destination"):
        host, address = getattr(found, side), getattr(found, f"{side}_address")
        _demand(bool(_NAME.fullmatch(host)), f"migration.{side}", host)
        _demand(not address or is_address(address), f"migration.{side}_address", address)
    memory, hosts = found.options.memory_bytes or 0, found.options.network_hosts or ()
    _demand(0 <= memory <= _LARGEST_BYTES, "migration.options.memory_bytes", memory)
    _demand(all(is_plain(host) for host in hosts), "migration.options.network_hosts", hosts)
    _demand(len(found.permit) <= LONGEST_PERMIT, "migration.permit", found.permit)
    return found


def migration_in(params: Mapping[str, Any]) -> Migration:
    """The one that P3 and every cast carry. Raises BadRequest."""
    return migration(params.get("migration") or {})


def vm(raw: object, *, uuid: str | None = None) -> Vm:
    """A VM as its source describes it, its disks as its own; `uuid`: the one it is about. Raises BadRequest."""
    found = _read(Vm, raw, "vm")
    _demand(bool(_ID.fullmatch(found.uuid)) and uuid in (None, found.uuid), "vm.uuid", found.uuid)
    _demand(0 <= found.memory_bytes <= _LARGEST_BYTES, "vm.memory_bytes", found.memory_bytes)
    _demand(not found.emulator or _path(found.emulator), "vm.emulator", found.emulator)
    for word in (found.virt_type, found.arch, found.machine, found.next_start.machine):
        _demand(not word or bool(_WORD.fullmatch(word)), "vm: a type", word)
    _demand_few_devices(found)
    for disk in (*found.disks, *found.cold):
        _disk(disk)
    for nic in (*found.nics, *found.next_start.nics):
        _nic(nic)
    for ref in found.references:
        _reference(ref)
    own = {name: tuple(_of_vm(disk, found.uuid) for disk in getattr(found, name)) for name in ("disks", "cold")}
    return found.model_copy(update=own)


def _of_vm(disk: Disk, uuid: str) -> Disk:
    """A volume service is asked for what this VM has, not another one. What it admitted on its host stays there."""
    what = f"disk {disk.target}"
    _demand(disk.vm_uuid in (None, uuid), f"{what}: vm_uuid", disk.vm_uuid)
    _demand(disk.attachment_id is None, f"{what}: attachment_id", disk.attachment_id)
    return disk.model_copy(update={"vm_uuid": uuid})


def _demand_few_devices(found: Vm) -> None:
    """Each of them is looked for on this host."""
    few(found.disks, MOST_DISKS, "vm.disks")
    few(found.cold, MOST_DISKS, "vm.cold")
    few(found.nics, MOST_NICS, "vm.nics")
    few(found.next_start.nics, MOST_NICS, "vm.next_start.nics")
    few(found.next_start.devices, MOST_DEVICES, "vm.next_start.devices")
    for name in ("firmware", "immovable", "unjudged"):
        few(getattr(found, name), MOST_DEVICES, f"vm.{name}")
    few(found.references, MOST_REFERENCES, "vm.references")
    few([ref for ref in found.references if ref.kind is Kind.PEER], MOST_PEERS, "vm.references to connect to")


def few(found: Sized, most: int, what: str) -> None:
    """Not more of them than a healthy host sends. Raises BadRequest."""
    if len(found) > most:
        raise BadRequest(
            f"the other host sent too much: {len(found)} {what}, at most {most} are taken",
            fix="a VM with so many cannot be migrated; if it has fewer, find out which host sends this on the bus",
        )


def needs(found: tuple[Need, ...]) -> tuple[Need, ...]:
    """The secrets that a VM refers to. Raises BadRequest."""
    few(found, MOST_NEEDS, "secrets")
    return found


def _reference(ref: Reference) -> None:
    """A path is only looked at; a set or a number must be one."""
    for text in (ref.name, ref.portgroup, str(ref.lan or "")):
        _demand(CONTROL.search(text) is None, f"{ref.where}: name", text)
    try:
        for text in (ref.nodes, ref.name if ref.kind in (Kind.CPUS, Kind.NODES) else ""):
            numbers(text) if text else None
        right = ref.kind is not Kind.PAGES or 0 < int(ref.name) < 2**32
    except ValueError:
        right = False
    _demand(right and (ref.port is None or 0 <= ref.port < 2**16), ref.where, ref.name)


def answer(raw: Mapping[str, Any], permitted: tuple[str, ...] | None = None) -> Answer:
    """P11, the destination's answer to P3. `permitted`: where it may be; other addresses are left out. Raises
    BadRequest where none is left."""
    _demand(is_address(raw.get("address")), "address", raw.get("address"))
    found = _read(Answer, {**raw, "addresses": raw.get("addresses") or [raw.get("address")]}, "answer")
    _demand(all(map(is_address, found.addresses)), "addresses", found.addresses)
    if permitted is not None:
        _demand(is_among(found.address, permitted), "address, which it is not enrolled with", found.address)
        kept = tuple(one for one in found.addresses if is_among(one, permitted))
        found = found.model_copy(update={"addresses": kept})
    few(found.disks, MOST_DISKS, "disks")
    few(found.nics, MOST_NICS, "NICs")
    few(found.addresses, MOST_ADDRESSES, "addresses")
    few(found.listens, MOST_REFERENCES, "addresses to listen at")
    for disk in found.disks:
        _demand(disk.path is None or _path(disk.path), f"disk {disk.target}: path", disk.path)
        _volume(disk, disk.target)
    for nic in found.nics:
        _nic(nic)
    _demand(all(map(is_address, (*found.listens, *found.listens.values()))), "listens", found.listens)
    if found.host is not None:
        host_facts(raw["host"])
    return found


def call(kind: type[C], raw: object) -> C:
    """The parameters of a call, with their types only. Raises BadRequest."""
    return _read(kind, raw, kind.method)


def reply(asked: Call[A], raw: object) -> A:
    """What a call was answered with, with its types only. Raises BadRequest."""
    return _read(asked.answer(), raw, asked.method)


def remark(kind: type[M], raw: object) -> M:
    """An answer that only people read. One that cannot be read is left out, and holds nothing up."""
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return kind()


def stream_uri(raw: object, address: str) -> str:
    """Where the destination waits for the rest of a guest: `tcp:`, the address it was asked to wait on, and a port
    of the range. QEMU would obey `exec:` as well. Raises BadRequest."""
    text = str(raw)
    begin, _, port = text.removeprefix("tcp:").rpartition(":")
    right = text.startswith("tcp:") and bare(begin) == bare(address)
    _demand(
        right and port.isascii() and port.isdigit() and int(port) in STREAM_PORTS and len(port) == len("49152"),
        "uri",
        raw,
    )
    return text


def port(raw: object) -> int:
    """A TCP port, 0 for none. Raises BadRequest."""
    _demand(type(raw) is int and 0 <= raw < 2**16, "port", raw)
    assert isinstance(raw, int)
    return raw


def place(raw: object) -> int | None:
    """A position in a file, None for none. Raises BadRequest."""
    _demand(raw is None or (type(raw) is int and 0 <= raw < 2**63), "place", raw)
    return raw if isinstance(raw, int) else None


def named(text: object, what: str) -> str:
    """An id that may become part of a file's name. Raises BadRequest."""
    _demand(isinstance(text, str) and bool(_ID.fullmatch(text)), what, text)
    return str(text)


def path(text: object, what: str) -> str:
    """An absolute path. Raises BadRequest."""
    _demand(isinstance(text, str) and _path(text), what, text)
    return str(text)


def file_name(text: object, what: str) -> str:
    """A file's name without a folder. Raises BadRequest."""
    right = isinstance(text, str) and text not in ("", ".", "..") and "/" not in text and "\0" not in text
    _demand(right, what, text)
    return str(text)


def _disk(disk: Disk) -> None:
    what = f"disk {disk.target}"
    _demand(bool(_DEVICE.fullmatch(disk.target)), "disk target", disk.target)
    _demand(disk.path is None or _path(disk.path), f"{what}: path", disk.path)
    _demand(disk.backing_path is None or is_plain(disk.backing_path), f"{what}: backing_path", disk.backing_path)
    for name in ("format", "backing_format"):
        word = getattr(disk, name)
        _demand(not word or bool(_WORD.fullmatch(word)), f"{what}: {name}", word)
    for name in ("capacity_bytes", "allocation_bytes", "data_bytes"):
        size = getattr(disk, name)
        _demand(size is None or 0 <= size <= _LARGEST_BYTES, f"{what}: {name}", size)
    for name in ("volume_id", "vm_uuid"):
        word = getattr(disk, name)
        _demand(word is None or is_plain(word), f"{what}: {name}", word)
    few(disk.chain, MOST_BELOW, f"files below {what}")
    few(disk.secrets, MOST_BELOW, f"secrets of {what}")
    _volume(disk, disk.target)


def _volume(disk: Reached, target: str) -> None:
    few(disk.rbd.monitors if disk.rbd else (), MOST_ADDRESSES, f"monitors of disk {target}")
    for source in disk.sources:
        for field, value in source.odd():
            _demand(False, f"disk {target}: {field}", value)


def _nic(nic: Nic | DestinationNic) -> None:
    what = f"NIC {nic.mac}"
    _demand(bool(_MAC.fullmatch(nic.mac)), "NIC mac", nic.mac)
    # what no host can plug is described in words, and refused by them; it goes no further
    _demand(bool(nic.plug) and is_plain(nic.plug) and len(nic.plug) <= _LONGEST_TEXT, f"{what}: plug", nic.plug)
    for name in ("bridge", "device", "port_id", "parent", "mode"):
        word = getattr(nic, name)
        # of such a NIC these may be a socket's path, say
        right = _DEVICE.fullmatch if is_supported(nic) else is_plain
        _demand(not word or bool(right(word)), f"{what}: {name}", word)
    _demand(not nic.pci or bool(_PCI.fullmatch(nic.pci)), f"{what}: pci", nic.pci)
    _demand(nic.vlan is None or 0 <= nic.vlan < 2**12, f"{what}: vlan", nic.vlan)
    few(getattr(nic, "addresses", ()), MOST_ADDRESSES, f"addresses of {what}")
    few(getattr(nic, "external_ids", ()), MOST_ADDRESSES, f"external ids of {what}")
    _demand(nic.mtu is None or 0 < nic.mtu < 2**17, f"{what}: mtu", nic.mtu)


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _path(text: str) -> bool:
    return text.startswith("/") and is_plain(text)


def _read(model: type[M], raw: object, what: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join([what, *map(str, first["loc"])])
        raise BadRequest(f"the other host sent invalid data: {where}: {first['msg']}") from error


def _demand(right: bool, what: str, raw: object) -> None:
    if not right:
        raise BadRequest(
            f"the other host sent invalid data: {what} = {str(raw)[:100]!r}",
            fix="find out which host sends this on the bus; a healthy host does not send it",
        )
