"""What requests to the Compute API say: bodies, pages, filters, times. Whatever is wrong is 400 with a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from sterna.api.compute.call import Call

T = TypeVar("T")

MOST_LISTED = 1000
"""On one page: Nova's `max_limit`."""
LARGEST = 2**31 - 1
_TRUE = {"1", "t", "true", "on", "y", "yes"}
_FALSE = {"0", "f", "false", "off", "n", "no"}


def wrong(where: str, why: str) -> HTTPException:
    """400, with the field."""
    return HTTPException(400, f"Invalid input for field/attribute {where}: {why}")


async def json_body(request: Request) -> dict[str, Any]:
    """The body, an object. Raises HTTPException (400, 415)."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"the content type {kind!r} is not supported here: send application/json")
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "Malformed request body: it is not a JSON object")
    return body


def only(body: Mapping[str, Any], where: str, required: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises HTTPException for a field that is missing or not known."""
    for name in required:
        if name not in body:
            raise wrong(where, f"{name!r} is required")
    known = {*required, *optional}
    for name in body:
        if name not in known:
            raise wrong(where, f"{name!r} is not known in this version of the API")


def boolean(value: object, where: str) -> bool:
    """As Nova reads it: clients send `true`, `"True"` and `"1"`."""
    if isinstance(value, bool):
        return value
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text not in _TRUE | _FALSE:
        raise wrong(where, "it is neither true nor false")
    return text in _TRUE


def text(value: object, where: str, *, longest: int = 255) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise wrong(where, f"it is not a text of 1 to {longest} characters")
    return value


def check_query(query: QueryParams, known: Iterable[str]) -> None:
    """Raises HTTPException for a parameter that is not known."""
    unknown = sorted(set(query.keys()) - set(known))
    if unknown:
        raise HTTPException(400, f"these parameters are not known here: {', '.join(unknown)[:200]}")


def limit_of(query: QueryParams) -> int:
    """How many are wanted on this page."""
    return min(number(query, "limit", MOST_LISTED), MOST_LISTED)


def number(query: QueryParams, name: str, otherwise: int) -> int:
    """From 0 on."""
    said = query.get(name)
    if said is None:
        return otherwise
    if not (said.isascii() and said.isdecimal() and len(said) <= 10):
        raise wrong(name, "it is not a number from 0 on")
    return int(said)


def instant(query: QueryParams, name: str) -> datetime | None:
    """A time, UTC where it names no zone."""
    said = query.get(name)
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        raise wrong(name, "it is not a time as ISO 8601 writes it") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def page(call: Call, request: Request, found: Sequence[T], path: str, ids: Sequence[str]) -> tuple[list[T], Any]:
    """The part that `limit` and `marker` ask for, and the links to the next page; None for the last.

    `ids` are what a marker names them by. Raises HTTPException for a marker that is not there.
    """
    query, limit = request.query_params, limit_of(request.query_params)
    begin, marker = 0, query.get("marker")
    if marker is not None:
        if marker not in ids:
            raise HTTPException(400, f"the marker {marker[:64]} is not in this list")
        begin = ids.index(marker) + 1
    listed = list(found[begin : begin + limit])
    asked = "limit" in query or len(found) > begin + limit
    if not listed or not asked or len(listed) < limit:
        return listed, None
    return listed, [next_page(call, query, path, limit, ids[begin + len(listed) - 1])]


def next_page(call: Call, query: QueryParams, path: str, limit: int, last: str) -> dict[str, str]:
    """The link to what comes behind `last`, with everything else that was asked for."""
    rest = [(key, value) for key, value in query.multi_items() if key not in ("marker", "limit")]
    rest += [("limit", str(limit)), ("marker", last)]
    return {"rel": "next", "href": f"{call.base}/v2.1/{path}?{urlencode(rest)}"}


def moment(iso: str) -> str | None:
    """An instant as most of Nova writes it: UTC without saying so. None for none."""
    found = _parsed(iso)
    return None if found is None else found.strftime("%Y-%m-%dT%H:%M:%S.%f")


def moment_z(iso: str) -> str | None:
    """The same, as Nova writes those of servers."""
    found = _parsed(iso)
    return None if found is None else found.strftime("%Y-%m-%dT%H:%M:%SZ")


def at(iso: str) -> datetime:
    """For comparing; long ago where there is none."""
    return _parsed(iso) or datetime.fromtimestamp(0, UTC)


def _parsed(iso: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


class NamePattern:
    """A filter by name: Nova's is a regular expression of its database. Here `.`, `.*`, `^`, `$` and a character
    behind `\\` mean what they mean there, and all else stands for itself: no pattern takes longer than a name has
    characters."""

    def __init__(self, pattern: str) -> None:
        self._literal = pattern.lower()
        inner = self._literal.removeprefix("^")
        self._from_begin, self._to_end = inner != self._literal, inner.endswith("$") and not inner.endswith("\\$")
        parts = _parts(inner.removesuffix("$") if self._to_end else inner)
        self._parts = [(re.compile("".join(part), re.DOTALL), len(part)) for part in parts]

    def matches(self, name: str) -> bool:
        """Anywhere in the name, whatever the case; also where the pattern is a part of it as it stands."""
        return self._literal in name.lower() or self.fits(name)

    def fits(self, name: str) -> bool:
        """The same, as a pattern alone."""
        value, place = name.lower(), 0
        for number, (part, width) in enumerate(self._parts):
            last = number == len(self._parts) - 1
            if number == 0 and self._from_begin:
                found = part.fullmatch(value) if last and self._to_end else part.match(value)
            elif last and self._to_end:
                found = part.fullmatch(value, max(place, len(value) - width))
            else:
                found = part.search(value, place)
            if found is None:
                return False
            place = found.end()
        return True


def _parts(pattern: str) -> list[list[str]]:
    """What stands between the `.*`, character by character, each as a regular expression."""
    parts: list[list[str]] = [[]]
    for said in re.findall(r"\.\*|\\.|.", pattern, re.DOTALL):
        if said == ".*":
            parts.append([])
        else:
            parts[-1].append("." if said == "." else re.escape(said[-1]))
    return parts
