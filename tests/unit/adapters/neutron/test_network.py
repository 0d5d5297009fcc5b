"""The Neutron provider against Neutron's own answers: refusals, lost answers, leftovers, old servers."""

from __future__ import annotations

import pytest

from sterna.adapters.openstack import session
from sterna.domain.errors import Conflict, NotFound, Permanent, Refused, Temporary, Unknown, Unreachable
from tests.scripted_cloud import Answer, Asked
from tests.unit.adapters.neutron.scripted_neutron import (
    MAC,
    MOVE,
    PORT,
    SUBPORT,
    ScriptedNeutron,
    error,
    serving,
    vm,
)

Bound = tuple[str, str, str, dict[str, object]]
"""Host, status, type of the interface, profile."""


def bindings(neutron: ScriptedNeutron) -> list[Bound]:
    return sorted((b["host"], b["status"], b["vif_type"], b["profile"]) for b in neutron.bindings.values())


PARTS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "switch": ("prepare",),
    "settle": ("prepare",),
    "give_back": ("prepare", "switch"),
    "withdraw": ("prepare", "switch"),
}
"""Each part of a move, and those before it."""
SETTLED: list[Bound] = [("host2", "ACTIVE", "ovs", {})]
AS_BEFORE: list[Bound] = [("host1", "ACTIVE", "ovs", {})]


async def test_a_move_and_what_each_part_leaves() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, cloud):
        await network.prepare(vm(), *MOVE)
        assert bindings(neutron) == [
            ("host1", "ACTIVE", "ovs", {"migrating_to": "host2"}),
            ("host2", "INACTIVE", "ovs", {"migrating_to": "host2"}),
        ]
        (nic,) = await network.nics_for(vm(), *MOVE)
        assert (nic.plug, nic.bridge, nic.vlan, nic.mtu, nic.device) == ("ovs", "br-int", None, 1450, None)
        assert nic.addresses == ("192.0.2.7",)
        await network.switch(vm(), *MOVE)
        assert neutron.active["host"] == "host2"
        await network.settle(vm(), *MOVE)
        assert bindings(neutron) == SETTLED
        assert cloud.asked[-1].headers["x-service-token"]
        changed = [(method, path.rpartition(PORT)[2]) for method, path in cloud.changes()]
        assert changed == [
            ("POST", "/bindings"),
            ("PUT", "/bindings/host1"),
            ("PUT", "/bindings/host2/activate"),
            ("DELETE", "/bindings/host1"),
            ("PUT", "/bindings/host2"),
        ], "one request each: the activation is not preceded by a look"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("moment", range(4))
async def test_any_answer_may_be_lost(part: str, moment: int) -> None:
    """The n-th change is made, its answer is lost; the same part asked for again ends where it would have."""
    neutron = ScriptedNeutron()
    with serving(neutron) as (network, cloud):
        for before in PARTS[part]:
            await getattr(network, before)(vm(), *MOVE)
        done = len(cloud.changes())

        def lose(asked: Asked) -> Answer:
            if asked.method != "GET" and len(cloud.changes()) == done + moment + 1:
                neutron(asked)
                return Answer(lost=True)
            return neutron(asked)

        cloud.script = lose
        try:
            await getattr(network, part)(vm(), *MOVE)
        except Unknown:
            await getattr(network, part)(vm(), *MOVE)
    expected = {
        "prepare": [
            ("host1", "ACTIVE", "ovs", {"migrating_to": "host2"}),
            ("host2", "INACTIVE", "ovs", {"migrating_to": "host2"}),
        ],
        "settle": SETTLED,
        "withdraw": AS_BEFORE,
        "give_back": [
            ("host1", "ACTIVE", "ovs", {"migrating_to": "host1"}),
            ("host2", "INACTIVE", "unbound", {"migrating_to": "host2"}),
        ],
    }
    if part == "switch":
        assert neutron.active["host"] == "host2"
    else:
        assert bindings(neutron) == expected[part]


async def test_a_rollback_after_an_early_activation_gives_the_port_back_bound() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, _):
        await network.prepare(vm(), *MOVE)
        await network.switch(vm(), *MOVE)
        await network.give_back(vm(), *MOVE)
        assert neutron.active["host"] == "host1" and neutron.active["vif_type"] == "ovs"
        await network.withdraw(vm(), *MOVE)
        await network.withdraw(vm(), *MOVE)
        assert bindings(neutron) == AS_BEFORE


async def test_a_dead_source_gets_its_port_back_all_the_same() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, _):
        await network.prepare(vm(), *MOVE)
        await network.switch(vm(), *MOVE)
        neutron.dead_hosts.add("host1")
        await network.withdraw(vm(), *MOVE)
        assert [(b["host"], b["status"]) for b in neutron.bindings.values()] == [("host1", "ACTIVE")]


async def test_what_an_earlier_crash_left_is_adopted() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, _):
        neutron._create({"host": "host2", "profile": {"migrating_to": "host9"}})
        neutron.bindings["host1"]["status"], neutron.bindings["host2"]["status"] = "INACTIVE", "ACTIVE"
        neutron.bindings["host1"]["vif_type"] = "unbound"
        await network.prepare(vm(), *MOVE)
        assert bindings(neutron) == [
            ("host1", "ACTIVE", "ovs", {"migrating_to": "host2"}),
            ("host2", "INACTIVE", "ovs", {"migrating_to": "host2"}),
        ]


async def test_a_destination_whose_network_agent_is_dead() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, _):
        neutron.dead_hosts.add("host2")
        with pytest.raises(Temporary, match="no network agent") as raised:
            await network.prepare(vm(), *MOVE)
        assert "network agent list" in raised.value.fix
        assert bindings(neutron) == AS_BEFORE


async def test_a_port_that_is_bound_to_a_third_host_is_not_ours() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, _):
        with pytest.raises(Conflict, match="bound to host1"):
            await network.prepare(vm(), "host3", "host2")
        assert bindings(neutron) == AS_BEFORE


async def test_without_multiple_bindings_the_host_changes_at_the_end() -> None:
    with serving(neutron := ScriptedNeutron(extended=False)) as (network, cloud):
        await network.prepare(vm(), *MOVE)
        (nic,) = await network.nics_for(vm(), *MOVE)
        assert (nic.plug, nic.bridge) == ("ovs", "br-int")
        await network.switch(vm(), *MOVE)
        assert cloud.changes() == []
        await network.settle(vm(), *MOVE)
        await network.settle(vm(), *MOVE)
        assert bindings(neutron) == SETTLED and len(cloud.changes()) == 1
        await network.withdraw(vm(), *MOVE)
        assert bindings(neutron) == AS_BEFORE


async def test_subports_go_along_and_come_back() -> None:
    with serving(neutron := ScriptedNeutron(trunk=True)) as (network, _):
        await network.prepare(vm(), *MOVE)
        assert neutron.subport_host == "host1"
        await network.settle(vm(), *MOVE)
        assert neutron.subport_host == "host2"
        await network.prepare(vm(), "host2", "host1")
        neutron.subport_host = "host1"  # the network agent's own trunk driver was faster
        await network.withdraw(vm(), "host2", "host1")
        assert neutron.subport_host == "host2"


@pytest.mark.parametrize(
    ("vif", "details", "plug", "bridge"),
    [
        ("ovs", {"ovs_hybrid_plug": True}, "ovs-hybrid", "br-int"),
        ("ovs", {"bridge_name": "tbr-1"}, "ovs", "tbr-1"),
        ("bridge", {"bridge_name": "brq5c5b1a3e-00"}, "bridge", "brq5c5b1a3e-00"),
        ("macvtap", {"macvtap_source": "eth1"}, "macvtap", "eth1"),
    ],
)
async def test_how_a_binding_says_to_plug(vif: str, details: dict[str, object], plug: str, bridge: str) -> None:
    neutron = ScriptedNeutron()
    neutron.bindings["host1"] |= {"vif_type": vif, "vif_details": details}
    with serving(neutron) as (network, _):
        (nic,) = await network.nics_for(vm(), "host1", "host1")
        assert (nic.plug, nic.bridge or nic.parent) == (plug, bridge)


@pytest.mark.parametrize("vif", ["vhostuser", "hw_veb", "binding_failed", "unbound", "tomorrow"])
async def test_what_cannot_be_plugged_is_refused_by_name(vif: str) -> None:
    neutron = ScriptedNeutron()
    neutron.bindings["host1"]["vif_type"] = vif
    with serving(neutron) as (network, _):
        with pytest.raises(Refused, match=vif) as raised:
            await network.nics_for(vm(), "host1", "host1")
        assert raised.value.fix
        with pytest.raises(Refused, match="no binding on host7"):
            await network.nics_for(vm(), "host1", "host7")


async def test_ports_nobody_knows() -> None:
    with serving(ScriptedNeutron()) as (network, _):
        with pytest.raises(Refused, match="no port of Neutron"):
            await network.prepare(vm(None), *MOVE)
        with pytest.raises(NotFound):
            await network.prepare(vm("gone"), *MOVE)
        with pytest.raises(Refused, match=MAC):
            await network.nics_for(vm("gone"), *MOVE)
        await network.settle(vm("gone"), *MOVE)
        await network.withdraw(vm("gone"), *MOVE)


async def test_wired_is_what_the_agent_reported() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, _):
        assert await network.wired(vm(), "host1")
        assert not await network.wired(vm(), "host2")
        neutron.status = "DOWN"
        assert not await network.wired(vm(), "host1")


async def test_a_port_that_was_deleted_meanwhile_is_not_waited_for() -> None:
    with serving(ScriptedNeutron()) as (network, _):
        several = vm().model_copy(update={"nics": (*vm("gone").nics, *vm().nics)})
        assert await network.wired(several, "host1")
        assert not await network.wired(several, "host2")


async def test_a_subport_that_was_deleted_meanwhile_does_not_hide_its_parent() -> None:
    neutron = ScriptedNeutron(trunk=True)
    with serving(neutron) as (network, _):
        await network.prepare(vm(), *MOVE)
        gone = Answer(404, error("PortNotFound", f"Port {SUBPORT} could not be found."))
        neutron.answers += [("GET", f"/ports/{SUBPORT}", gone)] * 8
        await network.settle(vm(), *MOVE)
        assert bindings(neutron) == SETTLED


async def test_a_user_without_the_role_is_told_which() -> None:
    neutron = ScriptedNeutron()
    neutron.answers.append(("POST", "/bindings", Answer(403, error("HTTPForbidden", "rule:create_port_binding"))))
    with serving(neutron) as (network, _):
        with pytest.raises(Permanent, match="HTTP 403") as raised:
            await network.prepare(vm(), *MOVE)
        assert "service" in raised.value.fix


async def test_a_token_that_ran_out_is_renewed() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, cloud):
        await network.prepare(vm(), *MOVE)
        cloud.revoked = cloud.logins
        await network.switch(vm(), *MOVE)
        assert neutron.active["host"] == "host2" and cloud.logins == 2


async def test_a_check_names_every_reason_and_changes_nothing() -> None:
    with serving(neutron := ScriptedNeutron()) as (network, cloud):
        assert await network.check(vm(), *MOVE) == []
        assert [r.code for r in await network.check(vm(), "host3", "host4")] == [
            "port-elsewhere",
            "network-agent-dead",
        ]
        neutron.dead_hosts.add("host2")
        several = vm().model_copy(update={"nics": (*vm(None).nics, *vm("gone").nics)})
        found = await network.check(several, *MOVE)
        assert [r.code for r in found] == ["nic-port-unknown", "nic-port-unknown", "network-agent-dead"]
        assert all(r.fix for r in found)
        assert cloud.changes() == []


async def test_a_port_without_a_binding_for_the_host_cannot_be_plugged_there() -> None:
    with serving(ScriptedNeutron()) as (network, _), pytest.raises(Refused) as refused:
        await network.nics_for(vm(), *MOVE)  # nobody has prepared it
    (refusal,) = refused.value.refusals
    assert refusal.code == "nic-not-bound"
    assert PORT in refusal.message and "host2" in refusal.fix


class Slow(ScriptedNeutron):
    """Each answer takes `answer_s` of a clock by hand. Where somebody `interferes`, new bindings are refused."""

    def __init__(self, answer_s: float, *, interferes: bool = False) -> None:
        super().__init__()
        self.now_s, self._answer_s, self._interferes = 0.0, answer_s, interferes

    def __call__(self, asked: Asked) -> Answer:
        self.now_s += self._answer_s
        if self._interferes and asked.method == "POST":
            return Answer(409, error("PortBindingAlreadyExists", "somebody was faster"))
        return super().__call__(asked)


async def test_many_slow_answers_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve rounds of three requests, each just within its own limit, would take half an hour."""
    neutron = Slow(59.0, interferes=True)
    monkeypatch.setattr(session, "monotonic", lambda: neutron.now_s)
    with serving(neutron) as (network, cloud):
        with pytest.raises(Unreachable, match=f"port {PORT}.*more than 300 s") as raised:
            await network.prepare(vm(), *MOVE)
        assert raised.value.fix
        assert neutron.now_s <= 300 + 59
        assert len(cloud.asked) == 6


@pytest.mark.parametrize("part", ["nics_for", "wired"])
async def test_so_have_those_of_many_ports(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    neutron = Slow(59.0)
    monkeypatch.setattr(session, "monotonic", lambda: neutron.now_s)
    many = vm().model_copy(update={"nics": vm().nics * 20})
    with serving(neutron) as (network, _):
        with pytest.raises(Unreachable, match="more than 300 s"):
            await getattr(network, part)(many, *(MOVE if part == "nics_for" else ("host1",)))
        assert neutron.now_s <= 300 + 59


async def test_what_is_asked_for_later_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    neutron = Slow(30.0)
    monkeypatch.setattr(session, "monotonic", lambda: neutron.now_s)
    with serving(neutron) as (network, _):
        for _ in range(15):
            assert await network.wired(vm(), "host1")
