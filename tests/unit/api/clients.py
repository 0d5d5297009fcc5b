"""Tokens of the settings for tests, one for each role, and clients that send them."""

from __future__ import annotations

from typing import Any

import httpx2
from fastapi import FastAPI

from sterna.api.access import AccessRules
from sterna.api.app import create_app
from sterna.controller.controller import Controller
from sterna.controller.intents.users import FixedToken
from sterna.domain.access import UserRole
from sterna.kit.digests import digest_of

TOKENS = {role: f"test-token-of-the-{role}" for role in UserRole}
ACCESS = AccessRules(
    tokens=tuple(FixedToken(name=role, role=role, digest=digest_of(told)) for role, told in TOKENS.items())
)


def bearing(role: UserRole = UserRole.ADMIN) -> dict[str, str]:
    """Headers of a request."""
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def secret_of(token: str) -> str:
    """The part of `sterna_ID_SECRET` that nobody else knows; it may have underscores of its own."""
    _, _, secret = token.split("_", 2)
    assert len(secret) == 43
    return secret


def served(controller: Controller) -> FastAPI:
    """The application, for those who have one of the tokens."""
    return create_app(controller, ACCESS)


def client(
    app: FastAPI,
    role: UserRole | None = UserRole.ADMIN,
    *,
    raises: bool = True,
    origin: str = "127.0.0.1",
    **options: Any,
) -> httpx2.AsyncClient:
    """Without a role: a client that sends no token."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=raises, client=(origin, 123))
    headers = {} if role is None else bearing(role)
    return httpx2.AsyncClient(transport=transport, base_url="http://sterna", headers=headers, **options)
