from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.domain.errors import BadRequest
from sterna.domain.model import Data
from sterna.rpc.envelope import (
    MAX_MESSAGE_BYTES,
    Event,
    Reply,
    Request,
    decode_event,
    decode_reply,
    decode_request,
    encode,
)
from sterna.rpc.subjects import call_subject, name_of, token

text = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(text, plain, max_size=4)
requests = st.builds(
    Request,
    v=st.just(1),
    kind=st.sampled_from(["call", "cast"]),
    id=names,
    method=names,
    sender=names,
    migration_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=255),
    epoch=st.integers(0, 2**63 - 1),
    params=objects,
)
GOOD = {"v": 1, "kind": "call", "id": "1", "method": "m", "sender": "a"}


@given(requests)
def test_requests_come_back_as_they_were(request: Request) -> None:
    assert decode_request(encode(request)) == request


@given(objects, st.sampled_from(["result", "error", "ack"]))
def test_replies_and_events_come_back_as_they_were(data: Data, kind: Literal["result", "error", "ack"]) -> None:
    reply = Reply(kind=kind, id="1", data=data)
    assert decode_reply(encode(reply)) == reply
    event = Event(sender="a", data=data)
    assert decode_event(encode(event)) == event


def test_a_heartbeat_carries_nothing() -> None:
    plain_one = Reply(kind="heartbeat", id="1")
    assert decode_reply(encode(plain_one)) == plain_one
    for more in ({"data": {"x": 1}}, {"error": {"x": 1}}):
        with pytest.raises(BadRequest, match="heartbeat"):
            decode_reply(encode(plain_one.model_copy(update=more)))
    for padded in ({"id": "1" * 2000}, {"unknown": "x" * 2000}):
        with pytest.raises(BadRequest, match="heartbeat"):
            decode_reply(json.dumps(plain_one.model_dump() | padded).encode())


@given(st.binary() | plain.map(lambda x: json.dumps(x).encode()))
def test_whatever_the_bytes_a_value_or_a_bad_request(payload: bytes) -> None:
    for decode in (decode_request, decode_reply, decode_event):
        try:
            decode(payload)
        except BadRequest as e:
            assert e.message
            assert len(e.message) < 2000


@given(st.sampled_from([*sorted(GOOD), "epoch", "params", "migration_id"]), plain)
def test_any_field_may_hold_nonsense(field: str, nonsense: object) -> None:
    try:
        decode_request(json.dumps(GOOD | {field: nonsense}).encode())
    except BadRequest as e:
        assert e.message


@given(objects)
def test_an_error_reply_with_nonsense_inside_is_still_an_error(error: Data) -> None:
    assert isinstance(Reply(kind="error", error=error).raised(), Exception)
    assert isinstance(
        Reply(kind="error", error=error | {"code": "refused", "refusals": [error]}).raised(), Exception
    )
    assert isinstance(Reply(kind="error", error=error | {"code": "refused", "refusals": 1}).raised(), Exception)


@pytest.mark.parametrize("version", [2, 0, -1, 99])
def test_other_versions_are_named(version: int) -> None:
    with pytest.raises(BadRequest, match=rf"version {version};.*speaks 1 to 1"):
        decode_request(json.dumps(GOOD | {"v": version}).encode())


@pytest.mark.parametrize("version", [None, "1", 1.0, True, [1]])
def test_no_version(version: object) -> None:
    with pytest.raises(BadRequest, match="no protocol version"):
        decode_request(json.dumps(GOOD | {"v": version}).encode())


@pytest.mark.parametrize("field", ["id", "method", "sender", "kind"])
def test_missing_fields_are_named(field: str) -> None:
    with pytest.raises(BadRequest, match=f"malformed: {field}"):
        decode_request(json.dumps({k: v for k, v in GOOD.items() if k != field}).encode())


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"v":' * 50_000, "not JSON"),
        (b"9" * 100_000, "not"),
        (b'{"v": NaN}', "not JSON"),
        (b"[]", "not a JSON object but a list"),
        (b"null", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b"x" * (MAX_MESSAGE_BYTES + 1), f"limit of {MAX_MESSAGE_BYTES}"),
    ],
)
def test_malformed_bytes(payload: bytes, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        decode_request(payload)


def test_fields_of_a_newer_minor_version_are_ignored() -> None:
    assert decode_request(json.dumps(GOOD | {"from_the_future": 1}).encode()).method == "m"


@given(names)
def test_a_host_name_is_one_token_of_a_subject(name: str) -> None:
    assert name_of(token(name)) == name
    subject = call_subject(name, name)
    assert subject.count(".") == 4
    assert not any(c.isspace() or c in "*>" for c in subject)
    assert subject.isascii()
