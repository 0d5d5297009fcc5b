"""Which changes are events, which news of an operation is worth one, signatures, and addresses."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from sterna.domain.fleet.course import OperationStatus
from sterna.domain.notifications.addresses import checked, server_of
from sterna.domain.notifications.events import CHOSEN, EventType, chosen, of_operation
from sterna.domain.notifications.payload import LONGEST_TEXT, HostData
from sterna.domain.notifications.signing import headers, key_of
from sterna.domain.notifications.standing import Standing, Told, news

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
START = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the specification's own libraries."""
    body = b'{"test": 2432232314}'
    made = headers([key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_an_old_secret_signs_as_well() -> None:
    old, new = key_of(SECRET), bytes(range(32))
    both = headers([new, old], "id", 1, b"{}")["webhook-signature"].split(" ")
    assert both == [headers([key], "id", 1, b"{}")["webhook-signature"] for key in (new, old)]


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "begins with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa\nw", "is not Base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSé", "is not Base64"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "it has 23 bytes"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "it has 65 bytes"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        key_of(secret)
    assert "MfKQ9r8" not in str(raised.value)


# ------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    "url",
    [
        "https://alerts.example",
        "https://alerts.example:8443/hooks/T0/B1?source=sterna&x=%C3%A9",
        "https://[fd00::1]/x",
        "http://127.0.0.1:9000/x",
        "http://[::1]:9000/",
        "HTTP://localhost/x",
    ],
)
def test_an_address_that_may_be_called(url: str) -> None:
    assert checked(url, insecure=False) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "1 to 1000 visible ASCII"),
        ("https://alerts.example/a b", "visible ASCII"),
        ("https://alerts.example/\r\nX-Header: 1", "visible ASCII"),
        ("https://alérts.example/", "xn--"),
        ("https://alerts.example/" + "a" * 1000, "1 to 1000"),
        ("ftp://alerts.example/", "not the address of a server"),
        ("alerts.example", "not the address of a server"),
        ("https:///x", "not the address of a server"),
        ("https://me:s3cret@alerts.example/", "a user or a password"),
        ("https://alerts.example/#x", "fragment"),
        ("https://alerts.example:0/", "port"),
        ("https://alerts.example:99999/", "port"),
        ("https://alerts.example:x/", "port"),
        ("http://alerts.example/s3cret", "http://alerts.example would be called without TLS"),
        ("http://localhost.evil.example/", "without TLS"),
    ],
)
def test_an_address_that_may_not_be_called(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        checked(url, insecure=False)
    assert "s3cret" not in str(raised.value)


def test_plain_http_to_another_machine_has_to_be_asked_for() -> None:
    assert checked("http://alerts.example/x", insecure=True)


def test_of_an_address_the_server_is_shown() -> None:
    assert server_of("HTTPS://alerts.example:8443/hooks/s3cret?key=s3cret") == "https://alerts.example:8443"
    assert server_of("https://me:s3cret@[fd00::1]/x") == "https://[fd00::1]"


# ------------------------------------------------------------ types of events


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ((), CHOSEN),
        (("*.",), None),
        (("migration.failed",), (EventType.MIGRATION_FAILED,)),
        (("host.*", "migration.failed"), None),
    ],
)
def test_events_are_chosen_by_name_or_group(patterns: tuple[str, ...], found: tuple[EventType, ...] | None) -> None:
    if patterns == ("*.",):
        with pytest.raises(ValueError, match="no type of event"):
            chosen(patterns)
    elif found is not None:
        assert chosen(patterns) == found
    else:
        assert {one.partition(".")[0] for one in chosen(patterns)} == {"host", "migration"}


@pytest.mark.parametrize("pattern", ["migration", "migration.faild", "mig*", "*", "test", "", "host.*.*"])
def test_what_names_no_event_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"no type of event: migration\.accepted"):
        chosen((pattern,))


@pytest.mark.parametrize("was", OperationStatus)
@pytest.mark.parametrize("now", OperationStatus)
def test_each_change_of_an_operation_is_an_event(was: OperationStatus, now: OperationStatus) -> None:
    kind = of_operation(was, now)
    assert (kind is None) is (was is now)
    assert kind is None or (kind is EventType.OPERATION_ENDED) is now.final


def test_a_long_reason_is_shortened() -> None:
    assert HostData(name="a", reason="x" * LONGEST_TEXT).reason == "x" * LONGEST_TEXT
    assert HostData(name="a", reason="x" * 10_000).reason == "x" * (LONGEST_TEXT - 1) + "…"


# ------------------------------------------------------------ how an operation stands


def stands(at_s: float, promised_s: float | None = None, waits_for: str = "") -> Standing:
    return Standing((START + timedelta(seconds=at_s)).isoformat(), waits_for, promised_s)


@pytest.mark.parametrize(
    ("at_s", "left_s", "moved"),
    [
        (10, 290, False),  # as promised
        (10, 349, False),  # 59 s later
        (10, 351, True),
        (10, 229, True),  # sooner
        (10, 6_000, True),
        (250, 111, True),
        (250, 109, False),
    ],
)
def test_a_promise_has_to_move_by_a_minute(at_s: float, left_s: float, moved: bool) -> None:
    first = news(Told(), stands(0, 300))
    assert first.kinds == (EventType.OPERATION_PROMISE_CHANGED,)
    assert (news(first.told, stands(at_s, left_s)).kinds != ()) is moved


def test_a_promise_that_is_far_away_has_to_move_by_a_tenth() -> None:
    told = news(Told(), stands(0, 36_000)).told
    assert not news(told, stands(0, 38_000)).promise and news(told, stands(0, 41_000)).promise


def test_small_moves_add_up() -> None:
    told, events = news(Told(), stands(0, 600)).told, 0
    for late in range(0, 200, 20):
        found = news(told, stands(0, 600 + late))
        told, events = found.told, events + found.promise
    assert events == 2


def test_a_promise_that_is_gone_for_a_while_is_compared_with_the_last_one() -> None:
    told = news(Told(), stands(0, 600)).told
    assert not news(told, stands(5)).kinds
    assert not news(news(told, stands(5)).told, stands(10, 595)).kinds


def test_what_is_waited_for_is_reported_once_after_a_while() -> None:
    told, found = Told(), []
    for at_s in range(0, 100, 10):
        one = news(told, stands(at_s, waits_for="b does not answer" if at_s < 50 else "nor does c"))
        told = one.told
        found += [at_s] if one.waits else []
    assert found == [30]
    told = news(told, stands(100)).told
    assert told.waits_since == "" and not news(told, stands(101, waits_for="b")).waits


def test_one_that_was_never_looked_at_says_nothing() -> None:
    assert news(Told(), Standing("", "b does not answer", 5.0)).kinds == ()
