"""The OpenAPI document, and what the routes accept and answer."""

from __future__ import annotations

import pytest

from sterna.api.access import LARGEST_BODY
from tests.unit.api.rest import Api, body


@pytest.mark.parametrize(
    ("method", "path", "wrong"),
    [
        ("PATCH", "/v1/hosts/a", {"maintenance": 0}),
        ("PATCH", "/v1/hosts/a", {"maintenance": "false"}),
        ("POST", "/v1/hosts/a/declare-dead", {"fenced": "yes"}),
        ("POST", "/v1/audit", {"repair": 1}),
        ("POST", "/v1/migrations", body(finish_within_s=False)),
        ("POST", "/v1/migrations", body(max_downtime_ms="500")),
        ("POST", "/v1/plans", {"vm": "web1", "rehearse": 1}),
        ("POST", "/v1/tokens", {"name": "ci", "role": "viewer", "days": True}),
    ],
    ids=str,
)
async def test_a_number_is_no_truth_and_a_word_no_number(
    api: Api, method: str, path: str, wrong: dict[str, object]
) -> None:
    """As the document says: else `false` is a deadline of 0 s."""
    assert (await api.problem(method, path, 422, json=wrong))["reasons"][0]["code"] == "invalid"


async def test_openapi_says_how_each_route_refuses(api: Api) -> None:
    """With the media type that is sent, and with what is found out before the route is reached."""
    spec = await api.get("/openapi.json")
    operations = [(method, path, one) for path, all in spec["paths"].items() for method, one in all.items()]
    for method, path, operation in operations:
        for status, response in operation["responses"].items():
            assert ("application/problem+json" in response.get("content", {})) is (int(status) >= 400), (
                path,
                status,
            )
        expected = {"401", "403", "503"} if "security" in operation else set()
        expected |= {"400", "413"} if "requestBody" in operation else set()
        assert expected <= set(operation["responses"]), (method, path)
    headers = {"Content-Type": "application/json"}
    for content, status in ((b"\x05\xb9g", 400), (b"{", 422), (b"1" * (LARGEST_BODY + 1), 413)):
        refused = await api.http.post("/v1/migrations", content=content, headers=headers)
        assert refused.status_code == status
        assert (
            refused.headers["content-type"]
            in spec["paths"]["/v1/migrations"]["post"]["responses"][str(status)]["content"]
        )
