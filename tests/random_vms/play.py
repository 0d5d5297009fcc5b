"""Plays one random VM on a lab: it is defined for real, planned, moved there and back, and taken away.

What is judged is in the world: both libvirts, all files of both hosts, the content of its disks, its definitions.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lxml import etree

from sterna.lab.errors import LabError
from sterna.lab.host import LabHost
from sterna.lab.places import INSTANCES, SHARED, STATE
from tests.e2e.conftest import Fleet
from tests.random_vms.draft import Vm
from tests.random_vms.reasons import ACCEPTED

PLACES = (INSTANCES, SHARED, f"{STATE}/random-*", "/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/swtpm")
_STATES = ("running", "paused")


@dataclass
class Outcome:
    """What came of one VM."""

    label: str
    """What kind of VM it is."""
    vm: Vm
    ended: str = ""
    """`moved`, `stayed` (there, not back), `refused`, `no VM` (libvirt or QEMU does not start it), or `WRONG`."""
    codes: tuple[str, ...] = ()
    """Of the refusals."""
    said: list[str] = field(default_factory=list)
    """The refusals' words."""
    virsh: str = ""
    """What `virsh migrate` does; '' where it was not tried."""
    why: str = ""
    """Why there is no such VM."""
    wrong: list[str] = field(default_factory=list)


def play(fleet: Fleet, label: str, vm: Vm, *, beside: bool = False) -> Outcome:
    """See above; `beside`: and by virsh, whatever Sterna did. Raises LabError where the lab itself fails."""
    outcome = Outcome(label, vm)
    with standing(fleet, vm, outcome) as stands:
        if stands:
            _judge(fleet, vm, outcome)
            if outcome.ended == "refused" or (beside and outcome.ended == "moved"):
                _beside_virsh(fleet, vm, outcome, always=beside)
    if outcome.wrong:
        outcome.ended = "WRONG"
    return outcome


@contextmanager
def standing(fleet: Fleet, vm: Vm, outcome: Outcome) -> Iterator[bool]:
    """The VM runs on host1; neither host has a trace of it at the end. False: there can be no such VM."""
    host1, host2 = fleet.lab.hosts["host1"], fleet.lab.hosts["host2"]
    try:
        host1.run(["mkdir", "-p", vm.folder])
        for command in vm.here:
            host1.run(["sh", "-ec", command])
        for command in vm.there:
            host2.run(["sh", "-ec", command])
        try:
            _start(host1, vm, fleet.lab.accelerator)
        except LabError as error:
            outcome.ended, outcome.why = "no VM", str(error)
            yield False
            return
        yield True
    finally:
        for host in (host1, host2):
            _take_away(host, vm)


def _start(host: LabHost, vm: Vm, accelerator: str) -> None:
    xml = vm.xml.replace("'KIND'", "'kvm'" if accelerator == "kvm" else "'qemu'")
    host.run(["sh", "-c", "cat >/run/random.xml"], stdin=xml)
    host.virsh("define", "/run/random.xml")
    host.virsh("start", vm.name)
    for command in vm.started:
        host.run(["sh", "-ec", command])


def _take_away(host: LabHost, vm: Vm) -> None:
    host.virsh("destroy", vm.name, check=False)
    host.virsh("undefine", vm.name, "--nvram", "--managed-save", "--snapshots-metadata", check=False)
    for command in vm.clean:
        host.run(["sh", "-c", command], check=False)
    host.run(
        ["sh", "-c", f"rm -rf {vm.folder} {STATE}/{vm.name} {SHARED}/{vm.name}-* /var/log/libvirt/qemu/{vm.name}*"]
    )


def _judge(fleet: Fleet, vm: Vm, outcome: Outcome) -> None:
    before, look = listing(fleet, vm), Look.of(fleet, vm, "host1")
    planned = fleet.api.post("/v1/plans", json={"vm": vm.name, "destination": "host2"})
    if planned.status_code != 200:
        outcome.wrong.append(f"no plan: {planned.status_code} {planned.text}")
        return
    reasons = planned.json()["blockers"]
    outcome.codes = tuple(sorted({str(reason["code"]) for reason in reasons}))
    outcome.said = [f"{reason['message']} ({reason['fix']})" for reason in reasons]
    outcome.wrong += [f"a refusal says too little: {r}" for r in reasons if not (r["message"] and r["fix"])]
    if "check-failed" in outcome.codes:
        outcome.wrong.append(f"a check could not be made: {outcome.said}")
    answer = fleet.start(vm.name, "host2")
    if (answer.status_code == 202) == bool(reasons):
        outcome.wrong.append(f"plan: {outcome.codes or 'yes'}, start: {answer.status_code} {answer.text}")
    if answer.status_code == 202:
        _follow(fleet, vm, outcome, str(answer.json()["id"]), look, before)
        return
    outcome.ended = "refused"
    if listing(fleet, vm) != before or Look.of(fleet, vm, "host1") != look:
        outcome.wrong.append(f"refused, and yet changed: {_changes(before, listing(fleet, vm))}")


def _follow(
    fleet: Fleet, vm: Vm, outcome: Outcome, migration: str, look: Look, before: dict[str, list[str]]
) -> None:
    if not _arrives(fleet, vm, outcome, migration, "host2"):
        return
    outcome.wrong += look.differences(Look.of(fleet, vm, "host2"))
    outcome.wrong += _carried(before, listing(fleet, vm), vm)
    answer = fleet.start(vm.name, "host1")
    if answer.status_code != 202:
        outcome.ended = "stayed"
        outcome.codes = tuple(sorted({str(r["code"]) for r in answer.json().get("reasons", [])}))
        return
    outcome.ended = "moved"
    if _arrives(fleet, vm, outcome, str(answer.json()["id"]), "host1"):
        outcome.wrong += look.differences(Look.of(fleet, vm, "host1"))
        after = listing(fleet, vm)
        if after != before:
            outcome.wrong.append(f"files after both moves: {_changes(before, after)}")


def _arrives(fleet: Fleet, vm: Vm, outcome: Outcome, migration: str, to: str) -> bool:
    seen = fleet.wait(migration)
    fleet.wait_closed(migration)
    if seen["status"] != "completed":
        outcome.wrong.append(f"accepted, and {seen['status']} on the way to {to}: {seen.get('reason')}")
    here = [name for name, host in fleet.lab.hosts.items() if _state(host, vm) in _STATES]
    if here != [to] and seen["status"] == "completed":
        outcome.wrong.append(f"it is on {here}, not on {to}")
    if seen["status"] == "completed" and not str(seen["reason"]).startswith("complete on "):
        outcome.wrong.append(f"completed, with words: {seen['reason']}")
    return bool(seen["status"] == "completed")


def _state(host: LabHost, vm: Vm) -> str:
    return host.virsh("domstate", vm.name, check=False).strip()


def _beside_virsh(fleet: Fleet, vm: Vm, outcome: Outcome, *, always: bool) -> None:
    """Does libvirt take it, disks of this host included, where Sterna has no reason that a person accepts?"""
    unaccepted = set(outcome.codes) - set(ACCEPTED)
    if not unaccepted and not always:
        outcome.virsh = "not asked"
        return
    here, there = fleet.lab.hosts["host1"], fleet.lab.hosts["host2"]
    copied = _copied(here, vm)
    more = ["--copy-storage-all", "--migrate-disks", ",".join(copied.values())] if copied else []
    pools = [f"random-{n}" for n, _ in enumerate({path.rpartition("/")[0] for path in copied})]
    for pool, folder in zip(pools, sorted({path.rpartition("/")[0] for path in copied}), strict=True):
        there.run(["mkdir", "-p", folder])
        there.virsh("pool-create-as", pool, "dir", "--target", folder)  # for one in a pool, libvirt makes the file
    uris = (there.peer_uri, f"tcp://{there.address}")
    command = [
        "virsh",
        "-q",
        "migrate",
        "--live",
        "--p2p",
        "--persistent",
        "--undefinesource",
        *more,
        vm.name,
        *uris,
    ]
    done = here.run(command, check=False, timeout=60)
    for pool in pools:
        there.virsh("pool-destroy", pool)
    outcome.virsh = "moves it" if done.returncode == 0 else done.stderr.strip()
    if done.returncode == 0 and unaccepted:
        outcome.wrong.append(f"refused ({', '.join(outcome.codes)}), and virsh moves it")


def _copied(host: LabHost, vm: Vm) -> dict[str, str]:
    """The target of each disk of this host's own that may be written to, by its path."""
    live = etree.fromstring(host.virsh("dumpxml", vm.name))
    found = {}
    for disk in live.iterfind("devices/disk[@device='disk']"):
        source = disk.find("source")
        path = "" if source is None else source.get("file", "")
        if path and not path.startswith(SHARED) and disk.find("readonly") is None:
            found[path] = str(disk.xpath("string(target/@dev)"))
    return found


@dataclass(frozen=True)
class Look:
    """What a VM is on the host it runs on."""

    state: str
    autostart: str
    persistent: str
    """Its definition, without what Sterna notes in it."""
    disks: tuple[tuple[str, str, str], ...]
    """Of each file: path, owner and mode, and a hash of what the guest reads in it."""

    @classmethod
    def of(cls, fleet: Fleet, vm: Vm, name: str) -> Look:
        """As it is now."""
        host = fleet.lab.hosts[name]
        info = dict(
            line.split(":", 1) for line in host.virsh("dominfo", vm.name, check=False).splitlines() if ":" in line
        )
        persistent = "none"
        if info.get("Persistent", "").strip() == "yes":
            persistent = definition(host.virsh("dumpxml", vm.name, "--inactive", "--security-info"))
        persistent = persistent.replace(host.address, "ADDRESS")  # the plan says that it is translated
        return cls(info.get("State", "").strip(), info.get("Autostart", "").strip(), persistent, _disks(host, vm))

    def differences(self, after: Look) -> list[str]:
        """What is not as it was."""
        found = []
        for name in ("state", "autostart", "persistent", "disks"):
            was, now = getattr(self, name), getattr(after, name)
            if was != now:
                found.append(f"{name}:\n{_difference(was, now)}")
        return found


def _difference(was: object, now: object) -> str:
    if isinstance(was, str) and isinstance(now, str):
        return "\n".join(difflib.unified_diff(was.splitlines(), now.splitlines(), "was", "is", n=0, lineterm=""))
    return f"was {was}\nis {now}"


def definition(text: str) -> str:
    """Without Sterna's metadata, spaces, and the order of controllers, which libvirt changes when it reads one."""
    domain = etree.fromstring(text, etree.XMLParser(remove_blank_text=True))
    devices = domain.find("devices")
    assert devices is not None
    controllers = sorted(devices.findall("controller"), key=etree.tostring)
    devices.extend(controllers)  # moved to the end
    for metadata in domain.findall("metadata"):
        for own in metadata:
            if "sterna" in etree.QName(own).namespace:
                metadata.remove(own)
        if not len(metadata):
            domain.remove(metadata)
    return etree.tostring(domain, pretty_print=True).decode()


def _disks(host: LabHost, vm: Vm) -> tuple[tuple[str, str, str], ...]:
    live = etree.fromstring(host.virsh("dumpxml", vm.name))
    found = []
    for disk in live.iterfind("devices/disk"):
        source = disk.find("source")
        if source is None or not (path := source.get("file")):
            continue
        driver = disk.find("driver")
        assert driver is not None
        form = driver.get("type", "raw")
        raw = "/run/random.raw"
        read = f"qemu-img convert -U -f {form} -O raw {path} {raw} && sha256sum {raw} && stat -Lc %u:%g:%a {path}"
        done = host.run(["sh", "-c", f"{read}; rm -f {raw}"], check=False)
        digest, _, owner = done.stdout.partition("\n")
        found.append((path, owner.strip(), hashlib.sha256(digest.split(" ")[0].encode()).hexdigest()[:16]))
    return tuple(sorted(found))


def listing(fleet: Fleet, vm: Vm) -> dict[str, list[str]]:
    """Every file that matters on each host, by path."""
    command = f"find {' '.join(PLACES)} ! -type d 2>/dev/null | sort"
    return {name: host.run(["sh", "-c", command]).stdout.split() for name, host in fleet.lab.hosts.items()}


def _changes(before: dict[str, list[str]], after: dict[str, list[str]]) -> str:
    words = []
    for name, was in before.items():
        gone, new = sorted(set(was) - set(after[name])), sorted(set(after[name]) - set(was))
        words += [f"{name} lost {gone}"] if gone else []
        words += [f"{name} has {new}"] if new else []
    return "; ".join(words) or "nothing in the files"


def _carried(before: dict[str, list[str]], after: dict[str, list[str]], vm: Vm) -> list[str]:
    """What is wrong with the files after one move: each file of host1's own is there still, or on host2."""
    lost = [p for p in before["host1"] if p not in after["host1"] and p not in after["host2"]]
    lost += [p for p in before["host2"] if p not in after["host2"]]
    extra = [p for p in after["host2"] if p not in before["host2"] and p not in before["host1"]]
    extra += [p for p in after["host1"] if p not in before["host1"]]
    return [f"lost: {lost}"] * bool(lost) + [f"appeared: {extra}"] * bool(extra)
