"""What a VM's definition names on its host: what the plan says is what happens, there and back, beside virsh.

A VM is refused where it cannot go, with a reason that its own fix takes away. Then it goes there, one of each code
back as well. Where nothing is refused it goes there and back at once. `virsh migrate` of the same VM says the same,
but where the case says otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sterna.lab.host import LabHost
from tests.e2e.conftest import Fleet
from tests.e2e.definitions import CASES, LISTEN, STATE, Case
from tests.e2e.files import plan

pytestmark = pytest.mark.lab


PLANNED = tuple({(case.code, bool(case.shows[0])): case for case in CASES}.values())
"""One case for each code, and one that is translated, are planned as well: a plan measures the guest for 5 s, and
says what a start is told."""


@contextmanager
def listening(host: LabHost, where: str) -> Iterator[None]:
    """A program listens there on a host."""
    process = host.popen([sys.executable, "-c", LISTEN, where])
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "listening", where
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def do(host: LabHost, commands: str, *, check: bool = True) -> None:
    if commands:
        host.run(["sh", "-ec" if check else "-c", commands], check=check)


def start(fleet: Fleet, case: Case) -> None:
    """The VM runs on host1, and its persistent definition is as the case wants it."""
    host = fleet.lab.hosts["host1"]
    xml = case.xml("kvm" if fleet.lab.accelerator == "kvm" else "qemu")
    host.run(["sh", "-c", "cat >/run/case.xml"], stdin=xml)
    host.virsh("define", "/run/case.xml")
    host.virsh("start", case.name)
    if case.inactive is not None:
        changed = case.inactive(host.virsh("dumpxml", case.name, "--inactive"))
        host.run(["sh", "-c", "cat >/run/case.xml"], stdin=changed)
        host.virsh("define", "/run/case.xml")


@contextmanager
def scene(fleet: Fleet, case: Case) -> Iterator[None]:
    """The case's VM on host1, and both hosts without a trace of it at the end."""
    host1, host2 = fleet.lab.hosts["host1"], fleet.lab.hosts["host2"]
    try:
        do(host1, case.here)
        start(fleet, case)
        do(host2, case.there)
        yield
    finally:
        for host in (host1, host2):
            host.virsh("destroy", case.name, check=False)
            host.virsh("undefine", case.name, check=False)
            do(host, case.clean, check=False)
        do(host2, case.mend if "umount" in case.mend else "", check=False)
        do(host1, "rm -rf " + " ".join(f"{STATE}/{name}" for name in MADE), check=False)
        do(host2, "rm -rf " + " ".join(f"{STATE}/{name}" for name in MADE), check=False)


MADE = (
    "vnc",
    "tty",
    "out",
    "log",
    "erst",
    "ignition",
    "next",
    "trace",
    "pipe",
    "vmlinuz",
    "initrd",
    "slic",
    "seed",
    "given",
    "bios.bin",
    "bios2.bin",
    "random",
    "rom",
    "busy.log",
    "server.sock",
)


def moves(fleet: Fleet, case: Case, to: str) -> None:
    """Nothing is in the way, and so it goes."""
    if to == "host2" and (case in PLANNED or case.warns):
        assert plan(fleet, case.name, to) == []
    if to == "host2" and case.warns:
        answer = fleet.api.post("/v1/plans", json={"vm": case.name, "destination": to}).json()
        assert any(case.warns in warning for warning in answer["warnings"]), answer["warnings"]
    migration = fleet.started(case.name, to)
    assert fleet.wait(migration)["status"] == "completed", fleet.show(migration)
    fleet.wait_closed(migration)
    assert fleet.lab.hosts_running(case.name) == [to]
    shown = case.shows[["host1", "host2"].index(to)]
    for form in ((), ("--inactive",)):
        assert shown in fleet.lab.hosts[to].virsh("dumpxml", case.name, *form)


def virsh_moves(fleet: Fleet, case: Case) -> bool:
    """Does libvirt take it from host1 to host2 by itself? Then it is brought back by Sterna."""
    there = fleet.lab.hosts["host2"]
    uris = (there.peer_uri, f"tcp://{there.address}")
    command = ["virsh", "-q", "migrate", "--live", "--p2p", "--persistent", "--undefinesource", case.name, *uris]
    done = fleet.lab.hosts["host1"].run(command, check=False, timeout=60)
    if done.returncode:
        print(f"virsh: {done.stderr.strip()[:200]}")
        assert fleet.lab.hosts_running(case.name) == ["host1"]
    return done.returncode == 0


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_the_plan_says_is_what_happens(fleet: Fleet, case: Case) -> None:
    host1, host2 = fleet.lab.hosts["host1"], fleet.lab.hosts["host2"]
    by_virsh = not case.code if case.virsh is None else case.virsh
    with ExitStack() as to_the_end:
        if case.serve_here:
            to_the_end.enter_context(listening(host1, case.serve_here))
        to_the_end.enter_context(scene(fleet, case))
        with ExitStack() as until_mended:
            if case.serve_there:
                until_mended.enter_context(listening(host2, case.serve_there))
            if case.code:
                refused(fleet, case)
            if case.code or not by_virsh:
                assert virsh_moves(fleet, case) == by_virsh
        if case.code and by_virsh:
            return  # it has gone by itself, the plan's reason notwithstanding
        do(host2, case.mend)
        if case.mend_serve:
            to_the_end.enter_context(listening(host2, case.mend_serve))
        moves(fleet, case, "host2")
        if not case.code or case in PLANNED:
            moves(fleet, case, "host1")
        if by_virsh:
            assert virsh_moves(fleet, case)


def refused(fleet: Fleet, case: Case) -> None:
    """By the plan and at the start, with this one reason; nothing has changed."""
    answer = fleet.start(case.name, "host2")
    assert answer.status_code == 422, answer.text
    reasons = answer.json()["reasons"]
    print(reasons)
    assert all(reason["message"] and reason["fix"] for reason in reasons)
    assert {reason["code"] for reason in reasons} == {case.code}
    if case in PLANNED:
        assert plan(fleet, case.name) == reasons
    assert fleet.lab.hosts_running(case.name) == ["host1"]
