"""Sign in with a token of the API, and sign out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from sterna.api import forms
from sterna.api.access import AccessRules, needs
from sterna.api.dependencies import Served
from sterna.api.sessions import COOKIE, cookie_of, new_cookie
from sterna.api.web.forms import Fields, Form, read
from sterna.api.web.pages import page, place, sessions_of
from sterna.domain.access import Action, Actor, may
from sterna.domain.errors import Unauthenticated
from sterna.domain.tokens import id_of
from sterna.kit.digests import digest_of

log = structlog.get_logger(__name__)
router = APIRouter(include_in_schema=False)

NO_COOKIE = (
    "The browser has not kept the cookie of this page. It keeps one only from an encrypted connection (https), or "
    "from localhost. See that cookies are allowed, and that the controller has a certificate."
)
TOO_OLD = "The form was too old. Try again."
NOT_FOR_PAGES = "This token may only report Neutron's events. It shows no pages."


def set_cookie(answer: Response, value: str) -> None:
    """For this host only, and for requests that come from its own pages."""
    answer.set_cookie(COOKIE, value, path="/", secure=True, httponly=True, samesite="strict")


def _form(request: Request, to: str, status: HTTPStatus = HTTPStatus.OK, wrong: str = "") -> HTMLResponse:
    cookie = cookie_of(request.scope) or new_cookie()
    token = sessions_of(request).form_token(cookie)
    answer = page(request, "sign_in.html", status, to=to, wrong=wrong, sign_in_token=token)
    if status is HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="sterna"'
    set_cookie(answer, cookie)
    return answer


@router.get("/sign-in", dependencies=[needs(Action.SIGN_IN)])
async def sign_in_form(request: Request, to: Annotated[str, Query(max_length=2048)] = "/") -> Response:
    """A form, or the page that was asked for where the browser has a session already."""
    if request.scope["state"]["session"]:
        return RedirectResponse(place(to), HTTPStatus.SEE_OTHER)
    return _form(request, place(to))


@router.post("/sign-in", dependencies=[needs(Action.SIGN_IN)])
async def sign_in(request: Request, fields: Annotated[Fields, Depends(read)], controller: Served) -> Response:
    """A token becomes a session, with a new cookie."""
    to, cookie, sessions = place(fields.text("to", "/")), cookie_of(request.scope), sessions_of(request)
    if not cookie:
        return _form(request, to, HTTPStatus.BAD_REQUEST, NO_COOKIE)
    if not sessions.is_form_token(fields.text(forms.FORM_TOKEN), cookie):
        return _form(request, to, HTTPStatus.FORBIDDEN, TOO_OLD)
    token, rules = fields.text(forms.TOKEN), request.app.state.rules
    try:
        actor = await _holder(controller, token, rules)
    except Unauthenticated as error:
        log.info("a sign-in was refused", origin=request.scope["state"]["origin"], why=error.message)
        return _form(request, to, HTTPStatus.UNAUTHORIZED, f"{error.message}. {error.fix}")
    if not may(actor.role, Action.READ):
        return _form(request, to, HTTPStatus.FORBIDDEN, NOT_FOR_PAGES)
    await _logged(request, controller, actor)
    sessions.end(cookie)
    answer = RedirectResponse(to, HTTPStatus.SEE_OTHER)
    set_cookie(answer, sessions.begin(id_of(token) or "", digest_of(token)))
    return answer


async def _holder(controller: Served, token: str, rules: AccessRules) -> Actor:
    return await controller.users.holder(token, rules.tokens)


async def _logged(request: Request, controller: Served, actor: Actor) -> None:
    """Before it is done; failed attempts are not in that log, since it only grows."""
    state = request.scope["state"]
    await controller.users.asked(state["request_id"], actor, state["origin"], (Action.SIGN_IN, "", {}))
    state["logged"] = True


@router.post("/sign-out", dependencies=[needs(Action.SIGN_OUT)])
async def sign_out(request: Request, _fields: Form) -> Response:
    """The session ends, here and in the browser."""
    sessions_of(request).end(request.scope["state"]["session"])
    answer = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return answer
