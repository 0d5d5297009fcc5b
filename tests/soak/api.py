"""The REST API as a client sees it while parts of the fleet are away; what must never come is a violation."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.soak.timeline import Timeline

TIMEOUT_S = 45.0
AWAY = {503, 504}
"""Something did not answer: come again."""


@dataclass(frozen=True)
class Answer:
    """`status` 0: none came."""

    status: int
    body: Any = None

    @property
    def came(self) -> bool:
        return self.status not in {0, *AWAY}


class Api:
    """One client of all controllers: each request goes to any of them. One thread uses it."""

    def __init__(
        self, urls: list[str], timeline: Timeline, draw: random.Random, access: dict[str, Any] | None = None
    ) -> None:
        self._clients = [httpx2.Client(base_url=url, timeout=TIMEOUT_S, **(access or {})) for url in urls]
        self._timeline, self._draw = timeline, draw

    def ask(self, method: str, path: str, expected: set[int], **more: Any) -> Answer:
        """An answer that is neither expected nor says that something is away is a violation."""
        try:
            response = self._draw.choice(self._clients).request(method, path, **more)
        except httpx2.TransportError as error:
            self._timeline.note("no answer", path=path, error=repr(error))
            return Answer(0)
        body = response.json()
        if response.status_code not in expected | AWAY:
            self._timeline.violation(
                f"{method} {_kind(path)} answered {response.status_code}", path=path, body=body
            )
        return Answer(response.status_code, body)

    def get(self, path: str, *expected: int, **more: Any) -> Answer:
        return self.ask("GET", path, {200, *expected}, **more)

    def post(self, path: str, *expected: int, **more: Any) -> Answer:
        return self.ask("POST", path, set(expected), **more)

    def close(self) -> None:
        for client in self._clients:
            client.close()


def _kind(path: str) -> str:
    """The path without ids, so that a fault seen often is one."""
    words = path.partition("?")[0].split("/")
    return "/".join("ID" if len(word) == 36 and word.count("-") == 4 else word for word in words)
