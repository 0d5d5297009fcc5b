"""`sterna doctor`, as typed."""

from __future__ import annotations

import json

from .served import Served


def test_doctor(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    fleet.bus.now = lambda: ""  # the hosts' clocks are not compared
    well = sterna("doctor")
    assert "  ok       libvirt: libvirt 11.3.0 answers" in well.stdout and " 0 wrong" in well.stdout
    assert sterna("doctor", "--problems").stdout.count("  ok ") == 0
    fleet.b.looks = {"kvm": False}
    wrong = sterna("doctor", "b", code=11).stdout
    assert "  wrong    kvm: libvirt offers no KVM" in wrong and "modprobe kvm_intel" in wrong
    answer = json.loads(sterna("doctor", "a", "b", "--json", code=11).stdout)
    assert answer["level"] == "wrong" and answer["hosts_asked"] == 2
    sterna("doctor", "nobody", code=5)


def test_doctor_where_no_host_answers(sterna, fleet: Served) -> None:  # type: ignore[no-untyped-def]
    for agent in fleet.agents:
        agent.listening = False
    told = sterna("doctor", code=6)
    assert told.stdout.count("its agent does not answer") == 3
