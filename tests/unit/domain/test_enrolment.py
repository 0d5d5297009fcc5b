"""Who is enrolled: tokens are used once, a removed host is off the bus, a name that comes again is somebody new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sterna.domain.errors import Conflict, NotFound, SternaError
from sterna.domain.trust.enrolment import (
    MOST_CERTIFICATES,
    Invitation,
    Issued,
    Register,
    invited,
    joined,
    next_number,
    on_the_bus,
    redeemed,
    removed,
    renewable,
    renewed,
    revoked,
    to_sign,
)
from sterna.domain.trust.identities import Identity, Kind

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=60)
END = NOW + timedelta(days=90)
HOST1, HOST2 = (Identity(kind=Kind.AGENT, name=n) for n in ("host1", "host2"))
CONTROLLER = Identity(kind=Kind.CONTROLLER, name="c1")


def invitation(secret: str = "s") -> Invitation:
    return Invitation(secret_hash=secret, expires=NOW + timedelta(minutes=15))


def issued(serial: str, number: int = 1, end: datetime = END) -> Issued:
    return Issued(serial=serial, number=number, not_after=end)


def with_host1(serial: str = "1") -> Register:
    register = invited(Register(), HOST1, ["10.0.0.1"], invitation())
    return joined(register, HOST1, issued(serial), "key", NOW)


def users(register: Register) -> list[str]:
    return [user for _, user in on_the_bus(register)]


def test_a_host_that_is_invited_is_not_on_the_bus_until_it_has_joined() -> None:
    register = invited(Register(), HOST1, ["10.0.0.1"], invitation())
    assert users(register) == []
    assert users(joined(register, HOST1, issued("1"), "key", NOW)) == ["e1.host1.agents.sterna"]


def test_a_register_is_kept_as_text() -> None:
    register = with_host1()
    assert Register.model_validate_json(register.model_dump_json()) == register


def test_servers_of_the_bus_are_no_clients_of_it() -> None:
    server = Identity(kind=Kind.BUS, name="n1")
    register = joined(invited(Register(), server, [], None), server, issued("1"), "", NOW)
    register = joined(invited(register, CONTROLLER, [], None), CONTROLLER, issued("2"), "", NOW)
    assert users(register) == ["e1.c1.controllers.sterna"]


def test_a_token_is_good_for_its_host_and_its_time() -> None:
    register = invited(Register(), HOST1, None, invitation())
    assert redeemed(register, HOST1, "s", "key", NOW).name == "host1"
    for who, secret, now, why in (
        (HOST2, "s", NOW, "not valid"),
        (HOST1, "other", NOW, "not valid"),
        (HOST1, "s", NOW + timedelta(minutes=15), "expired"),
    ):
        with pytest.raises(Conflict, match=why) as caught:
            redeemed(register, who, secret, "key", now)
        assert f"sterna host add {who.name}" in caught.value.fix


def test_a_token_is_used_once_but_its_user_may_repeat_the_question() -> None:
    register = with_host1()
    member = redeemed(register, HOST1, "s", "key", NOW)
    assert next_number(member, "key") == 1
    with pytest.raises(Conflict, match="used already"):
        redeemed(register, HOST1, "s", "another key", NOW)
    again = joined(register, HOST1, issued("2", 1), "key", NOW)
    assert revoked(again) == ()


def test_a_newer_token_ends_the_older_one() -> None:
    register = invited(invited(Register(), HOST1, None, invitation("old")), HOST1, None, invitation("new"))
    with pytest.raises(Conflict, match="last one"):
        redeemed(register, HOST1, "old", "key", NOW)


def test_an_invitation_keeps_the_addresses_unless_it_names_new_ones() -> None:
    register = with_host1()
    for given, kept in ((None, ("10.0.0.1",)), (["10.0.0.9"], ("10.0.0.9",)), ([], ())):
        member = invited(register, HOST1, given, invitation()).find(HOST1)
        assert member is not None and member.addresses == kept


def test_a_host_that_joins_anew_is_another_user_and_its_earlier_certificate_is_revoked() -> None:
    register = invited(with_host1(), HOST1, None, invitation("new"))
    assert users(register) == ["e1.host1.agents.sterna"]  # still at work, until it joins
    number = next_number(redeemed(register, HOST1, "new", "key2", NOW), "key2")
    register = joined(register, HOST1, issued("2", number), "key2", NOW)
    assert users(register) == ["e2.host1.agents.sterna"]
    assert revoked(register) == (("1", NOW),)


def test_a_removed_host_is_off_the_bus_and_its_certificates_are_revoked() -> None:
    register = removed(renewed(with_host1(), HOST1, issued("2"), NOW), HOST1, NOW)
    assert users(register) == []
    assert [serial for serial, _ in revoked(register)] == ["1", "2"]
    assert removed(register, HOST1, LATER) == register


def test_a_removed_host_that_may_join_anew_is_on_the_bus_when_it_has() -> None:
    register = invited(removed(with_host1(), HOST1, NOW), HOST1, None, invitation("new"))
    assert users(register) == []
    number = next_number(redeemed(register, HOST1, "new", "key", NOW), "key")
    assert users(joined(register, HOST1, issued("2", number), "key", NOW)) == ["e2.host1.agents.sterna"]


def test_an_invitation_ends_with_the_removal() -> None:
    register = removed(invited(with_host1(), HOST1, None, invitation("new")), HOST1, NOW)
    with pytest.raises(Conflict, match="not valid"):
        redeemed(register, HOST1, "new", "key2", NOW)


def test_removing_nobody_says_who_there_is() -> None:
    with pytest.raises(NotFound) as caught:
        removed(with_host1(), HOST2, NOW)
    assert caught.value.fix == "enrolled are: host1"


def test_names_that_differ_in_case_only() -> None:
    with pytest.raises(Conflict, match="in case only"):
        invited(with_host1(), Identity(kind=Kind.AGENT, name="HOST1"), None, invitation())


def test_an_operator_signs_the_request_of_who_was_invited_and_has_not_joined() -> None:
    with pytest.raises(NotFound) as unknown:
        to_sign(Register(), HOST1)
    assert "sterna host add host1" in unknown.value.fix
    assert to_sign(invited(Register(), HOST1, None, invitation()), HOST1).name == "host1"
    with pytest.raises(Conflict, match="has joined already"):
        to_sign(with_host1(), HOST1)
    with pytest.raises(NotFound):
        to_sign(removed(with_host1(), HOST1, NOW), HOST1)


def test_a_certificate_in_force_may_be_renewed_and_stays_in_its_enrolment() -> None:
    register = with_host1()
    assert renewable(register, "1", LATER).name == "host1"
    register = renewed(register, HOST1, issued("2", 1, LATER + timedelta(days=90)), LATER)
    assert users(register) == ["e1.host1.agents.sterna"]
    assert revoked(register) == ()
    assert renewable(register, "1", LATER).name == "host1"  # its answer may have been lost


@pytest.mark.parametrize("why", ["removed", "revoked", "expired", "not in the register"])
def test_what_is_not_renewed(why: str) -> None:
    register, now, serial = with_host1(), NOW, "1"
    if why == "removed":
        register = removed(register, HOST1, NOW)
    elif why == "revoked":
        register = joined(invited(register, HOST1, None, invitation("n")), HOST1, issued("2", 2), "key2", NOW)
    elif why == "expired":
        now = END
    else:
        serial = "9"
    with pytest.raises(SternaError, match=why) as caught:
        renewable(register, serial, now)
    assert "join again" in caught.value.fix


def test_expired_certificates_are_forgotten() -> None:
    register = renewed(with_host1(), HOST1, issued("2", 1, END + timedelta(days=90)), END)
    member = register.find(HOST1)
    assert member is not None and [c.serial for c in member.certificates] == ["2"]


def test_an_enrolment_has_so_many_certificates_and_no_more() -> None:
    """Each stays in the register, and who has joined may ask as often as it likes, with its token or without."""
    register = joined(invited(Register(), HOST1, [], invitation()), HOST1, issued("0"), "k", NOW)
    for n in range(1, MOST_CERTIFICATES):
        assert renewable(register, "0", NOW).name == redeemed(register, HOST1, "s", "k", NOW).name == "host1"
        register = renewed(register, HOST1, issued(f"{n:x}"), NOW)
    told = f"{MOST_CERTIFICATES} certificates that have not expired"
    with pytest.raises(Conflict, match=told):
        renewable(register, "0", NOW)
    with pytest.raises(Conflict, match=told) as caught:
        redeemed(register, HOST1, "s", "k", NOW)
    assert "sterna host add host1" in caught.value.fix
    again = joined(invited(register, HOST1, None, invitation("t")), HOST1, issued("ff", 2), "l", NOW)
    assert renewable(again, "ff", NOW).number == 2
