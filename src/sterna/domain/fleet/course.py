"""The states of an operation, what an operator may ask of one that runs, and which state follows.

A drain is `running` until each host is empty (`done`), or until what is left cannot be moved (`incomplete`). So is
one that brings VMs back, until all are back; a rebalance is `done` once no move is worth it.
`stopping` and `undoing` end as `stopped` and `undone`.
"""

from __future__ import annotations

from enum import StrEnum

from sterna.domain.errors import Conflict


class OperationKind(StrEnum):
    """Kind of operation on hosts."""

    DRAIN = "drain"
    """They are emptied together, and stay closed."""
    ROLLING = "rolling"
    """Wave by wave they are emptied, something is done to them, and they are opened again."""
    REBALANCE = "rebalance"
    """VMs move from full hosts to emptier ones. No host is closed."""
    BRING_BACK = "bring-back"
    """VMs that drains and rolling operations have moved away from them return. No host is closed."""

    @property
    def empties(self) -> bool:
        """Does it empty its hosts, and close them for that?"""
        return self in (OperationKind.DRAIN, OperationKind.ROLLING)


class OperationStatus(StrEnum):
    """Status of an operation."""

    RUNNING = "running"
    PAUSED = "paused"
    """Nothing more is started. What runs goes on."""
    STOPPING = "stopping"
    """Nothing more is started, and what has not passed its pivot is aborted."""
    UNDOING = "undoing"
    """The same; and what it has moved is brought back."""
    DONE = "done"
    INCOMPLETE = "incomplete"
    """It has moved what can be moved. What is left has a reason."""
    STOPPED = "stopped"
    UNDONE = "undone"

    @property
    def final(self) -> bool:
        """Nothing more happens unless somebody asks for it."""
        return self in FINAL

    @property
    def starts(self) -> bool:
        """Does it start migrations?"""
        return self in (OperationStatus.RUNNING, OperationStatus.UNDOING)

    @property
    def keeps_closed(self) -> bool:
        """Must its hosts take no VMs?"""
        return self in (OperationStatus.RUNNING, OperationStatus.PAUSED)

    @property
    def aborts(self) -> bool:
        """Does it abort the migrations that were to empty its hosts?"""
        return self in (OperationStatus.STOPPING, OperationStatus.UNDOING)


class Order(StrEnum):
    """What an operator asks of an operation."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    UNDO = "undo"


_S = OperationStatus
FINAL = frozenset({_S.DONE, _S.INCOMPLETE, _S.STOPPED, _S.UNDONE})
UNFINISHED = frozenset(OperationStatus) - FINAL

LEADS_TO: dict[tuple[OperationStatus, Order], OperationStatus] = {
    (_S.RUNNING, Order.PAUSE): _S.PAUSED,
    (_S.PAUSED, Order.PAUSE): _S.PAUSED,
    (_S.PAUSED, Order.RESUME): _S.RUNNING,
    (_S.RUNNING, Order.RESUME): _S.RUNNING,
    (_S.STOPPED, Order.RESUME): _S.RUNNING,
    (_S.INCOMPLETE, Order.RESUME): _S.RUNNING,
    (_S.RUNNING, Order.STOP): _S.STOPPING,
    (_S.PAUSED, Order.STOP): _S.STOPPING,
    (_S.UNDOING, Order.STOP): _S.STOPPING,
    (_S.STOPPING, Order.STOP): _S.STOPPING,
    (_S.STOPPED, Order.STOP): _S.STOPPED,
    **{(status, Order.UNDO): _S.UNDOING for status in OperationStatus},
    (_S.UNDONE, Order.UNDO): _S.UNDONE,
}
"""A repeated order changes nothing. What is not here is refused."""

ENDS: dict[OperationStatus, frozenset[OperationStatus]] = {
    _S.RUNNING: frozenset({_S.DONE, _S.INCOMPLETE}),
    _S.STOPPING: frozenset({_S.STOPPED}),
    _S.UNDOING: frozenset({_S.UNDONE}),
}
"""What follows by itself."""


def obeying(status: OperationStatus, order: Order, *, left: bool = False, undo: bool = False) -> OperationStatus:
    """The state after an order. Raises Conflict, which names the order that is possible. `left`: VMs are left.
    `undo`: what was asked for last is to undo it."""
    if status is _S.UNDONE and order is Order.UNDO and left:
        return _S.UNDOING
    if status is _S.STOPPED and order is Order.RESUME and undo:
        raise Conflict(
            "the undo of this operation was stopped, so the operation itself cannot be resumed",
            fix="request the undo again to bring more VMs back; to empty the hosts, start a new drain",
        )
    try:
        return LEADS_TO[status, order]
    except KeyError:
        possible = sorted(other for known, other in LEADS_TO if known is status)
        raise Conflict(
            f"an operation that is {status} cannot be changed with {order}",
            fix=f"possible: {', '.join(possible)}",
        ) from None
