"""The list of revoked certificates: another number whenever it differs, and no nonsense is taken for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sterna.domain.errors import BadRequest
from sterna.domain.trust.enrolment import Issued, Register, invited, joined, removed, renewed
from sterna.domain.trust.identities import Identity, Kind
from sterna.domain.trust.revocation import (
    MOST_BYTES,
    MOST_NAMES,
    RevokedList,
    from_wire,
    number_of,
    numbered,
    removed_hosts,
    to_wire,
)

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
END = NOW + timedelta(days=90)
HOST1, HOST2 = (Identity(kind=Kind.AGENT, name=n) for n in ("host1", "host2"))


def with_hosts(*hosts: Identity) -> Register:
    register = Register()
    for who in hosts:
        register = invited(register, who, None, None)
        register = joined(register, who, Issued(serial=who.name[-1], number=1, not_after=END), "", NOW)
    return register


def test_while_nothing_is_revoked_there_is_no_list() -> None:
    present = with_hosts(HOST1)
    after = numbered(present, renewed(present, HOST1, Issued(serial="a", number=1, not_after=END), NOW), NOW)
    assert number_of(present) == number_of(after) == 0


def test_each_list_that_differs_has_a_larger_number() -> None:
    present = with_hosts(HOST1, HOST2)
    first = numbered(present, removed(present, HOST1, NOW), NOW)
    assert number_of(first) == NOW.timestamp() * 1000
    same = numbered(first, invited(first, HOST1, None, None), NOW + timedelta(hours=1))
    assert number_of(same) == number_of(first)
    earlier_clock = numbered(same, removed(same, HOST2, NOW), NOW - timedelta(days=1))
    assert number_of(earlier_clock) == number_of(first) + 1


def test_after_an_old_backup_the_next_list_is_newer_than_all_before() -> None:
    backup = with_hosts(HOST1, HOST2)
    lost = numbered(backup, removed(backup, HOST1, NOW), NOW)
    later = NOW + timedelta(minutes=1)
    assert number_of(numbered(backup, removed(backup, HOST2, later), later)) > number_of(lost)


def test_a_register_of_before_has_a_list_if_something_was_revoked() -> None:
    assert number_of(removed(with_hosts(HOST1), HOST1, NOW)) == 1


def test_a_host_is_gone_until_it_has_joined_again() -> None:
    register = invited(with_hosts(HOST1), HOST2, None, None)
    assert removed_hosts(register) == ()
    register = removed(register, HOST1, NOW)
    assert removed_hosts(register) == ("host1",)
    register = invited(register, HOST1, None, None)
    assert removed_hosts(register) == ("host1",)
    again = joined(register, HOST1, Issued(serial="9", number=2, not_after=END), "", NOW)
    assert removed_hosts(again) == ()


def test_it_is_read_as_it_was_sent() -> None:
    given = RevokedList(number=7, pem="x", removed=("host1",))
    assert from_wire(to_wire(given)) == given


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": None},
        {"number": 0},
        {"number": True},
        {"number": 7.0},
        {"pem": b"x"},
        {"pem": "x" * (MOST_BYTES + 1)},
        {"removed": None},
        {"removed": "host1"},
        {"removed": ["host1", 1]},
        {"removed": ["host1,CN=host2"]},
        {"removed": ["h"] * (MOST_NAMES + 1)},
    ],
)
def test_what_is_no_list_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        from_wire({"number": 7, "pem": "x", "removed": []} | wrong)
