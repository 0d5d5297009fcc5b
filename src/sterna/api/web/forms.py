"""What a form has sent, checked: it was made for this user, and its fields are what `/v1` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from sterna.api import forms
from sterna.api.access import raw_body
from sterna.api.web.pages import bound_to, sessions_of
from sterna.domain.errors import BadRequest, Forbidden

Model = TypeVar("Model", bound=BaseModel)


class Fields:
    """The fields of a form that are not empty."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def text(self, name: str, otherwise: str = "") -> str:
        """One field."""
        return self._fields.get(name, [otherwise])[0]

    def some(self, name: str) -> list[str]:
        """All values of a field that may be there several times."""
        return list(self._fields.get(name, ()))

    def whole(self, name: str, *, times: int = 1) -> int | str | None:
        """A whole number; what is not one stays text, which no model takes. None where it is empty."""
        text = self.text(name)
        if not text:
            return None
        return int(text) * times if text.isascii() and text.isdecimal() and len(text) <= 18 else text

    def number(self, name: str, *, times: float = 1.0) -> float | str | None:
        """A number; as `whole`."""
        text = self.text(name)
        try:
            return float(text) * times if text else None
        except ValueError:
            return text

    def ticked(self, name: str) -> bool:
        """Is the box ticked?"""
        return name in self._fields


async def read(request: Request) -> Fields:
    """The form of a request, whoever sent it. Raises BadRequest."""
    if not forms.is_form(request.headers.get("content-type")):
        raise BadRequest(f"a form is sent as {forms.MEDIA_TYPE}", fix="programs use /v1: see /docs")
    return Fields(forms.parsed(await raw_body(request)))


async def _checked(request: Request) -> Fields:
    """Raises Forbidden where the form was not made for this user. A token in a header is enough: no page of another
    site can send it."""
    found = await read(request)
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    with_token = scheme == "bearer" and not request.scope["state"]["session"]
    if not with_token and not sessions_of(request).is_form_token(found.text(forms.FORM_TOKEN), bound_to(request)):
        raise Forbidden(
            "this form is not of your session, or is too old", fix="load the page again, and send it then"
        )
    return found


Form = Annotated[Fields, Depends(_checked)]


def validated(model: type[Model], data: Mapping[str, Any]) -> Model:
    """As `/v1` would take it. Raises RequestValidationError."""
    try:
        return model.model_validate({name: value for name, value in data.items() if value is not None})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
