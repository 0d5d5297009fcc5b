"""What sends traces, against a real HTTP server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.adapters import traces
from sterna.adapters.traces import OtlpReceiver
from sterna.domain.errors import Permanent, Undelivered, Unreachable
from sterna.domain.otlp import otlp_of
from sterna.domain.spans import trace_of
from sterna.domain.status import Status
from tests.unit.otlp_receiver import Receiver, receiving

from ..domain.journals import MIGRATION, good_destination, good_source

TRACE = trace_of(MIGRATION, [*good_source().entries, *good_destination().entries], Status.COMPLETED)
BODY = json.dumps(otlp_of(TRACE, "0.1.0")).encode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


async def test_a_trace_arrives_whole(receiver: Receiver) -> None:
    await OtlpReceiver(receiver.address, {"Authorization": "Bearer s3"}).send(BODY)
    ((path, headers),) = receiver.asked
    assert (path, headers["Content-Type"]) == ("/v1/traces", "application/json")
    assert headers["Authorization"] == "Bearer s3"
    (request,) = receiver.requests
    assert sorted(span.spanId for span in request.spans) == sorted(span.id for span in TRACE.spans)


@pytest.mark.parametrize("status", [429, 503])
async def test_one_that_takes_nothing_now_may_be_asked_again(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(Undelivered, match=str(status)):
        await OtlpReceiver(receiver.address).send(BODY)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 500, 502])
async def test_one_that_refuses_is_not_asked_again(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": "/elsewhere"}
    with pytest.raises(Permanent, match=str(status)) as caught:
        await OtlpReceiver(receiver.address).send(BODY)
    assert len(receiver.asked) == 1 and "[traces]" in caught.value.fix


async def test_spans_that_are_rejected_are_told(receiver: Receiver) -> None:
    receiver.answer = b'{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "too old\\u0007"}}'
    with pytest.raises(Permanent, match=r"3: too old\\x07"):
        await OtlpReceiver(receiver.address).send(BODY)


@pytest.mark.parametrize(
    "answer",
    [b"", b"ok", b"[]", b"{}", b'{"partialSuccess": {}}', b'{"partialSuccess": null}', b"[" * 60_000,
     b'{"partialSuccess": {"rejectedSpans": 0, "errorMessage": "a warning"}}'],
)  # fmt: skip
async def test_whatever_else_a_receiver_answers_it_has_them(receiver: Receiver, answer: bytes) -> None:
    receiver.answer = answer
    await OtlpReceiver(receiver.address).send(BODY)


async def test_nobody_listens_there(receiver: Receiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = receiver.address._replace(port=closed.getsockname()[1])
        with pytest.raises(Undelivered, match="cannot be reached"):
            await OtlpReceiver(address).send(BODY)


async def test_certificates_that_are_not_there(receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(Undelivered, match=r"none\.crt"):
        await OtlpReceiver(receiver.address, ca_file=str(tmp_path / "none.crt")).send(BODY)
    assert receiver.asked == []


@pytest.mark.parametrize("limit", ["ANSWER_S", "LONGEST_S"])
async def test_one_that_does_not_answer_may_have_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(traces, limit, 0.5)
    receiver.hangs = threading.Event()
    with pytest.raises(Unreachable) as caught:
        await OtlpReceiver(receiver.address).send(BODY)
    assert not isinstance(caught.value, Undelivered)
