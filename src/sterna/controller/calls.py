"""What the controller needs of the bus: to ask agents, and to hear their hints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic import ValidationError

from sterna.domain.errors import BadRequest, Conflict, NotFound, Unknown
from sterna.domain.model import Data
from sterna.ports.bus import BusState, Subscription
from sterna.ports.fleet import MigrationRecord


class AgentCalls(Protocol):
    """Implemented by `rpc.client.RpcClient`, and by a fake in tests."""

    async def call(
        self,
        to: str,
        method: str,
        params: Data,
        *,
        migration_id: str = "",
        epoch: int = 0,
        silence_s: float = 5.0,
        total_s: float | None = 300.0,
    ) -> Data:
        """Ask the agent of host `to`: given up after `silence_s` without a sign of life, after `total_s` at the
        latest.

        Raises Unreachable if it was never delivered, Unknown if the answer was lost, or the agent's own error.
        """

    def bus_state(self) -> BusState:
        """Whether this controller has a connection to the bus, and since when."""

    async def announce(self, topic: str, data: Data) -> None:
        """Send a hint. May be lost; raises nothing."""

    async def listen(self, topic_pattern: str, handler: Callable[[str, Data], Awaitable[None]]) -> Subscription:
        """Call `handler(topic, data)` for each hint; `*` matches one token of the topic."""


@contextmanager
def reading(host: str, method: str) -> Iterator[None]:
    """In here an agent's answer is taken apart. Raises Unknown where it is not what this version understands: what
    was asked for may have been done anyway."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, BadRequest) as error:
        why = f"the answer of {host} to {method} cannot be read: {_words(error)}"
        raise Unknown(why, fix=f"check that this controller is not older than the agent of {host}") from error


def _words(error: Exception) -> str:
    if isinstance(error, BadRequest):
        return error.message
    if not isinstance(error, ValidationError):
        return repr(error)
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


async def ask_source(calls: AgentCalls, record: MigrationRecord, method: str, params: Data) -> Data:
    """Ask the source's agent about a migration that is on record.

    Raises what `AgentCalls.call` raises; Conflict where the agent does not know the migration: it has not accepted
    it yet, or has just ended it.
    """
    source = record.migration.source
    try:
        return await calls.call(source, method, {"id": record.id, **params}, migration_id=record.id)
    except NotFound:
        raise Conflict(
            f"{source} has not accepted migration {record.id} yet, or has just ended it",
            fix="try again in a moment",
        ) from None
