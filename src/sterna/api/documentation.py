"""`/openapi.json`, and `/docs`: the same as a page, made here. It loads nothing and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse

from sterna.api.access import needs
from sterna.domain.access import Action

router = APIRouter(include_in_schema=False, dependencies=[needs(Action.READ)])
Json = dict[str, Any]

STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h3 { margin-top: 2em; border-top: 1px solid #ccc; padding-top: 1em; }
h3 code { background: #eee; padding: 0 .3em; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2em .6em .2em 0; border-bottom: 1px solid #ddd; }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi(), headers={"X-Content-Type-Options": "nosniff"})


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The OpenAPI document as a page."""
    return HTMLResponse(page(request.app.openapi()), headers=HEADERS)


def page(document: Json) -> str:
    """Operations first, then what they take and answer."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    parts = [
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><p>{escape(document['info']['description'])}</p>",
        '<p>The same as JSON: <a href="openapi.json">openapi.json</a></p><h2>Operations</h2>',
    ]
    for path, methods in document["paths"].items():
        parts += [part for method, operation in methods.items() for part in _operation(method, path, operation)]
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += _schema(name, schema)
    return "\n".join([*parts, "</body></html>"])


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<h3><code>{method.upper()}</code> {escape(path)}</h3>"
    yield f"<p><strong>{escape(operation['summary'])}.</strong> {escape(operation.get('description', ''))}</p>"
    if role := operation.get("x-role"):
        yield f"<p>Role: {escape(role)}</p>"
    if parameters := operation.get("parameters"):
        rows = [(p["name"], p["in"], _type(p["schema"]), escape(p.get("description", ""))) for p in parameters]
        yield _table(("Parameter", "In", "Type", "What it is"), rows)
    for body in operation.get("requestBody", {}).get("content", {}).values():
        yield f"<p>Request body: {_type(body['schema'])}</p>"
    answers = []
    for status, answer in sorted(operation["responses"].items()):
        kinds = ", ".join(_type(c.get("schema", {})) for c in answer.get("content", {}).values())
        answers.append((status, kinds, escape(answer["description"])))
    yield _table(("Status", "Body", "When"), answers)


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
    if "properties" not in schema:
        yield f"<p>{_type(schema)}</p>"
        return
    rows = [(escape(n), _type(f), escape(f.get("description", ""))) for n, f in schema["properties"].items()]
    yield _table(("Field", "Type", "What it is"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(escape(str(one)) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("const") or schema.get("type", "any")))
