"""A host that sends what no honest host would: nothing of it reaches a URI, a command, a path or XML."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sterna.domain.errors import BadRequest, Refused
from sterna.domain.model import Data
from sterna.domain.status import Status
from sterna.domain.untrusted import stream_uri
from sterna.rpc.envelope import Request

from .fleet import SimFleet
from .lying import change_call, lie

COMMAND = "10.0.0.2/system?command=/tmp/evil&"
ADDRESSES = (
    COMMAND,
    "h/system?command=/tmp/evil&x=",
    "-oProxyCommand=/tmp/evil",
    "10.0.0.2 ",
    "user@10.0.0.2",
    "10.0.0.2:1",
    "fe80::1%?command=x",
    "[::1]",
    "a\nb",
    "a" * 254,
)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address_is_an_address_before_it_is_dialled(address: str, dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        lie(fleet, "host2", "describe_host", lambda answer: {"host": answer["host"] | {"address": address}})
        with pytest.raises(Refused):
            await fleet.start(fleet.vm())
        assert dialled == []


@pytest.mark.parametrize(
    "field, value", [("name", "host3"), ("name", "host2.>"), ("network_host", "a\x1b[2J"), ("initiator", "a b")]
)
async def test_a_host_says_nothing_odd_of_itself(field: str, value: str, dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        lie(fleet, "host2", "describe_host", lambda answer: {"host": answer["host"] | {field: value}})
        with pytest.raises(Refused):
            await fleet.start(fleet.vm())
        assert dialled == []


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("key", ["address", "addresses"])
async def test_the_answer_to_p3_names_addresses_and_nothing_else(
    key: str, address: str, dialled: list[str]
) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        value = [address] if key == "addresses" else address
        lie(fleet, "host2", "pre_live_migration", lambda answer: answer | {key: value})
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.FAILED
        assert not any(address in uri for uri in dialled)
        assert not fleet.world.violations


@pytest.mark.parametrize(
    "what, field, value",
    [
        ("disks", "path", "relative/../path"),
        ("disks", "path", "/srv/a\nb"),
        ("nics", "bridge", "../../x"),
        ("nics", "device", "tap/0"),
        ("nics", "pci", "0000:3b:02.4/../../x"),
        ("nics", "port_id", "../../etc"),
    ],
)
async def test_the_answer_to_p3_names_devices_and_nothing_else(what: str, field: str, value: str) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():

        def change(answer: Data) -> Data:
            return answer | {what: [one | {field: value} for one in answer[what]]}

        lie(fleet, "host2", "pre_live_migration", change)
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.FAILED
        reason = fleet.agents["host1"].history(fleet.migration).turned_back
        assert reason is not None and reason["error"]["code"] == "bad-request"


def _vm_that(change: Callable[[Data], Data]) -> Callable[[Data], Data]:
    return lambda params: params | {"vm": change(params["vm"])}


def _disk(**more: object) -> Callable[[Data], Data]:
    return _vm_that(lambda vm: vm | {"disks": [d | more for d in vm["disks"]]})


def _nic(**more: object) -> Callable[[Data], Data]:
    return _vm_that(lambda vm: vm | {"nics": [n | more for n in vm["nics"]]})


def _migration(**more: object) -> Callable[[Data], Data]:
    return lambda params: params | {"migration": params["migration"] | more}


@pytest.mark.parametrize(
    "change",
    [
        _vm_that(lambda vm: vm | {"uuid": "../../../../etc"}),
        _vm_that(lambda vm: vm | {"uuid": "00000000-0000-4000-8000-00000000dead"}),
        _vm_that(lambda vm: vm | {"emulator": "-x"}),
        _disk(path="relative"),
        _disk(path="/srv/\x00"),
        _disk(format="raw,file.filename=/etc/shadow"),
        _disk(backing_path="-x"),
        _disk(vm_uuid="00000000-0000-4000-8000-00000000dead"),
        _disk(attachment_id="00000000-0000-4000-8000-00000000dead"),
        _disk(iscsi={"target": "iqn.x", "lun": 1, "portal_host": "h,initiator-name=x"}),
        _disk(iscsi={"target": "iqn.x,user=y", "lun": 1, "portal_host": "h"}),
        _nic(bridge="../../net"),
        _nic(port_id="../../../x"),
        _nic(mac="x"),
        _nic(pci="/../x"),
        _migration(source_address=COMMAND),
        _migration(vm_uuid="x/../../../../etc/x"),
        _migration(source="host1.>"),
        _migration(destination="host3"),
        _migration(options={"memory_bytes": "much"}),
        _migration(options={"memory_bytes": 2**80}),
        _migration(options={"network_hosts": "x"}),
    ],
)
async def test_what_comes_with_p3_is_looked_at_before_anything_is_journaled(
    change: Callable[[Data], Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        said = change_call(monkeypatch, "pre_live_migration", change)
        vm = fleet.vm()
        before = fleet.snapshots()["host2"]
        await fleet.start(vm)
        while not said:
            await fleet.clock.sleep(0.1)
        assert isinstance(said[0], BadRequest)
        monkeypatch.undo()
        assert await fleet.ended() is Status.FAILED
        assert fleet.snapshots()["host2"] == before


@pytest.mark.parametrize(
    "uri",
    [
        "exec:/tmp/evil",
        "unix:/tmp/x",
        "fd:3",
        "tcp:10.9.9.9:49152",
        "tcp:10.0.0.2:22",
        "tcp:10.0.0.2:49216",
        "tcp:10.0.0.2:49152,to=49999",
        "tcp:10.0.0.2:+4915",
        "tcp:10.0.0.2:049152",
        "10.0.0.2:49152",
        "",
        None,
    ],
)
def test_the_rest_of_a_guest_is_sent_only_to_where_it_is_awaited(uri: object) -> None:
    with pytest.raises(BadRequest):
        stream_uri(uri, "10.0.0.2")


@pytest.mark.parametrize(
    "uri, address",
    [
        ("tcp:10.0.0.2:49152", "10.0.0.2"),
        ("tcp:[fd00::2]:49215", "fd00::2"),
        ("tcp:fd00::2:49215", "fd00::2"),
        ("tcp:host2.example:49200", "host2.example"),
    ],
)
def test_where_it_is_awaited(uri: str, address: str) -> None:
    assert stream_uri(uri, address) == uri


async def test_an_observation_that_cannot_be_read_decides_nothing(dialled: list[str]) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        agent = fleet.agents["host2"]._agent
        assert agent is not None
        honest, lies = agent._server._methods["observe_guest"], [3]

        async def changed(request: Request) -> Data:
            answer = await honest(request)
            if lies[0]:
                lies[0] -= 1
                return {"observation": {"state": "dancing"}}
            return answer

        agent._server.method("observe_guest", changed)
        await fleet.start(fleet.vm())
        assert await fleet.ended() is Status.COMPLETED
        assert lies == [0]


async def test_a_message_the_other_host_cannot_handle_is_said_where_people_look() -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        there = fleet.agents["host2"]._agent
        assert there is not None

        async def broken(request: Request) -> None:
            raise KeyError("a mistake in this version")

        there._server.cast("post_live_migration_at_destination", broken)
        await fleet.start(vm)
        await fleet.clock.sleep(600)
        reasons = [e.data.get("why", "") for e in fleet.agents["host1"].journal.entries(fleet.migration)]
        assert any("host2 cannot do what it was sent" in why and "KeyError" in why for why in reasons)
        audit = await fleet.client.call("host2", "audit", {"others": ["host1"]})
        aside = [found for found in audit["leftovers"] if found["kind"] == "cast"]
        assert len(aside) == 1 and "set aside" in aside[0]["why"] and "host1" in aside[0]["why"]
        await fleet.agents["host2"].kill()
        await fleet.agents["host2"].start()  # of a version without the mistake
        assert await fleet.ended() is Status.COMPLETED


async def test_a_message_the_other_host_will_not_take_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SimFleet() as fleet, fleet.clock.auto():
        vm = fleet.vm()
        there = fleet.agents["host2"]._agent
        assert there is not None
        del there._server._casts["post_live_migration_at_destination"]  # another version's
        await fleet.start(vm)
        await fleet.clock.sleep(60)
        reasons = [e.data.get("why", "") for e in fleet.agents["host1"].journal.entries(fleet.migration)]
        assert any("host2 cannot do what it was sent" in why and "knows no cast" in why for why in reasons)
        audit = await fleet.client.call("host1", "audit", {"others": ["host2"]})
        assert ["refused by host2" in f["why"] for f in audit["leftovers"] if f["kind"] == "cast"] == [True]
        await fleet.agents["host2"].kill()
        await fleet.agents["host2"].start()
        assert await fleet.ended() is Status.COMPLETED
