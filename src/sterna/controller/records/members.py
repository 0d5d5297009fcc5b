"""Who takes part: a host is one that was enrolled, where there is a CA that says so."""

from __future__ import annotations

from sterna.domain.errors import NotFound
from sterna.domain.trouble import Trouble
from sterna.domain.trust.enrolment import ADD, EnrolledHost
from sterna.domain.trust.identities import Kind
from sterna.domain.trust.revocation import RevokedList
from sterna.ports.identity import Enrolment

INSECURE = "the bus does not authenticate senders: anyone who can reach it can impersonate any host or controller"


class Members:
    """The hosts of the fleet, as far as this controller can know."""

    def __init__(self, enrolment: Enrolment | None, *, insecure: bool) -> None:
        """`enrolment`: None where this controller has no CA: then the bus alone authenticates senders.
        `insecure`: the bus does not either."""
        self._enrolment, self.insecure = enrolment, insecure

    def against(self, name: str, seen_at: str = "") -> Trouble | None:
        """Why this host takes no part; None where it does, for all that is known. `seen_at`: when it was seen."""
        if self._enrolment is None:
            return None
        found = self._enrolment.known().get(name)
        if found is not None and found.state == "joined":
            return None
        fix = f"{ADD[Kind.AGENT].format(name)}, then join on the host"
        if found is not None and found.removed is not None:
            since = found.removed.isoformat(timespec="seconds")
            return Trouble(why=f"it was removed from the fleet at {since[:19]} UTC", since=since, fix=fix)
        return Trouble(why="it is not enrolled: its messages are ignored", since=seen_at, fix=fix)

    def was_removed(self, name: str) -> bool:
        """Was this host a member? The bus should refuse it."""
        found = self._enrolment.known().get(name) if self._enrolment is not None else None
        return found is not None and found.state == "removed"

    def addresses(self, name: str) -> tuple[str, ...] | None:
        """The addresses with which this host was enrolled; None where they are not known."""
        if self._enrolment is None:
            return None
        found = self._enrolment.known().get(name)
        return found.addresses if found is not None else ()

    def revoked(self) -> RevokedList | None:
        """The list of revoked certificates; None where there is none, or it is not known here."""
        return None if self._enrolment is None else self._enrolment.revoked()

    async def hosts(self) -> list[EnrolledHost]:
        """All that are enrolled, invited or removed, by name. Raises NotFound where nobody here knows, Temporary
        where the CA cannot be asked."""
        if self._enrolment is None:
            raise NotFound(
                "this controller does not know which hosts are enrolled: it has no CA",
                fix="use the controller whose settings have `ca_folder` in [access]; or run `sterna ca show`",
            )
        found = await self._enrolment.hosts()
        return sorted(found.values(), key=lambda host: host.name)
