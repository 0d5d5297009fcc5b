"""What two agents ask each other: what is sent and what is believed of it."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.domain import calls, untrusted
from sterna.domain.calls import Call, Judgement, ListenAgain, SeesToken, TakeMedium, TokenSeen
from sterna.domain.entries.source import ConnectionsRemoved, PortsWired
from sterna.domain.errors import BadRequest

CALLS: list[type[Call[Any]]] = [
    each
    for each in vars(calls).values()
    if isinstance(each, type) and issubclass(each, Call) and "method" in vars(each)
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_call_has_a_name_of_its_own_and_an_answer(call: type[Call[Any]]) -> None:
    assert [each.method for each in CALLS].count(call.method) == 1
    assert call.answer().model_fields is not None


def test_what_was_not_given_is_not_sent() -> None:
    assert ListenAgain(vm="v", address="10.0.0.2").to_wire() == {"vm": "v", "address": "10.0.0.2"}
    assert SeesToken(path="/a", token="t").to_wire() == {"path": "/a", "token": "t"}
    assert SeesToken(path="/a", token="t", place=None).to_wire() == {"path": "/a", "token": "t", "place": None}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"path": "/a", "offset": "0", "data": ""},
        {"path": "/a", "offset": True, "data": ""},
        {"path": ["/a"], "offset": 0, "data": ""},
    ],
)
def test_parameters_of_another_type_are_a_bad_request(params: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="take_medium"):
        untrusted.call(TakeMedium, params)


def test_an_answer_is_read_as_the_call_says() -> None:
    seen = untrusted.reply(SeesToken(path="/a", token="t"), {"seen": True, "newer": 1})
    assert seen == TokenSeen(seen=True)
    with pytest.raises(BadRequest, match="sees_token"):
        untrusted.reply(SeesToken(path="/a", token="t"), {"seen": "perhaps"})


def test_an_epoch_of_any_kind_is_read_and_left_to_who_believes_it() -> None:
    assert Judgement.model_validate({"refusals": [], "epoch": "12"}).epoch == "12"


def test_an_answer_that_only_people_read_holds_nothing_up() -> None:
    assert untrusted.remark(PortsWired, {"wired": ["tap0"], "by_agent": True}).by_agent is True
    assert untrusted.remark(PortsWired, {"wired": 7}) == PortsWired()
    assert untrusted.remark(ConnectionsRemoved, {"removed": ["no"]}) == ConnectionsRemoved()
