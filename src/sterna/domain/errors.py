"""Every error Sterna raises on purpose.

    SternaError                 what went wrong, and what would fix it +-- Temporary               may go away by
    itself: tried again, after `delay_s` where that is known |   +-- StorageSilent       a file system does not
    answer (a dead NFS server) |   +-- Unreachable         the other process did not answer (it does not run, or its
    heartbeats stopped) |       +-- Undelivered     a call that was not received: what it requests was certainly not
    done +-- Permanent               will not go away: before the pivot the migration is compensated |   +--
    NotFound            a VM, host, migration or port that does not exist |   +-- Conflict            held by
    something else: a migration under way, a stale epoch, a name taken |   +-- Refused             a check failed;
    carries every reason at once |   +-- Cancelled           a user aborted |   +-- BadRequest          unknown
    method, wrong version, malformed or oversized payload |   +-- Unauthenticated     the API does not know who asks
    |   +-- Forbidden           the API knows who asks, and that it is not allowed +-- Unknown acted, outcome not
    seen: observe, never guess

`Temporary` and `Permanent` are names of kopf's; `Unknown` is Sterna's own. Errors cross the bus as `to_wire()` and
come back as the same class through `from_wire()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from sterna.domain.model import Refusal

LONGEST_DELAY_S = 300.0
"""A peer or a service that names a longer one is not believed."""


class SternaError(Exception):
    """Base of all deliberate errors. `fix` says what an operator can do about it ('' where nothing helps)."""

    code = "error"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON form: code, message, fix."""
        return {"code": self.code, "message": self.message, "fix": self.fix}

    @classmethod
    def rebuild(cls, wire: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire` for this class."""
        return cls(str(wire.get("message", "")), fix=str(wire.get("fix", "")))


class Temporary(SternaError):
    """May go away by itself. `delay_s`: when to try again, in seconds (`Retry-After`); None where that is not
    known."""

    code = "temporary"

    def __init__(self, message: str, *, fix: str = "", delay_s: float | None = None) -> None:
        super().__init__(message, fix=fix)
        self.delay_s = delay_s

    def to_wire(self) -> dict[str, Any]:
        """Adds `delay_s`, where it is known."""
        return super().to_wire() | ({} if self.delay_s is None else {"delay_s": self.delay_s})

    @classmethod
    def rebuild(cls, wire: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`. A delay that is none is left out."""
        delay = wire.get("delay_s")
        error = cls(str(wire.get("message", "")), fix=str(wire.get("fix", "")))
        if isinstance(delay, int | float) and not isinstance(delay, bool) and 0 <= delay <= LONGEST_DELAY_S:
            error.delay_s = float(delay)
        return error


class StorageSilent(Temporary):
    """A file system does not answer: it may in a while, or never."""

    code = "storage-silent"
    named = False
    """Does the message say on which host?"""

    def on(self, host: str) -> StorageSilent:
        """The same, with the host in its message."""
        if self.named:
            return self
        copy = StorageSilent(f"on {host}, {self.message}", fix=self.fix)
        copy.named = True
        return copy


class Unreachable(Temporary):
    """The other process did not answer."""

    code = "unreachable"


class Undelivered(Unreachable):
    """This call did not arrive, so nothing was done. Never crosses the bus (it keeps its parent's code): who
    answers with an error has received the call.
    """


class Permanent(SternaError):
    """Retrying cannot help."""

    code = "permanent"


class NotFound(Permanent):
    """The thing named does not exist."""

    code = "not-found"


class Conflict(Permanent):
    """It is held by something else, or the message is stale."""

    code = "conflict"


class Cancelled(Permanent):
    """A user asked for the migration to end."""

    code = "cancelled"


class BadRequest(Permanent):
    """The message itself is wrong."""

    code = "bad-request"


class Unauthenticated(Permanent):
    """The user is not known. Raised by the API only; it never crosses the bus."""

    code = "unauthenticated"


class Forbidden(Permanent):
    """The user is known, and is not allowed. Raised by the API only; it never crosses the bus."""

    code = "forbidden"


class Refused(Permanent):
    """One or more checks failed. Carries every reason (invariant 4 of the protocol)."""

    code = "refused"

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(r.message for r in refusals), fix="; ".join(r.fix for r in refusals if r.fix))
        self.refusals = tuple(refusals)

    def to_wire(self) -> dict[str, Any]:
        """Adds the list of refusals."""
        return super().to_wire() | {"refusals": [r.model_dump() for r in self.refusals]}

    @classmethod
    def rebuild(cls, wire: Mapping[str, Any]) -> Self:
        """The inverse of `to_wire`."""
        return cls([Refusal.model_validate(r) for r in wire.get("refusals", ())])


class Unknown(SternaError):
    """The action's outcome was not seen."""

    code = "unknown"


_BY_CODE: dict[str, type[SternaError]] = {
    c.code: c
    for c in (
        Temporary,
        StorageSilent,
        Unreachable,
        Permanent,
        NotFound,
        Conflict,
        Cancelled,
        BadRequest,
        Refused,
        Unknown,
    )
}


def from_wire(wire: Mapping[str, Any]) -> SternaError:
    """The error another process sent; a code not known here becomes `Permanent`."""
    return _BY_CODE.get(str(wire.get("code")), Permanent).rebuild(wire)
