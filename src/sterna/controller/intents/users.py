"""Users of the API: tokens are created, recognised and removed here, and requests are logged."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hmac import compare_digest

import structlog

from sterna.domain.access import HOW_TO_GET_IN, Action, Actor, UserRole
from sterna.domain.errors import BadRequest, SternaError, Unauthenticated
from sterna.domain.model import Value
from sterna.domain.options import Requester
from sterna.domain.tokens import (
    LONGEST_DAYS,
    Token,
    actor_name,
    expiry,
    has_expired,
    id_of,
    written,
)
from sterna.domain.trust.bounds import REFUSALS, REFUSALS_OF_ALL
from sterna.kit.digests import digest_of
from sterna.ports.access import AccessRecords, Asked, LogPage, LogRecord
from sterna.ports.clock import Clock
from sterna.rpc.sender_limits import SenderRates

log = structlog.get_logger(__name__)


class FixedToken(Value):
    """A token of the settings."""

    name: str
    role: UserRole
    digest: str


class Users:
    """Tokens, and the audit log."""

    def __init__(self, records: AccessRecords, clock: Clock) -> None:
        self._records, self._clock = records, clock
        self._refusals, self._all_refusals = SenderRates(clock), SenderRates(clock)

    async def create(self, name: str, role: UserRole, days: int, by: str) -> tuple[Token, str]:
        """The record, and the token itself, which cannot be shown again. Raises Conflict where the name is taken,
        BadRequest for a number of days that is not valid.
        """
        if not 1 <= days <= LONGEST_DAYS:
            raise BadRequest(
                f"a token is valid for 1 to {LONGEST_DAYS} days, not {days}", fix="choose another number"
            )
        now = self._clock.now()
        secret = written(secrets.token_hex(6), secrets.token_urlsafe(32))
        token = Token(
            id=id_of(secret) or "",
            name=name,
            role=role,
            digest=digest_of(secret),
            created_at=now.isoformat(),
            created_by=by,
            expires_at=expiry(now, days).isoformat(),
        )
        await self._records.add_token(token)
        log.info("a token was created", token=name, role=role, expires_at=token.expires_at, by=by)
        return token, secret

    async def tokens(self) -> list[Token]:
        """All of them, by name, those that have expired included."""
        return await self._records.tokens()

    async def remove(self, name: str, by: str) -> Token:
        """It is refused from now on. Raises NotFound."""
        token = await self._records.remove_token(name)
        log.info("a token was removed", token=name, role=token.role, by=by)
        return token

    async def holder(self, secret: str, fixed: Sequence[FixedToken] = ()) -> Actor:
        """The user of this token: one of the records, or one of the settings. Raises Unauthenticated."""
        return await self.holder_by_digest(id_of(secret) or "", digest_of(secret), fixed)

    async def holder_by_digest(self, id: str, digest: str, fixed: Sequence[FixedToken] = ()) -> Actor:
        """The same, by the token's ID ('' for one of the settings) and its SHA-256. Raises Unauthenticated."""
        matching = [one for one in fixed if compare_digest(digest, one.digest)]
        if matching:
            return Actor(name=actor_name(matching[0].name), role=matching[0].role)
        token = await self._records.token(id) if id else None
        if token is None or not compare_digest(digest, token.digest):
            raise Unauthenticated("this token is unknown, or was removed", fix=HOW_TO_GET_IN)
        if has_expired(token, self._clock.now()):
            raise Unauthenticated(
                f"the token {token.name} has expired at {token.expires_at[:19]} UTC", fix=HOW_TO_GET_IN
            )
        return Actor(name=token.actor_name, role=token.role)

    # ------------------------------------------------------------ the audit log

    async def asked(
        self,
        request: str,
        actor: Actor,
        origin: str,
        what: tuple[Action, str, dict[str, object]],
        requester: Requester | None = None,
    ) -> None:
        """Log what is about to be done: an action, what it is about, and the body. Raises Unreachable where that is
        not possible: then it must not be done."""
        action, target, body = what
        await self._records.log_asked(
            Asked(
                at=self._clock.now().isoformat(),
                request=request,
                actor=actor.name,
                role=actor.role,
                origin=origin,
                action=action,
                target=target,
                body=body,
                user_id=requester.user_id if requester else "",
                project_id=requester.project_id if requester else "",
            )
        )

    async def refused(
        self, request: str, actor: Actor, origin: str, what: tuple[Action, str], requester: Requester | None = None
    ) -> bool:
        """Log a request that this user is not allowed, without its body; False where it is not logged, because so
        many were refused lately. Nothing is done for it, and a line stays for a year. Raises Unreachable."""
        action, target = what
        mine = self._refusals.admits(actor.name, REFUSALS)
        if not mine or not self._all_refusals.admits("", REFUSALS_OF_ALL):
            log.info("a refused request is not in the audit log", user=actor.name, origin=origin, action=action)
            return False
        await self.asked(request, actor, origin, (action, target, {}), requester)
        return True

    async def joined(self, request: str, holder: str, origin: str) -> None:
        """Log that a certificate is given to `holder` (`agent:host1`). Raises as `asked`."""
        kind, _, name = holder.partition(":")
        at = self._clock.now().isoformat()
        await self._records.log_asked(
            Asked(at=at, request=request, actor=holder, role=kind, origin=origin, action=Action.JOIN, target=name)
        )

    async def answered(self, request: str, status: int) -> None:
        """Log the answer. The request has been carried out: if it cannot be logged, only the process's log shows
        that."""
        try:
            await self._records.log_answered(request, status, self._clock.now().isoformat())
        except SternaError as error:
            log.error("an answer is missing in the audit log", request=request, status=status, why=error.message)

    async def page(self, page: LogPage) -> list[LogRecord]:
        """Newest first."""
        return await self._records.log_page(page)
