"""IPv6 addresses: bare in settings, sockets and messages, in brackets in every URI."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sterna.config import MigrationSettings
from sterna.domain.addresses import bare, filled, in_uri, is_address, network_of
from sterna.domain.errors import BadRequest
from sterna.domain.untrusted import address, stream_uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("10.0.0.2", "10.0.0.2"),
        ("host2.example", "host2.example"),
        ("fd00::2", "[fd00::2]"),
        ("[fd00::2]", "[fd00::2]"),
    ],
)
def test_an_address_in_a_uri(text: str, uri: str) -> None:
    assert in_uri(text) == in_uri(bare(text)) == uri


@pytest.mark.parametrize("template", ["qemu+tcp://{address}/system", "qemu+tcp://[{address}]/system"])
def test_a_template_gets_brackets_once(template: str) -> None:
    assert filled(template, "fd00::2") == "qemu+tcp://[fd00::2]/system"
    assert filled("qemu+ssh://root@{address}:22/system", "fd00::2") == "qemu+ssh://root@[fd00::2]:22/system"


@pytest.mark.parametrize("text", ["fd00::2", "[fd00::2]"])
def test_an_address_in_the_settings_may_have_brackets_and_loses_them(text: str) -> None:
    assert MigrationSettings(address=text).address == "fd00::2"
    assert stream_uri("tcp:[fd00::2]:49152", text) == "tcp:[fd00::2]:49152"


@pytest.mark.parametrize("text", ["fe80::1%eth0", "[fe80::1%e]", "[10.0.0.2]", "[host2]", "[fd00::2", "fd00::]/x"])
def test_what_no_other_host_can_dial(text: str) -> None:
    assert not is_address(text)
    with pytest.raises(BadRequest):
        address(text)
    with pytest.raises(ValidationError):
        MigrationSettings(address=text)


def test_a_zone_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="a device of this host only"):
        MigrationSettings(address="fd00::2", more_addresses=("fe80::1%eth0",))


def test_a_peer_sends_its_address_without_brackets() -> None:
    assert address("fd00::2") == "fd00::2"
    assert not is_address("[fd00::2]")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::/64"),
        ("fd00::2:0:0:1", "fd00::/64"),
        ("fd00:0:0:1::1", "fd00:0:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_what_one_client_has_for_itself(address: str, network: str) -> None:
    assert network_of(address) == network
