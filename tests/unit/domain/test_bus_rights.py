"""What each may do on the bus. That a real nats-server agrees is tests/contract/test_bus_rights.py."""

from __future__ import annotations

import pytest

from sterna.domain.errors import BadRequest
from sterna.domain.trust.bus_config import BusServer, bus_config, listening_at, quoted
from sterna.domain.trust.bus_rights import covers, may_publish, may_subscribe, rights_of
from sterna.domain.trust.identities import Identity, Kind
from tests.rights import CONTROLLER, HOST1, PUBLISHES, SUBSCRIBES

SERVER = BusServer(listen="10.0.0.1", cert_file="/c.crt", key_file="/c.key", ca_file="/ca.crt")


@pytest.mark.parametrize(("who", "subject", "allowed"), PUBLISHES)
def test_publishing(who: Identity, subject: str, allowed: bool) -> None:
    assert may_publish(rights_of(who), subject) is allowed


@pytest.mark.parametrize(("who", "pattern", "allowed"), SUBSCRIBES)
def test_subscribing(who: Identity, pattern: str, allowed: bool) -> None:
    assert may_subscribe(rights_of(who), pattern) is allowed


@pytest.mark.parametrize("kind", [Kind.BUS, Kind.OPERATOR])
def test_nobody_else_has_rights(kind: Kind) -> None:
    with pytest.raises(BadRequest):
        rights_of(Identity(kind=kind, name="a"))


@pytest.mark.parametrize(
    ("allowed", "pattern", "covered"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.*", "a.>", False),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a.>", True),
        ("a.>", "a", False),
        ("a.>", "*.b", False),
        ("a.b", "a.*", False),
        ("*.b", "a.b", True),
        (">", "a.>", True),
    ],
)
def test_patterns(allowed: str, pattern: str, covered: bool) -> None:
    assert covers(allowed, pattern) is covered


def test_the_configuration_names_each_user_once() -> None:
    text = bus_config(SERVER, [(HOST1, "e1.host1.agents.sterna"), (CONTROLLER, "e1.c1.controllers.sterna")])
    assert text.count("user:") == 2
    assert 'user: "e1.host1.agents.sterna"' in text
    assert "verify_and_map: true" in text
    assert "allow_responses" not in text


def test_a_bus_that_nobody_could_use_is_not_configured() -> None:
    with pytest.raises(BadRequest) as caught:
        bus_config(SERVER, [])
    assert "sterna host add" in caught.value.fix


def test_two_clients_with_one_name_would_have_the_rights_of_either() -> None:
    with pytest.raises(BadRequest, match=r"the same name: a\.example"):
        bus_config(SERVER, [(HOST1, "a.example"), (CONTROLLER, "a.example")])


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("10.0.0.1", "10.0.0.1:4222"),
        ("10.0.0.1:4333", "10.0.0.1:4333"),
        ("bus.example", "bus.example:4222"),
        ("fd00::1", "[fd00::1]:4222"),
        ("[fd00::1]", "[fd00::1]:4222"),
        ("[fd00::1]:4333", "[fd00::1]:4333"),
    ],
)
def test_where_it_listens(given: str, found: str) -> None:
    assert listening_at(given) == found


@pytest.mark.parametrize("given", ["", ":4222", "10.0.0.1:0", "10.0.0.1:65536", "a b", "10.0.0.1:x"])
def test_where_it_cannot_listen(given: str) -> None:
    with pytest.raises(BadRequest, match="not an address to listen on"):
        listening_at(given)


def test_strings_are_quoted() -> None:
    assert quoted('/a "b"\\c') == '"/a \\"b\\"\\\\c"'
    with pytest.raises(BadRequest):
        quoted("/a\nb")
