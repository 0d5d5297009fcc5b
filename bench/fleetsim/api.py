"""The controllers' REST API, as an operator's tool uses it: where one controller is dead, the next one is asked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2

AGAIN_S = 0.5
PATIENCE_S = 120.0
"""For a request that no controller answers."""
LATER = frozenset({502, 503, 504})


class ApiError(Exception):
    """A controller has refused it."""


class Api:
    """All controllers."""

    def __init__(self, sockets: list[str]) -> None:
        self._clients = [
            httpx2.AsyncClient(
                transport=httpx2.AsyncHTTPTransport(uds=path), base_url="http://localhost", timeout=60
            )
            for path in sockets
        ]

    async def close(self) -> None:
        """Hang up."""
        for client in self._clients:
            await client.aclose()

    async def one(self, number: int, path: str) -> Any:
        """A GET of that controller; None where it does not answer, or not well."""
        try:
            answer = await self._clients[number].get(path)
        except httpx2.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of any controller. Raises ApiError where it is refused, or nobody answers for long."""
        until, why = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < until:
            for client in self._clients:
                try:
                    answer = await client.request(method, path, json=body)
                except httpx2.HTTPError as error:
                    why = repr(error)
                    continue
                if answer.status_code in LATER:
                    why = answer.text
                    continue
                if answer.status_code >= 400:
                    raise ApiError(f"{method} {path}: {answer.status_code} {answer.text}")
                return answer.json()
            await asyncio.sleep(AGAIN_S)
        raise ApiError(f"{method} {path}: no controller answers: {why}")
