"""Is this host able to take part in migrations? Looked at for every beacon.

An agent runs on without libvirtd, and with a journal that cannot be written. It then sends what is wrong instead of
looking ready, or looking absent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC

import structlog

from sterna.domain.errors import SternaError
from sterna.domain.hosts import HostFacts
from sterna.domain.trouble import Trouble
from sterna.kit.tasks import both, own_cancellation_only
from sterna.kit.waiting import within
from sterna.migration.context import HostPorts

log = structlog.get_logger(__name__)

FACTS_S = 4.0
"""How long libvirtd may take to describe the host. A silent agent counts as down after five seconds: a libvirtd
that hangs is reported before that."""
LOCKED_LOOKS = 3
"""A journal that another process locks for a moment (a backup) is not a problem; so many failed checks in a row
are."""


async def no_trouble() -> str:
    """For an agent whose journal is not in a folder."""
    return ""


def no_warning() -> Trouble | None:
    """For an agent without a certificate."""
    return None


def writable() -> None:
    """For a journal that can always be written."""


@dataclass(frozen=True)
class JournalChecks:
    """How an agent finds out that its journal cannot be written."""

    state_dir: Callable[[], Awaitable[str]] = no_trouble
    """Returns what is wrong with the journal's folder; '' for nothing."""
    journal: Callable[[], None] = writable
    """Raises SternaError where the journal itself cannot be written now."""


UNCHECKED = JournalChecks()


class Condition:
    """What is wrong with one host, and since when."""

    def __init__(self, host: HostPorts, checks: JournalChecks) -> None:
        self._host, self._checks = host, checks
        self._since: dict[str, str] = {}
        self._unwritable = 0
        self.trouble: Trouble | None = None
        """As of the last look."""
        self.looked = False
        self.described_in_s: float | None = None
        """How long libvirtd took to describe the host at the last look; None where it has not."""

    @property
    def usable(self) -> bool:
        """Can the host take part, as of the last look?"""
        return self.looked and self.trouble is None

    def words(self) -> str:
        """What is wrong, as of the last look; '' for nothing."""
        return self.trouble.why if self.trouble is not None else ""

    async def look(self) -> HostFacts | None:
        """The host as libvirt describes it now, None where it cannot; sets `trouble`. Raises nothing."""
        found = dict[str, tuple[str, str]]()
        facts, why = await both(self._timed(found), self._cannot_write())
        if why:
            fix = "free space for the agent's state_dir, or find out why it cannot be written"
            found["its journal cannot be written"] = why, fix
        self._take(found)
        self.looked = True
        return facts

    async def _timed(self, found: dict[str, tuple[str, str]]) -> HostFacts | None:
        began_ms = self._host.clock.monotonic_ms()
        facts = await self._described(found)
        self.described_in_s = (self._host.clock.monotonic_ms() - began_ms) / 1000 if facts is not None else None
        return facts

    async def _described(self, found: dict[str, tuple[str, str]]) -> HostFacts | None:
        """Whatever keeps it from being described is added to `found`."""
        try:
            with own_cancellation_only():
                return await within(self._host.clock, FACTS_S, self._host.hypervisor.host())
        except TimeoutError:
            fix = (
                "if libvirtd hangs, restart it while no migration from or to this host is running; guests keep "
                "running"
            )
            found["libvirtd cannot be used"] = f"no answer within {FACTS_S:g} s", fix
        except SternaError as error:
            found["libvirtd cannot be used"] = error.message, error.fix or "check that libvirtd runs"
        except Exception as error:
            if "it cannot be described" not in self._since:
                log.exception("this host cannot be described")
            found["it cannot be described"] = str(error), "this is a bug; see the agent's log"
        return None

    async def _cannot_write(self) -> str:
        if why := await self._checks.state_dir():
            return why
        try:
            self._checks.journal()
        except SternaError as error:
            self._unwritable += 1
            return error.message if self._unwritable >= LOCKED_LOOKS else ""
        self._unwritable = 0
        return ""

    def _take(self, found: dict[str, tuple[str, str]]) -> None:
        now = self._host.clock.now().astimezone(UTC).isoformat(timespec="seconds")
        before = self._since
        self._since = {what: before.get(what, now) for what in found}
        self.trouble = None
        if found:
            since = {what: at[:19].replace("T", " ") for what, at in self._since.items()}
            why = "; ".join(f"{what} since {since[what]} UTC: {detail}" for what, (detail, _) in found.items())
            fix = "; ".join(fix for _, fix in found.values())
            self.trouble = Trouble(why=why, fix=fix, since=min(self._since.values()))
        if self._since.keys() == before.keys():
            return
        if self.trouble is None:
            log.info("this host can take part in migrations again", host=self._host.name)
        else:
            log.warning(
                "this host cannot take part in migrations",
                host=self._host.name,
                why=self.trouble.why,
                fix=self.trouble.fix,
            )
