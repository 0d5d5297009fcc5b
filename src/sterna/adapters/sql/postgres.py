"""A connection to PostgreSQL that does not wait for ever. Made by `fleet_database.py`.

The kernel acknowledges packets for a server that hangs, so neither keep-alives nor TCP's own limits notice it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

RV = TypeVar("RV")

PATIENCE_S = 12.0
"""For the answer to one statement. The longest is waiting for another writer's turn: 10 s (`lock_timeout`)."""
_WHERE = ("service", "host", "hostaddr", "port", "connect_timeout")


class PatientConnection(psycopg.Connection[Any]):
    """Is closed when the server does not answer within `patience_s`."""

    patience_s: float = PATIENCE_S

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's. Raises OperationalError, also when the patience is over."""
        began, patience_s = time.monotonic(), self.patience_s
        try:
            return super().wait(gen, interval, timeout=patience_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if timeout is not None or time.monotonic() - began < patience_s:
                raise
            self.pgconn.finish()  # whether the statement was done is not known, and its answer must not come later
            raise psycopg.OperationalError(f"no answer within {patience_s:g} s, the server hangs") from error


def takes_connections(named: Mapping[str, Any]) -> bool:
    """Does the server of these connection parameters take any? Not one that cannot be reached or is starting up."""
    where = {name: named[name] for name in _WHERE if name in named}
    return PGconn.ping(make_conninfo(**where).encode()) not in (Ping.NO_RESPONSE, Ping.REJECT)
