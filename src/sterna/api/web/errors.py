"""Errors as pages, for browsers: the same problems that `/v1` answers with, in words."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from sterna.api import problems
from sterna.api.browsers import SAFE
from sterna.api.web.pages import HEADERS, TEMPLATES, page, place_of
from sterna.domain.errors import SternaError, Unauthenticated

_NO_PAGES = {"/docs", "/openapi.json"}
"""A browser asks for a name and a password there."""
Handler = Callable[[Request, Exception], Awaitable[Response]]


def wants_page(request: Request) -> bool:
    """Is it a browser that has asked, for a page?"""
    path = request.url.path
    if path.startswith("/v1/") or path in _NO_PAGES:
        return False
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def install(app: FastAPI) -> None:
    """Browsers get pages where others get problems."""
    for kind, handler in problems.HANDLERS.items():
        app.add_exception_handler(kind, _as_page(handler))


def _as_page(handler: Handler) -> Handler:
    async def answering(request: Request, error: Exception) -> Response:
        problem = await handler(request, error)
        return _page_of(request, problem) if wants_page(request) else problem

    return answering


def _page_of(request: Request, problem: Response) -> Response:
    said = json.loads(bytes(problem.body))
    kept = {name: problem.headers[name] for name in ("allow", "retry-after") if name in problem.headers}
    answer = page(request, "error.html", problem.status_code, problem=said)
    answer.headers.update(kept)
    return answer


async def refuse(request: Request, error: SternaError) -> Response:
    """To a request that is not let in: where a user can sign in, or a problem."""
    if not wants_page(request):
        return await problems.answer(request, error)
    if not isinstance(error, Unauthenticated):
        return _page_of(request, await problems.answer(request, error))
    if request.method not in SAFE:
        return RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    address = "/sign-in?" + urlencode({"to": place_of(request)})
    if "hx-request" in request.headers:
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers=HEADERS | {"HX-Redirect": "/sign-in"})
    if request.headers.get("sec-fetch-site") == "cross-site" and "again" not in request.query_params:
        return _from_here(request, address)
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)


def _from_here(request: Request, address: str) -> Response:
    """A browser that follows a link of another site sends no cookie. From this page it does."""
    text = TEMPLATES.get_template("again.html").render(there=place_of(request, "again=1"), address=address)
    return HTMLResponse(text, headers=HEADERS)
