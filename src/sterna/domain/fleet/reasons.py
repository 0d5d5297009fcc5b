"""Why a VM cannot move, and why a move waits: one sentence each that is true of the board it is asked about."""

from __future__ import annotations

from collections.abc import Callable

from sterna.domain.fleet.board import Board
from sterna.domain.fleet.pace import Paces
from sterna.domain.fleet.snapshot import Host, Vm

TRIES = 3
"""Failed migrations of a VM within an operation after which it is shown as what blocks it."""
RETRY_S = 20.0
GIB = 1 << 30
MIB = 1 << 20


def retry_after_s(tries: int) -> float:
    """How long a VM waits after so many failed migrations."""
    return float(RETRY_S * 2 ** max(0, tries - 1))


def immovable(board: Board, v: int, paces: Paces) -> str:
    """Why the VM can be moved to no host whatever room there is; '' where it can."""
    tables, at = board.tables, board.at[v]
    vm, home = tables.vms[v], tables.hosts[at]
    if vm.pinned:
        return f"{vm.name} cannot be migrated: {vm.pinned}"
    why = tables.snapshot.rules.never_move.get(vm.uuid)
    if why is not None:
        return f"a rule keeps {vm.name} on {home.name}{': ' + why if why else ''}"
    if home.unreachable:
        return f"{vm.name} cannot leave {home.name}: {home.unreachable}"
    if vm.tries >= TRIES:
        return f"{vm.name} has failed {vm.tries} times" + (f"; last error: {vm.failed}" if vm.failed else "")
    best = min(paces.stream[at], paces.out[at])
    if not paces.converges(v, best):
        return (
            f"{vm.name} writes {_rate(paces.dirty[v])} of memory, but a copy from {home.name} sends only "
            f"{_rate(best)}: allow throttle, pause or postcopy"
        )
    return ""


def fits_nowhere(board: Board, v: int) -> str:
    """What each other host lacks, counted; and for memory the host that lacks the least."""
    tables = board.tables
    home = board.at[v]
    counts: dict[str, int] = {}
    nearest: tuple[int, str] | None = None
    for h, host in enumerate(tables.hosts):
        if h == home:
            continue
        what = refusal(board, v, h)
        counts[what] = counts.get(what, 0) + 1
        if what == NO_MEMORY:
            lacking = tables.mem[v] - board.mem[h]
            nearest = min(nearest or (lacking, host.name), (lacking, host.name))
    name, others = tables.vms[v].name, len(tables.hosts) - 1
    if not others:
        return f"{name} fits nowhere: there is no other host"
    parts = [f"{count} {what}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    least = f"; {nearest[1]} lacks the least memory, {nearest[0] / GIB:.1f} GiB" if nearest else ""
    return f"{name} fits none of {others} other hosts: {', '.join(parts)}{least}"


CLOSED, UNREACHABLE, NO_MEMORY = "closed", "unreachable", "without enough memory"

Check = Callable[[Board, int, int], str]


def refusal(board: Board, v: int, h: int) -> str:
    """The first reason why the VM cannot run on the host, as the end of 'N hosts ...'; '' if it can."""
    return next((why for check in _CHECKS if (why := check(board, v, h))), "")


def refusals(board: Board, v: int, h: int) -> tuple[str, ...]:
    """Everything that keeps the VM from the host, in the same words."""
    return tuple(why for check in _CHECKS if (why := check(board, v, h)))


def of_one_host(why: str) -> str:
    """The same about a single host, as a sentence: `it does not have enough vCPUs`."""
    if why.startswith("without "):
        return f"it does not have {why.removeprefix('without ')}"
    return why.removeprefix("where ") if why.startswith("where ") else f"it is {why}"


def _closed(board: Board, v: int, h: int) -> str:
    if board.tables.hosts[h].unreachable:
        return UNREACHABLE
    return "" if board.open[h] else CLOSED


def _needs(board: Board, v: int, h: int) -> str:
    vm, host = board.tables.vms[v], board.tables.hosts[h]
    if host.name in vm.avoid:
        return "where the VM failed before"
    return _missing(vm, host)


def _groups(board: Board, v: int, h: int) -> str:
    vm, host = board.tables.vms[v], board.tables.hosts[h]
    forbids = (
        group.name
        for group in board.tables.snapshot.rules.groups
        if vm.uuid in group.vms and (host.name in group.hosts) is group.never
    )
    return next((f"forbidden by the rule {name}" for name in forbids), "")


def _missing(vm: Vm, host: Host) -> str:
    for wanted, offered, what in (
        (vm.cpu, host.cpu, "without the VM's CPU features"),
        (vm.machines, host.machines, "without the VM's machine type"),
        (vm.networks, host.networks, "without the VM's network"),
        (vm.storage, host.storage, "without access to the VM's storage"),
    ):
        if not wanted <= offered:
            return what
    return ""


def _room(board: Board, v: int, h: int) -> str:
    tables = board.tables
    if board.mem[h] < tables.mem[v]:
        return NO_MEMORY
    if board.cpu[h] < tables.cpu[v]:
        return "without enough vCPUs"
    for dimension, amount in tables.rest[v]:
        if board.rest[h][dimension] < amount:
            name = next(name for name, number in tables.dimensions.items() if number == dimension)
            return f"without enough {name}"
    return "" if board.cells.fit(v, h) else "without enough capacity on a NUMA node"


def _rules(board: Board, v: int, h: int) -> str:
    rules = board.conflicts(v, h)
    if rules:
        return f"where the rule {board.tables.apart_rules[rules[0]].name} keeps the VM away"
    mates = {at for mate in board.tables.mates[v] if mate != v for at in board.places[mate] if board.open[at]}
    if not mates or h in mates:
        return ""
    uuid = board.tables.vms[v].uuid
    names = [rule.name for rule in board.tables.snapshot.rules.together if uuid in rule.vms]
    return f"without the VMs that the rule {' or '.join(names)} keeps together with it"


def _reserve(board: Board, v: int, h: int) -> str:
    if board.reserve is None or board.reserve.bears(v, h):
        return ""
    return "where the reserve for failing hosts would be used up"


_CHECKS: tuple[Check, ...] = (_closed, _needs, _groups, _room, _rules, _reserve)


def _rate(bytes_s: float) -> str:
    return f"{bytes_s / MIB:.0f} MiB/s"
