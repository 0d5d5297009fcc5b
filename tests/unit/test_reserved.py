"""What is promised to guests on their way to a host: until their QEMU is there, and to those accepted first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sterna.domain.journal import Kind as Entered
from sterna.domain.journal import Role
from sterna.domain.model import GuestState, Observation, Refusal, Vm
from sterna.domain.references import Kind, Reference
from sterna.migration.destination import reserved

PORT = Reference(kind=Kind.ADDRESS, name="10.0.0.1", where="VNC", port=5901)


def vm(name: str, *references: Reference) -> Vm:
    return Vm(uuid=name, name=name, state=GuestState.RUNNING, memory_bytes=1, vcpus=1, references=references)


class Hypervisor:
    """Has nothing against anybody; knows the guests that are there."""

    def __init__(self, *there: str) -> None:
        self.there = there
        self.asked: list[Vm] = []

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        self.asked.append(vm)
        return []

    async def observe(self, uuid: str) -> Observation:
        return Observation(state=GuestState.PAUSED if uuid in self.there else GuestState.ABSENT)


class Journal:
    """Open migrations, oldest first, whose source has described its VM."""

    def __init__(self, *open_: tuple[str, Role, Vm | None]) -> None:
        self.given = open_

    def open(self) -> list[tuple[SimpleNamespace, Role]]:
        return [(SimpleNamespace(id=id_, vm_uuid=vm.uuid if vm else "?"), role) for id_, role, vm in self.given]

    def entries(self, id_: str) -> list[SimpleNamespace]:
        found = next(vm for each, _, vm in self.given if each == id_)
        data = {"vm": found.model_dump(mode="json")} if found else {}
        note = SimpleNamespace(kind=Entered.NOTE, name="incoming-vm", data=data)
        return [SimpleNamespace(kind=Entered.STATUS, name="set-status", data={}), *([note] if found else [])]


async def codes(journal: Journal, *there: str, before: str = "") -> list[str]:
    found = await reserved.refusals(Hypervisor(*there), journal, vm("mine", PORT), before=before)  # type: ignore[arg-type]
    return [refusal.code for refusal in found]


@pytest.mark.parametrize("before", ["", "m9"])
async def test_a_port_is_promised_until_the_other_guest_is_there(before: str) -> None:
    journal = Journal(("m1", Role.DESTINATION, vm("web", PORT)))
    assert await codes(journal, before=before) == ["port-taken"]
    assert await codes(journal, "web", before=before) == []


async def test_one_that_leaves_or_is_the_same_vm_or_not_described_yet_is_promised_nothing() -> None:
    leaving, same = ("m1", Role.SOURCE, vm("web", PORT)), ("m2", Role.DESTINATION, vm("mine", PORT))
    assert await codes(Journal(leaving, same, ("m3", Role.DESTINATION, None))) == []


async def test_of_two_the_one_accepted_first_gets_it() -> None:
    journal = Journal(("m1", Role.DESTINATION, vm("mine", PORT)), ("m2", Role.DESTINATION, vm("web", PORT)))
    assert await codes(journal, before="m1") == []
    assert await codes(Journal(*reversed(journal.given)), before="m1") == ["port-taken"]


async def test_promised_huge_pages_are_told_to_the_hypervisor() -> None:
    pages = Reference(kind=Kind.PAGES, name="2048", where="its memory", count=10)
    hypervisor = Hypervisor()
    journal = Journal(("m1", Role.DESTINATION, vm("web", pages)))
    await reserved.refusals(hypervisor, journal, vm("mine", pages))  # type: ignore[arg-type]
    assert hypervisor.asked[0].references[0].promised == 10


class Files:
    """Of a host on which one VM, which is off or runs, names one file."""

    def __init__(self, path: str, owner: str) -> None:
        self.name, self.hypervisor, self.storage = "host2", self, self
        self.path, self.owner = path, owner

    async def claims(self, besides: str) -> tuple[()]:
        return ()

    async def used_by(self, files: tuple[str, ...], claims: tuple[()]) -> dict[str, tuple[str, ...]]:
        return {path: (self.owner,) for path in files if path == self.path}


@pytest.mark.parametrize(
    ("path", "owner", "cold", "codes"),
    [
        ("/var/log/a", "VM mail (shutoff)", False, ["path-taken"]),
        ("/var/log/a", "VM mail (running)", False, []),  # said by the hypervisor's own check
        ("/var/log/b", "VM mail (shutoff)", False, []),
        ("/var/log/a", "VM mail (shutoff)", True, []),
    ],
)
async def test_what_a_device_writes_is_not_a_file_of_a_vm_that_is_off(
    path: str, owner: str, cold: bool, codes: list[str]
) -> None:
    log = Reference(kind=Kind.OUTPUT, name="/var/log/a", where="serial 0", cold=cold)
    found = await reserved.overwritten(Files(path, owner), Journal(), vm("mine", log))  # type: ignore[arg-type]
    assert [refusal.code for refusal in found] == codes
