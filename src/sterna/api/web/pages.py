"""What all pages have in common: templates, headers, and what a user is offered."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sterna.api.sessions import Sessions
from sterna.api.web.assets import ADDRESSES
from sterna.domain import amounts
from sterna.domain.access import Action, Actor, may
from sterna.domain.durations import in_words
from sterna.domain.plain_text import printable

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""`no-referrer` would make browsers send `Origin: null` with every form."""


NAVIGATION = (
    ("/", "Fleet", Action.READ, ("/hosts/", "/drains")),
    ("/vms", "VMs", Action.READ, ("/vms/",)),
    ("/migrations", "Migrations", Action.READ, ("/migrations/",)),
    ("/operations", "Operations", Action.READ, ("/operations/", "/rearrangements")),
    ("/queue", "Queue", Action.READ, ()),
    ("/audit", "Audit", Action.AUDIT, ()),
    ("/accuracy", "Accuracy", Action.READ, ()),
    ("/log", "Log", Action.LOG, ()),
)
"""Address, name, who may read it, and how the addresses of pages begin that belong to it."""


def _shown(value: object) -> object:
    """Text from outside without what steers a terminal, or the order of a line. It is escaped after this."""
    return printable(value, breaks=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def _when(at: str | None) -> str | Markup:
    """An instant (ISO 8601 UTC) to the second."""
    if not at:
        return amounts.UNKNOWN
    shown = printable(at[:19].replace("T", " "))
    return Markup('<time datetime="{}">{} UTC</time>').format(printable(at), shown)


def _words(seconds: float | None) -> str:
    return amounts.UNKNOWN if seconds is None else in_words(max(0.0, seconds))


def _plain(value: Any) -> str:
    """What a program has sent, for people: lists and objects with their items."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return amounts.UNKNOWN if value is None else str(value)


def _known(value: str, reason: str) -> str:
    """A value, or why there is none."""
    return f"unknown: {reason}" if value == amounts.UNKNOWN and reason else value


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("sterna.api.web"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "size": amounts.size,
        "rate": amounts.rate,
        "ms": amounts.ms,
        "words": _words,
        "plain": _plain,
        "when": _when,
        "known": _known,
        "segment": lambda text: quote(str(text), safe=""),
    }
    made.globals |= {"static": ADDRESSES, "version": version("sterna"), "navigation": NAVIGATION}
    return made


TEMPLATES = _environment()


def place(text: str) -> str:
    """An address to lead a browser to: a path of this API, whatever a link said."""
    plain = text.isascii() and text.isprintable() and "\\" not in text
    return text if plain and text.startswith("/") and not text.startswith("//") else "/"


def place_of(request: Request, more: str = "") -> str:
    """The address that a browser has asked for, as it was written; `more` for its query."""
    path = bytes(request.scope.get("raw_path") or request.url.path.encode()).partition(b"?")[0].decode("latin-1")
    query = "&".join(part for part in (request.url.query, more) if part)
    return place(f"{path}?{query}" if query else path)


def sessions_of(request: Request) -> Sessions:
    """Those of this process."""
    sessions: Sessions = request.app.state.sessions
    return sessions


def bound_to(request: Request) -> str:
    """What the forms of this request's answer are for: a session, else a user who came in without one."""
    state = request.scope["state"]
    actor: Actor | None = state.get("actor")
    return str(state["session"]) or f"user {actor.name if actor else ''}"


def offered(actor: Actor | None, action: str) -> bool:
    """May the user do it? What one may not do is not offered. Raises ValueError for an action that there is not."""
    return actor is not None and may(actor.role, Action(action))


def context_of(request: Request) -> dict[str, Any]:
    """What every template may use."""
    state = request.scope["state"]
    actor: Actor | None = state.get("actor")
    return {
        "actor": actor,
        "may": lambda action: offered(actor, action),
        "form_token": sessions_of(request).form_token(bound_to(request)),
        "signed_in": bool(state.get("session")),
        "path": request.url.path,
    }


def rendered(request: Request, template: str, /, **values: Any) -> str:
    """A template as text."""
    return TEMPLATES.get_template(template).render(context_of(request) | values)


def page(request: Request, template: str, code: int = 200, /, **values: Any) -> HTMLResponse:
    """A template as the answer, with this status of HTTP."""
    return HTMLResponse(rendered(request, template, **values), code, headers=HEADERS)
