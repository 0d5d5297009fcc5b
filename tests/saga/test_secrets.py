"""Guests whose disks are opened with secrets of libvirt: carried, taken back, and nowhere in plain text."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from sterna.domain.errors import Refused
from sterna.domain.model import Disk, SecretRef
from sterna.domain.secrets import Secret
from sterna.domain.status import Status
from sterna.migration.context import HostPorts
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from sterna.sim.ports.bus import Packet
from sterna.sim.ports.volumes import SimIscsiVolumes
from sterna.sim.world.things import SimSecret
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet
from tests.saga.playing import run, when


def guest(fleet: SimFleet, name: str = "tern") -> str:
    """One LUKS disk, which names its secret by UUID, and one with CHAP, which names it by usage."""
    return add_vm(fleet.world, "host1", name, disks=("luks", "chap"))


def secrets(fleet: SimFleet, host: str) -> dict[str, SimSecret]:
    return fleet.world.hosts[host].secrets


async def test_there_and_back_with_the_secrets_where_they_belong() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        own = dict(secrets(fleet, "host1"))
        assert len(own) == 2
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        there = secrets(fleet, "host2")
        assert {u: (s.about.kind, s.about.usage, s.value) for u, s in there.items()} == {
            u: (s.about.kind, s.about.usage, s.value) for u, s in own.items()
        }
        assert {(s.about.made_for, s.about.made_by) for s in there.values()} == {(vm, fleet.migration)}
        assert secrets(fleet, "host1") == own
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert fleet.world.running(vm) == ["host1"]
        assert secrets(fleet, "host1") == own
        assert secrets(fleet, "host2") == {}

    await run(scenario)


async def test_what_the_destination_has_is_used_and_never_touched() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        for uuid, known in secrets(fleet, "host1").items():
            private = known.about.model_copy(update={"private": known.about.kind == "volume"})
            secrets(fleet, "host2")[uuid] = SimSecret(private, b"as it was")
        before = dict(secrets(fleet, "host2"))
        fleet.agents["host2"].rules.append(("plug-vifs", "after", "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert secrets(fleet, "host2") == before
        fleet.agents["host2"].rules.clear()
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert secrets(fleet, "host2") == before

    await run(scenario)


async def test_one_that_only_has_the_same_usage_serves_a_disk_that_names_the_usage() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        (chap,) = (s.about for s in secrets(fleet, "host1").values() if s.about.kind == "iscsi")
        other = chap.model_copy(update={"uuid": "0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11"})
        secrets(fleet, "host2")[other.uuid] = SimSecret(other, b"the same word")
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert chap.uuid not in secrets(fleet, "host2")

    await run(scenario)


def _private(fleet: SimFleet) -> None:
    for known in secrets(fleet, "host1").values():
        known.about = known.about.model_copy(update={"private": True})


def _valueless(fleet: SimFleet) -> None:
    for known in secrets(fleet, "host1").values():
        known.value = None


def _gone(fleet: SimFleet) -> None:
    secrets(fleet, "host1").clear()


def _other_usage(fleet: SimFleet) -> None:
    for uuid, known in secrets(fleet, "host1").items():
        secrets(fleet, "host2")[uuid] = SimSecret(known.about.model_copy(update={"usage": "/else"}), b"x")


def _other_uuid(fleet: SimFleet) -> None:
    for known in secrets(fleet, "host1").values():
        if known.about.kind == "volume":
            other = known.about.model_copy(update={"uuid": "0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11"})
            secrets(fleet, "host2")[other.uuid] = SimSecret(other, b"x")


def _valueless_there(fleet: SimFleet) -> None:
    for uuid, known in secrets(fleet, "host1").items():
        secrets(fleet, "host2")[uuid] = SimSecret(known.about)


@pytest.mark.parametrize(
    ("spoil", "code", "fix"),
    [
        (_private, "secret-not-carried", "virsh secret-define"),
        (_valueless, "secret-not-carried", "define it on host2"),
        (_gone, "secret-not-carried", "define it on host2"),
        (_other_usage, "secret-conflict", "undefine one of the two on host2"),
        (_other_uuid, "secret-conflict", "undefine one of the two on host2"),
        (_valueless_there, "secret-without-value", "virsh secret-set-value"),
    ],
)
async def test_what_cannot_be_carried_is_refused_before_anything_is_done(
    spoil: Callable[[SimFleet], None], code: str, fix: str
) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        spoil(fleet)
        before = fleet.snapshots()
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        assert {r.code for r in refused.value.refusals} == {code}
        assert all(fix in r.fix for r in refused.value.refusals)
        assert fleet.snapshots() == before

    await run(scenario)


async def test_a_secret_that_became_private_after_the_check_fails_p3_and_leaves_nothing() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        when(fleet.agents["host1"], "pre-live-migration", lambda: _private(fleet))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert secrets(fleet, "host2") == {}
        assert "private" in not_none(fleet.agents["host1"].history(fleet.migration).turned_back)["error"]["message"]

    await run(scenario)


FAILING = [("host2", "make-secrets", m) for m in ("before", "after")]
FAILING += [("host2", "plug-vifs", "after"), ("host1", "pre-live-migration", "after"), ("host1", "copy", "before")]


@pytest.mark.parametrize(("host", "step", "moment"), FAILING)
async def test_a_rollback_takes_away_what_the_migration_made(host: str, step: str, moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        before = fleet.snapshots()
        fleet.agents[host].rules.append((step, moment, "permanent"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents[host].applied
        assert fleet.snapshots() == before

    await run(scenario)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "step", ["make-secrets", "connect-volumes", "pre-live-migration", "remove-secrets-at-source"]
)
async def test_agents_killed_around_the_secrets_go_on(step: str, moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        for agent in fleet.agents.values():
            agent.rules.append((step, moment, "kill"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.agents["host1"].applied or fleet.agents["host2"].applied
        assert len(secrets(fleet, "host2")) == 2
        await fleet.start(vm, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert secrets(fleet, "host2") == {}

    await run(scenario)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_destination_killed_while_it_takes_them_away_does_so_later(moment: str) -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        before = fleet.snapshots()
        fleet.agents["host1"].rules.append(("copy", "before", "permanent"))
        fleet.agents["host2"].rules.append(("remove-secrets", moment, "kill"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.FAILED
        assert fleet.agents["host2"].applied
        assert fleet.snapshots() == before

    await run(scenario)


async def test_one_that_a_crash_left_without_its_value_gets_it_from_the_next_try() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = guest(fleet)
        for uuid, known in secrets(fleet, "host1").items():
            mark = {"made_for": vm, "made_by": "an earlier one"}
            secrets(fleet, "host2")[uuid] = SimSecret(known.about.model_copy(update=mark))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        values = {s.value for s in secrets(fleet, "host1").values()}
        assert {s.value for s in secrets(fleet, "host2").values()} == values

    await run(scenario)


def sharing(fleet: SimFleet, **of_the_first: object) -> tuple[str, str, str]:
    """Two guests whose first disk is opened with one secret; its UUID."""
    one = add_vm(fleet.world, "host1", "one", disks=("luks", "chap"), **of_the_first)  # type: ignore[arg-type]
    two = guest(fleet, "two")
    shared = fleet.world.hosts["host1"].domains[one].definition.disks[0].secrets
    domain = fleet.world.hosts["host1"].domains[two]
    for name in ("live", "inactive"):
        was = getattr(domain, name)
        disks = (was.disks[0].model_copy(update={"secrets": shared}), *was.disks[1:])
        setattr(domain, name, replace(was, disks=disks))
    return one, two, str(shared[0].uuid)


async def test_a_secret_that_two_guests_share_stays_until_nobody_there_refers_to_it() -> None:
    async def scenario(fleet: SimFleet) -> None:
        one, two, uuid = sharing(fleet)
        for vm in (one, two):
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
        await fleet.start(one, to="host1", source="host2")
        assert await fleet.ended("host2") is Status.COMPLETED
        assert secrets(fleet, "host2")[uuid].value is not None
        assert fleet.world.running(two) == ["host2"]

    await run(scenario)


async def test_a_rollback_leaves_what_another_guest_on_its_way_counts_on() -> None:
    async def scenario(fleet: SimFleet) -> None:
        one, two, uuid = sharing(fleet, memory_bytes=8 << 30)
        await fleet.start(one)
        first = fleet.migration
        while "copy-started" not in fleet.agents["host1"].history(first).notes:
            await fleet.clock.sleep(0.05)
        fleet.agents["host2"].rules.append(("plug-vifs", "before", "kill"))
        await fleet.start(two)
        second = fleet.migration
        while ("plug-vifs", "before") not in fleet.agents["host2"].applied:  # its definition is not there yet
            await fleet.clock.sleep(0.05)
        await fleet.client.call("host1", "abort_migration", {"id": first})
        assert await fleet.ended() is Status.COMPLETED
        fleet.migration = first
        assert await fleet.ended() is Status.CANCELLED
        assert secrets(fleet, "host2")[uuid].about.made_by == first != second
        assert fleet.world.running(two) == ["host2"]

    await run(scenario)


async def test_a_value_is_in_no_message_journal_log_or_answer() -> None:
    words = [b"value of /srv/shared", b"value of iqn", b"dmFsdWUgb2Yg"]  # as it is, and in base64

    async def scenario(fleet: SimFleet) -> None:
        sent: list[bytes] = []
        lose = fleet.broker.loses

        def seen(packet: Packet) -> bool:
            sent.append(packet.payload)
            return lose(packet)

        fleet.broker.loses = seen
        vm = guest(fleet)
        fleet.agents["host2"].rules.append(("make-secrets", "after", "kill"))
        with capture_logs() as logs:
            await fleet.start(vm)
            assert await fleet.ended() is Status.COMPLETED
            fleet.agents["host2"].rules.append(("remove-vm-at-source", "before", "kill"))
            await fleet.start(vm, to="host1", source="host2")
            assert await fleet.ended("host2") is Status.COMPLETED
            await fleet.client.call("host1", "show_vm", {"vm": vm})
        journals = [
            entry.model_dump_json() for agent in fleet.agents.values() for entry in agent.journal.since(0, 10_000)
        ]
        assert any("make-secrets" in line for line in journals)
        assert any(b"secrets_wanted" in payload for payload in sent)
        told = b"\n".join(sent) + "\n".join([*journals, repr(logs)]).encode()
        assert not [word for word in words if word in told]
        assert any(words[0] in (s.value or b"") for s in secrets(fleet, "host1").values())

    await run(scenario)


async def test_an_encrypted_disk_that_only_this_host_sees_is_refused() -> None:
    async def scenario(fleet: SimFleet) -> None:
        vm = fleet.vm()
        domain = fleet.world.hosts["host1"].domains[vm]
        about = Secret(uuid="0b91f1a5-7d3c-4f7e-9d5c-0c2f5a0c1d11", kind="volume", usage="/x")
        secrets(fleet, "host1")[about.uuid] = SimSecret(about, b"x")
        ref = SecretRef(kind="volume", uuid=about.uuid)
        local = [
            d.model_copy(update={"secrets": (ref,)}) if d.target == "vdb" else d
            for d in not_none(domain.live).disks
        ]
        domain.live = replace(not_none(domain.live), disks=tuple(local))
        with pytest.raises(Refused) as refused:
            await fleet.start(vm)
        assert [r.code for r in refused.value.refusals] == ["disk-not-copyable"]

    await run(scenario)


class OwnLogins(SimIscsiVolumes):
    """A volume service that tells each host a CHAP login of its own, as some drivers of Cinder's do."""

    def __init__(self, fleet: SimFleet, host: str) -> None:
        super().__init__(fleet.world, host)
        self._keyring = SimHypervisor(fleet.world, host)
        self._name = host

    async def attach(self, disk: Disk, source: str) -> Disk:
        found = await super().attach(disk, source)
        admission = str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{disk.target} on {self._name}"))
        own = SecretRef(kind="iscsi", uuid=admission, username=self._name)
        return found.model_copy(update={"attachment_id": admission, "secrets": (own,)})

    async def connect(self, disk: Disk) -> Disk:
        own = not_none(disk.attachment_id)
        about = Secret(uuid=own, usage=self._name, kind="iscsi", made_for=not_none(disk.vm_uuid), made_by=own)
        await self._keyring.make_secret(about, b"of this host")
        return await super().connect(disk)


def own_logins(fleet: SimFleet) -> None:
    for agent in fleet.agents.values():
        ports = agent.ports

        def replaced(ports: Callable[[], HostPorts] = ports, name: str = agent.name) -> HostPorts:
            usual = ports()
            return replace(usual, volumes=(usual.volumes[0], OwnLogins(fleet, name)))

        agent.ports = replaced  # type: ignore[method-assign]


@pytest.mark.parametrize("strike", ["", "connect-volumes", "plug-vifs", "make-secrets"])
@pytest.mark.parametrize("action", ["kill", "permanent"])
async def test_a_login_of_each_hosts_own_is_made_there_and_goes_with_the_guest(strike: str, action: str) -> None:
    fleet = SimFleet()
    own_logins(fleet)

    async def scenario(fleet: SimFleet) -> None:
        vm = add_vm(fleet.world, "host1", "tern", disks=("chap",))
        operators = dict(secrets(fleet, "host1"))
        before = fleet.snapshots()
        if strike:
            fleet.agents["host2"].rules.append((strike, "after", action))
        await fleet.start(vm)
        if strike and action == "permanent":
            assert await fleet.ended() is Status.FAILED
            assert fleet.snapshots() == before
            fleet.agents["host2"].rules.clear()
            await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        for source, to in (("host2", "host1"), ("host1", "host2"), ("host2", "host1")):
            (disk,) = not_none(fleet.world.hosts[source].domains[vm].live).disks
            assert not_none(disk.chap).username == source
            mine = {u: s for u, s in secrets(fleet, source).items() if u not in operators}
            assert list(mine) == [not_none(disk.chap).uuid]
            assert {u for u in secrets(fleet, to) if u not in operators} == set()
            assert not_none(fleet.world.hosts[source].domains[vm].inactive).disks[0].chap == disk.chap
            await fleet.start(vm, to=to, source=source)
            assert await fleet.ended(source) is Status.COMPLETED
        assert secrets(fleet, "host2") == {}

    await run(scenario, fleet)
