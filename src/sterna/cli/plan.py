"""`sterna plan`: blockers, warnings and forecasts of a migration."""

from __future__ import annotations

from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.domain import amounts

_MODES = {
    "precopy": "plain pre-copy",
    "throttle": "throttling the guest",
    "postcopy": "with post-copy",
    "pause": "pausing the guest",
}

FAR = 1.25
"""A forecast downtime is shown as a range if its upper limit is more than this factor above the median."""


def show(plan: Json) -> None:
    """Print a plan: blockers first, then load and bandwidth, then a forecast for each mode of the copy."""
    vm, to = plan["vm"], plan["destination"] or "no host"
    head = [f"[bold]{safe(vm['name'])}[/]: {safe(vm['host'])} -> {safe(to)}"]
    if not plan["blockers"]:
        head.append("[green]no blockers[/]")
    for refusal in plan["blockers"]:
        head += _refused("blocked", refusal)
    head += [f"[yellow]warning:[/] {safe(w)}" for w in plan["warnings"]]
    head += [f"[dim]{safe(r)}[/]" for r in plan["reasons"]]
    head += _rehearsal(plan.get("rehearsal"))
    head += [_load(plan), f"bandwidth: {_bandwidth(plan)}"]
    for line in head:
        formatting.out.print(line)
    if plan["forecasts"]:
        formatting.show(_ways(plan["forecasts"]))


def _refused(what: str, refusal: Json) -> list[str]:
    fix = [f"  fix: {safe(refusal['fix'])}"] if refusal["fix"] else []
    return [f"[red]{what}:[/] {safe(formatting.with_code(refusal))}", *fix]


def _rehearsal(rehearsal: Json | None) -> list[str]:
    """The result of the rehearsal."""
    if rehearsal is None:
        return []
    lines = [f"[{'green' if rehearsal['passed'] else 'red'}]rehearsal:[/] {safe(rehearsal['why'])}"]
    for refusal in rehearsal["refusals"]:
        lines += [f"  {line}" for line in _refused("failed", refusal)]
    lines += [f"  [dim]tried: {safe(what)}[/]" for what in rehearsal["tried"]]
    return lines + (
        [f"  [dim]details: sterna show {rehearsal['migration_id']}[/]"] if rehearsal["migration_id"] else []
    )


def _load(plan: Json) -> str:
    load = plan["load"]
    if load is None:
        return f"load: unknown: {safe(plan['load_reason'])}"
    dirtied = amounts.rate(load["dirty_bytes"] / load["dirty_period_s"])
    within = f" within {amounts.size(load['working_set_bytes'])}" if load["working_set_bytes"] else ""
    disks = f", {amounts.size(load['disk_bytes'])} of local disks" if load["disk_bytes"] else ""
    touched = amounts.size(load["allocated_bytes"] or load["memory_bytes"])
    return f"load: {touched} of memory{disks}, {dirtied} dirtied{within}"


def _bandwidth(plan: Json) -> str:
    if plan["bandwidth_bytes_s"] is None:
        return f"unknown: {safe(plan['bandwidth_from'])}; for a forecast, give a limit with --bandwidth"
    return f"{amounts.rate(plan['bandwidth_bytes_s'])} ({plan['bandwidth_from']})"


def _ways(forecasts: list[Json]) -> Table:
    made = formatting.table("COPY", "FINISHES", ">ODDS", ">TIME", ">DOWNTIME", ">SENT", "~")
    for seen in forecasts:
        made.add_row(
            _MODES.get(seen["mode"], seen["mode"]),
            "yes" if seen["ends"] else "no",
            f"{seen['odds'] * 100:.0f} %",
            amounts.ms(seen["total_ms"]),
            _downtime(seen),
            amounts.size(seen["bytes_sent"]),
            safe(seen["why"]),
        )
    return made


def _downtime(seen: Json) -> str:
    """The median, with the range of eight in ten migrations if it is wide."""
    middle, most = seen["downtime_ms"], seen.get("downtime_most_ms")
    if not middle or most is None or most <= middle * FAR:
        return amounts.ms(middle)
    return f"{amounts.ms(middle)} ({seen['downtime_least_ms']:.0f}-{most:.0f})"


def accuracy(seen: Json) -> Table:
    """`sterna accuracy`."""
    made = formatting.table("FORECAST OF", ">COMPARED", ">WITHIN 10 %", ">WITHIN 25 %", ">TYPICAL ERROR")
    for what, name in (("time", "total time"), ("downtime", "downtime"), ("bytes_sent", "bytes sent")):
        measure = seen[what]
        shares = [measure["within_10_percent"], measure["within_25_percent"], measure["median_error"]]
        known = [amounts.UNKNOWN if s is None else f"{s * 100:.0f} %" for s in shares]
        made.add_row(name, str(measure["compared"]), *known)
    return made
