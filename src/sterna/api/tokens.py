"""`/v1/tokens` and `/v1/log`: who may use this API, and what they have asked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import actor_of, needs
from sterna.api.dependencies import Served, position
from sterna.api.problems import documented
from sterna.domain.access import Action, UserRole
from sterna.domain.model import Data
from sterna.domain.tokens import LONGEST_DAYS, NAME, Token
from sterna.ports.access import LogPage, LogRecord

router = APIRouter(prefix="/v1", tags=["users"])
_TOKENS = [needs(Action.TOKENS)]


class TokenIn(BaseModel):
    """A token to be created."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=NAME, examples=["ci"])
    role: UserRole
    days: int = Field(default=90, strict=True, ge=1, le=LONGEST_DAYS, description="Days until it expires.")


class TokenOut(BaseModel):
    """One token, without its secret."""

    name: str = Field(examples=["ci"])
    role: UserRole
    created_at: str = Field(description="ISO 8601 UTC.")
    created_by: str = Field(examples=["user:root"])
    expires_at: str = Field(description="ISO 8601 UTC.")

    @classmethod
    def of(cls, token: Token) -> TokenOut:
        """From the records'."""
        return cls(**token.model_dump(include=set(TokenOut.model_fields)))


class NewTokenOut(TokenOut):
    """A new token."""

    token: str = Field(description="Shown only once: only its hash is stored.")


class TokensOut(BaseModel):
    """All tokens except those in the controller's settings."""

    tokens: list[TokenOut]


@router.post("/tokens", status_code=201, summary="Create a token", dependencies=_TOKENS,
             responses=documented(409, 422))  # fmt: skip
async def create_token(wanted: TokenIn, controller: Served, request: Request) -> NewTokenOut:
    """The token gives its holder the permissions of its role. 409 if the name is taken."""
    by = actor_of(request).name
    token, secret = await controller.users.create(wanted.name, wanted.role, wanted.days, by)
    return NewTokenOut(**TokenOut.of(token).model_dump(), token=secret)


@router.get("/tokens", summary="List tokens", dependencies=_TOKENS)
async def list_tokens(controller: Served) -> TokensOut:
    """Sorted by name, including expired tokens."""
    return TokensOut(tokens=[TokenOut.of(t) for t in await controller.users.tokens()])


@router.delete("/tokens/{name}", summary="Remove a token", dependencies=_TOKENS, responses=documented(404))
async def remove_token(name: str, controller: Served, request: Request) -> TokenOut:
    """From then on, requests with it are refused."""
    return TokenOut.of(await controller.users.remove(name, actor_of(request).name))


class LogLineOut(BaseModel):
    """One request that changed something, or tried to."""

    number: int
    at: str = Field(description="ISO 8601 UTC, the controller's clock.")
    request: str = Field(description="ID of the request: `X-Request-Id` of its response.")
    actor: str = Field(description="Who sent it: `token:NAME`, or `user:NAME` on the controller's machine.")
    role: str
    origin: str = Field(description="Where it came from: an IP address, or a process on the controller's machine.")
    action: str = Field(examples=["migrate"])
    target: str = Field(description="The VM, host, migration or token, as named in the request.")
    body: Data = Field(description="Body of the request.")
    status: int | None = Field(description="HTTP status of the response; null if there was none, or not yet.")

    @classmethod
    def of(cls, record: LogRecord) -> LogLineOut:
        """From the records'."""
        return cls(number=record.number, status=record.status, **record.asked.model_dump())


class LogOut(BaseModel):
    """A page of the audit log."""

    lines: list[LogLineOut]
    next_cursor: str | None = Field(description="Null on the last page.")


class Filters(BaseModel):
    """Which lines of the log."""

    actor: str = Field(default="", max_length=255, description="Only requests by this user or token.")
    action: Action | None = Field(default=None, description="Only this action.")
    target: str = Field(default="", max_length=255, description="Only requests for this VM, host or migration.")
    request: str = Field(default="", max_length=64, description="Only the request with this X-Request-Id.")
    since: str = Field(default="", max_length=40, description="Only requests since this time, ISO 8601 UTC.")
    limit: int = Field(default=50, ge=1, le=500, description="Maximum number of items on a page.")
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page.")


@router.get("/log", summary="Show the audit log", dependencies=[needs(Action.LOG)], responses=documented(400, 422))
async def show_log(controller: Served, wanted: Annotated[Filters, Query()]) -> LogOut:
    """Newest first. Lines are never changed. Only old ones are deleted (`[keep] log_days`)."""
    page = LogPage(
        **wanted.model_dump(include={"actor", "target", "request", "since"}),
        action=wanted.action or "",
        limit=wanted.limit + 1,
        before=None
        if wanted.cursor is None
        else position(wanted.cursor, "cursor", "use `next_cursor` of the previous page"),
    )
    found = await controller.users.page(page)
    more = str(found[wanted.limit - 1].number) if len(found) > wanted.limit else None
    return LogOut(lines=[LogLineOut.of(r) for r in found[: wanted.limit]], next_cursor=more)
