"""What each transaction about tokens and the audit log does, on a connection. Called by `fleet.py`."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select

from sterna.adapters.sql.fleet_schema import answers, requests, tokens
from sterna.domain.errors import Conflict, NotFound
from sterna.domain.tokens import Token
from sterna.ports.access import Asked, LogPage, LogRecord


def add_token(c: Connection, new: Token) -> None:
    """See ports.access.AccessRecords.add_token."""
    if c.execute(select(tokens.c.id).where(tokens.c.name == new.name)).first() is not None:
        raise Conflict(
            f"there is a token {new.name} already",
            fix=f"choose another name, or remove it first: sterna token remove {new.name}",
        )
    c.execute(insert(tokens).values(id=new.id, name=new.name, document=new.model_dump(mode="json")))


def all_tokens(c: Connection) -> list[Token]:
    """See ports.access.AccessRecords.tokens."""
    found = [Token.model_validate(r.document) for r in c.execute(select(tokens))]
    return sorted(found, key=lambda t: t.name)


def token(c: Connection, id: str) -> Token | None:
    """See ports.access.AccessRecords.token."""
    found = c.execute(select(tokens).where(tokens.c.id == id)).first()
    return Token.model_validate(found.document) if found else None


def remove_token(c: Connection, name: str) -> Token:
    """See ports.access.AccessRecords.remove_token."""
    found = c.execute(select(tokens).where(tokens.c.name == name)).first()
    if found is None:
        raise NotFound(f"there is no token {name}", fix="`sterna token list` lists them")
    c.execute(delete(tokens).where(tokens.c.name == name))
    return Token.model_validate(found.document)


def log_asked(c: Connection, asked: Asked) -> None:
    """See ports.access.AccessRecords.log_asked."""
    columns = {name: getattr(asked, name) for name in ("request", "at", "actor", "action", "target")}
    c.execute(insert(requests).values(**columns, document=asked.model_dump(mode="json")))


def log_answered(c: Connection, request: str, status: int, at: str) -> None:
    """See ports.access.AccessRecords.log_answered."""
    c.execute(insert(answers).values(request=request, status=status, at=at))


def log_page(c: Connection, page: LogPage) -> list[LogRecord]:
    """See ports.access.AccessRecords.log_page."""
    both = requests.outerjoin(answers, answers.c.request == requests.c.request)
    query = select(requests, answers.c.status).select_from(both).order_by(requests.c.number.desc())
    query = query.limit(page.limit)
    for name in ("actor", "action", "target", "request"):
        if wanted := getattr(page, name):
            query = query.where(requests.c[name] == wanted)
    if page.before is not None:
        query = query.where(requests.c.number < page.before)
    if page.since:
        query = query.where(requests.c.at >= page.since)
    return [
        LogRecord(number=r.number, asked=Asked.model_validate(r.document), status=r.status)
        for r in c.execute(query)
    ]
