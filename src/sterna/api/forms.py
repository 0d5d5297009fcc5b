"""Forms of HTML as browsers send them: `a=1&b=2`."""

from __future__ import annotations

from urllib.parse import parse_qsl

from sterna.domain.errors import BadRequest
from sterna.domain.model import Data
from sterna.domain.plain_text import printable

MEDIA_TYPE = "application/x-www-form-urlencoded"
MOST_FIELDS = 1100
"""A drain names up to 1000 hosts."""
FORM_TOKEN, TOKEN = "form_token", "token"
SECRET = {FORM_TOKEN, TOKEN}
"""Fields that are not logged."""


def is_form(content_type: str | None) -> bool:
    """By the header of a request."""
    return (content_type or "").partition(";")[0].strip().lower() == MEDIA_TYPE


def parsed(raw: bytes) -> dict[str, list[str]]:
    """The fields that are not empty. Raises BadRequest."""
    try:
        pairs = parse_qsl(raw.decode(), max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise BadRequest(f"the form cannot be read: {error}", fix="reload the page") from error
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value.strip())
    return {name: kept for name, values in found.items() if (kept := [one for one in values if one])}


def logged(raw: bytes) -> Data:
    """A form as the audit log keeps it."""
    try:
        fields = parsed(raw)
    except BadRequest:  # it is refused as such, after this
        return {}
    plain = {printable(name): [printable(one) for one in values] for name, values in fields.items()}
    return {name: values[0] if len(values) == 1 else values for name, values in plain.items() if name not in SECRET}
