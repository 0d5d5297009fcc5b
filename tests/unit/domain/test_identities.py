"""Names of those who take part, and what their certificates must contain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sterna.domain.errors import BadRequest
from sterna.domain.trust.certificates import VALID, Seen, ending, faults, is_due, renew_at, wanted, warned_at
from sterna.domain.trust.identities import (
    Identity,
    Kind,
    addresses_of,
    domains_of,
    identity,
    named_by,
    too_like,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST1 = Identity(kind=Kind.AGENT, name="host1")
OURS = ("sterna",)


def seen(**changed: object) -> Seen:
    usual = {
        "dns_names": ("host1.agents.sterna",),
        "ip_addresses": ("10.0.0.1", "fd00::1"),
        "client": True,
        "server": True,
        "not_before": NOW - timedelta(days=1),
        "not_after": NOW + timedelta(days=1),
    }
    return Seen.model_validate(usual | changed)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("name", ["h", "host1", "Host_1-a", "x" * 63])
def test_a_name_in_a_certificate_leads_back_to_its_identity(kind: Kind, name: str) -> None:
    who = identity(kind, name)
    assert named_by(who.dns_name) == who


@pytest.mark.parametrize("name", ["", "a.b", "@controller", "-a", "a b", "x" * 64, "a\n", "*", ">", "hôte"])
def test_what_cannot_be_a_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        identity(Kind.AGENT, name)
    assert "letters, digits" in caught.value.fix


@pytest.mark.parametrize(
    "name", ["host1.agents.example", "agents.sterna", "e1.host1.agents.sterna", "bus.sterna", ""]
)
def test_other_names_stand_for_nobody(name: str) -> None:
    assert named_by(name) is None


def test_a_host_called_controller_is_no_controller() -> None:
    host, controller = identity(Kind.AGENT, "controller"), identity(Kind.CONTROLLER, "controller")
    assert (host.bus_token, controller.bus_token) == ("controller", "@controller")
    assert host.dns_name != controller.dns_name
    with pytest.raises(BadRequest):
        identity(Kind.AGENT, controller.bus_token)


@pytest.mark.parametrize("kind", [Kind.BUS, Kind.OPERATOR])
def test_who_is_no_client_of_the_bus_has_no_name_there(kind: Kind) -> None:
    with pytest.raises(BadRequest, match="not a client of the bus"):
        _ = identity(kind, "a").bus_token


def test_names_that_differ_in_case_only_are_alike() -> None:
    assert too_like("Host1", ["host2", "host1"]) == "host1"
    assert too_like("host1", ["host1", "host2"]) == ""


def test_a_certificate_is_made_out_to_names_and_addresses() -> None:
    permitted = ("sterna", "migration.example")
    found = wanted(HOST1, 2, ["10.0.0.1", "a.migration.example", "fd00::1", "10.0.0.1"], permitted, NOW)
    assert found.dns_names == ("host1.agents.sterna", "e2.host1.agents.sterna", "a.migration.example")
    assert found.ip_addresses == ("10.0.0.1", "fd00::1")
    assert found.not_before < NOW
    assert found.not_after == NOW + timedelta(days=90)


def test_controllers_and_servers_of_the_bus_prove_what_they_serve() -> None:
    controller = wanted(identity(Kind.CONTROLLER, "c1"), 1, [], OURS, NOW)
    server = wanted(identity(Kind.BUS, "n1"), 1, [], OURS, NOW)
    assert "controllers.sterna" in controller.dns_names and "bus.sterna" not in controller.dns_names
    assert server.dns_names == ("n1.servers.sterna", "bus.sterna")
    assert not {"controllers.sterna", "bus.sterna"} & set(wanted(HOST1, 1, [], OURS, NOW).dns_names)


@pytest.mark.parametrize(
    "name", ["bus.sterna", "controllers.sterna", "c1.controllers.sterna", "host2.agents.sterna"]
)
def test_an_address_cannot_be_somebody_elses_name(name: str) -> None:
    with pytest.raises(BadRequest, match="may not sign"):
        addresses_of([name], ("sterna",))
    with pytest.raises(BadRequest, match="may not sign"):
        addresses_of([name.upper() + "."], ("sterna", "example"))


@pytest.mark.parametrize("address", ["fe80::1%eth0", "[fd00::1]", "10.0.0.1:80", "a b", "", "-x.example"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(BadRequest, match="not an address"):
        addresses_of([address], OURS)


@pytest.mark.parametrize("name", ["host1.example.org", "10.0.0.300", "asterna"])
def test_the_ca_signs_no_names_of_other_domains(name: str) -> None:
    with pytest.raises(BadRequest, match="may not sign") as caught:
        addresses_of([name], OURS)
    assert "--domain" in caught.value.fix


def test_the_domains_of_a_ca() -> None:
    assert domains_of([]) == ("sterna",)
    assert domains_of(["Example.org.", "example.org"]) == ("sterna", "example.org")
    for bad in ("", ".", "10.0.0.1", "a b", "a_b.example"):
        with pytest.raises(BadRequest, match="not a domain"):
            domains_of([bad])


def test_a_good_certificate_has_no_faults() -> None:
    assert faults(seen(), HOST1, NOW) == ()
    assert faults(seen(dns_names=()), None, NOW, addresses=["10.0.0.1", "fd00:0::1"]) == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dns_names": ("host2.agents.sterna",)}, "not issued for host1.agents.sterna but for"),
        ({"dns_names": (), "ip_addresses": ()}, "but for nobody"),
        ({"client": False}, "may not be used as a client"),
        ({"server": False}, "may not be used as a server"),
        ({"client": False, "server": False}, "client and server"),
        ({"is_ca": True}, "CA's own"),
        ({"not_before": NOW + timedelta(seconds=1)}, "not valid before"),
        ({"not_after": NOW}, "expired on 2026-01-01"),
    ],
)
def test_each_fault_is_said(changed: dict[str, object], said: str) -> None:
    assert said in " ".join(faults(seen(**changed), HOST1, NOW))


def test_every_address_that_is_asked_for_must_be_in_it() -> None:
    found = faults(seen(), None, NOW, addresses=["10.0.0.1", "10.0.0.2", "h.example"])
    assert found == ("it is not issued for 10.0.0.2, h.example (subject alternative names)",)


def test_it_is_renewed_after_two_thirds_of_its_life() -> None:
    begin, end = NOW, NOW + VALID
    assert renew_at(begin, end) == NOW + timedelta(days=60)
    assert not is_due(begin, end, NOW + timedelta(days=60, seconds=-1))
    assert is_due(begin, end, NOW + timedelta(days=60))


def test_its_end_is_told_two_weeks_ahead() -> None:
    begin, end = NOW, NOW + VALID
    assert warned_at(begin, end) == end - timedelta(days=14)
    assert ending(begin, end, end - timedelta(days=14, seconds=1)) == ""
    assert ending(begin, end, end - timedelta(days=14)) == "its certificate expires on 2026-04-01 00:00 UTC"
    assert ending(begin, end, end) == "its certificate has expired, on 2026-04-01 00:00 UTC"


def test_the_end_of_a_short_life_is_not_told_all_through_it() -> None:
    """Another CA's may be valid for a day."""
    begin, end = NOW, NOW + timedelta(hours=24)
    assert warned_at(begin, end) == end - timedelta(hours=4)
