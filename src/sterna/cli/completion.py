"""Names for the shell's completion, from the controller: silent, and over within a moment.

A shell puts what it is given into the command line unquoted, and zsh evaluates it. Names come from outside: only
those that mean nothing to a shell are offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import typer

from sterna.cli.api_address import find_apis
from sterna.cli.client import Client, Json
from sterna.cli.waiting import within

LIMIT_S = 1.5
"""Somebody waits at a prompt."""
MOST = 100
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]*")

Offered = list[str] | list[tuple[str, str]]


def vms(ctx: typer.Context, incomplete: str) -> Offered:
    """Names of VMs."""
    return _offered(ctx, lambda client: _named(client, "vms", incomplete), incomplete)


def hosts(ctx: typer.Context, incomplete: str) -> Offered:
    """Names of hosts."""
    return _offered(ctx, lambda client: _named(client, "hosts", incomplete), incomplete)


def migrations(ctx: typer.Context, incomplete: str) -> Offered:
    """IDs of the newest migrations, each with what it moves."""

    def found(client: Client) -> Iterable[tuple[str, str]]:
        answer = client.get("/v1/migrations", limit=MOST, id=incomplete or None)
        return ((one["id"], _about(one["vm_name"], one["status"])) for one in answer["migrations"])

    return _offered(ctx, found, incomplete)


def operations(ctx: typer.Context, incomplete: str) -> Offered:
    """IDs of the newest operations, each with its kind."""

    def found(client: Client) -> Iterable[tuple[str, str]]:
        answer = client.get("/v1/operations", limit=MOST, id=incomplete or None)
        return ((one["id"], _about(one["kind"], one["status"])) for one in answer["operations"])

    return _offered(ctx, found, incomplete)


def _named(client: Client, kind: str, incomplete: str) -> Iterable[tuple[str, str]]:
    listed: list[Json] = client.get(f"/v1/{kind}", limit=MOST, name=incomplete or None)[kind]
    return ((one["name"], "") for one in listed)


def _about(*words: object) -> str:
    return ", ".join(word for word in map(str, words) if _PLAIN.fullmatch(word))


def _offered(
    ctx: typer.Context, ask: Callable[[Client], Iterable[tuple[str, str]]], incomplete: str
) -> list[tuple[str, str]]:
    """Nothing where the controller does not answer in time: a shell has no place for errors."""
    given = ctx.params.get("api")
    found: list[tuple[str, str]] = []
    with suppress(Exception):
        found = within(LIMIT_S, lambda: list(ask(Client.of(*find_apis(_texts(given))))))
    wanted = {name: about for name, about in found if name.startswith(incomplete) and _PLAIN.fullmatch(name)}
    return sorted(wanted.items())


def _texts(given: Any) -> list[str] | None:
    """What was typed behind --api, in whichever form the parser has it by now."""
    if not given:
        return None
    return [given] if isinstance(given, str) else [str(one) for one in given]
