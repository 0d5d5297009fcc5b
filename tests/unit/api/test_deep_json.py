"""JSON that is nested without an end, or is none, in whatever a client sends: refused, and no error of the API."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

import pytest

from .rest import Api

HALVES = tuple('["\\ud800"' + ', "x"' * more + "]" for more in range(4))
"""Of a character: none of these is text."""
DEEP = ("[" * 6_000, '{"a":' * 1_200, "[" * 500 + "]" * 500, '["a"', "[1, 2]", "\xff", *HALVES)


@pytest.mark.parametrize("path", ["/v1/vms", "/v1/hosts", "/v1/queue", "/v1/rules"])
@pytest.mark.parametrize("text", DEEP, ids=range(len(DEEP)))
async def test_a_cursor(api: Api, path: str, text: str) -> None:
    cursor = urlsafe_b64encode(text.encode("latin-1")).decode().rstrip("=")
    assert len(cursor) <= 8192, "or it is refused before it is read"
    await api.problem("GET", f"{path}?cursor={cursor}", 400)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000])
@pytest.mark.parametrize(
    "path", ["/v1/migrations", "/v1/operations", "/v1/rules", "/v2.1/os-server-external-events"]
)
async def test_a_body(api: Api, path: str, text: str) -> None:
    answer = await api.http.post(path, content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert json.loads(answer.text)
