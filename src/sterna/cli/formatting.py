"""Formats the API's documents for people: tables, reports and audits."""

from __future__ import annotations

from typing import Any

from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Column, Table

from sterna.cli.client import Json
from sterna.cli.console import PlainConsole, clean, safe, text_of
from sterna.domain.amounts import UNKNOWN, ms, size
from sterna.domain.plain_text import printable

out = PlainConsole()
LEAST_TEXT = 24
"""Minimum width of a table's last column. If there is less room, its text is printed below each row. The minimum
grows with the longest word in the column, up to LONGEST_WORD."""
LONGEST_WORD = 40
LEAST_NAME = 7
"""Minimum width of a column with names, which may wrap."""

_COLOURS = {
    "completed": "green",
    "done": "green",
    "undone": "green",
    "arrived": "green",
    "incomplete": "red",
    "refused": "yellow",
    "paused": "yellow",
    "stopped": "yellow",
    "up": "green",
    "running": "green",
    "failed": "red",
    "error": "red",
    "down": "red",
    "degraded": "red",
    "dead": "red",
    "cancelled": "yellow",
    "rolling-back": "yellow",
    "unknown": "yellow",
    "interrupted": "yellow",
    "retrying": "yellow",
}


def with_code(refusal: Json) -> str:
    """A refusal's message and its code: `web1 is paused [vm-paused]`."""
    return f"{refusal['message']} [{refusal['code']}]" if refusal.get("code") else str(refusal["message"])


def error_of(error: Json | None) -> str:
    """The error of a migration, or its refusals with their codes."""
    refusals = (error or {}).get("refusals") or ()
    return "; ".join(with_code(r) for r in refusals) or str((error or {}).get("message", ""))


def coloured(word: str) -> str:
    """A state in its colour, as Rich markup."""
    colour = _COLOURS.get(word)
    return f"[{colour}]{safe(word)}[/]" if colour else safe(word)


def table(*columns: str) -> Table:
    """A plain table. `>` before a column's name aligns it right. `~` lets it wrap on a narrow terminal: for names,
    and for text in the last column."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right, breaks = column.startswith(">"), column.startswith("~")
        made.add_column(
            column.lstrip(">~"), justify="right" if right else "left", no_wrap=not breaks, overflow="fold"
        )
    return made


def show(made: Table) -> None:
    """Print a table without cutting anything off. On a narrow terminal, text wraps or goes below its row, and names
    wrap. Elsewhere each row is one line."""
    clean(made)  # before it is measured
    needed = _needed(made)
    if not out.is_terminal or needed <= out.width or not any(not c.no_wrap for c in made.columns):
        PlainConsole(width=max(needed, out.width), file=out.file).print(made)
        return
    if not made.columns[-1].no_wrap and made.show_header and _room_for_text(made) < _text_needs(made.columns[-1]):
        _show_text_below(made)
        return
    PlainConsole(width=max(_least(made), out.width), file=out.file).print(made)


def _needed(made: Table) -> int:
    return Measurement.get(out, out.options.update(width=10_000, max_width=10_000), made).maximum


def _width(column: Column) -> int:
    cells = [column.header, *column._cells]
    return max(text_of(cell).cell_len if isinstance(cell, str) else 0 for cell in cells)


def _least(made: Table) -> int:
    """The width of the table if names and text wrap."""
    widths = [_width(c) if c.no_wrap else min(LEAST_NAME, _width(c)) for c in made.columns]
    return sum(widths) + _GAP * (len(widths) - 1)


def _room_for_text(made: Table) -> int:
    return out.width - sum(_width(c) + _GAP for c in made.columns[:-1])


def _text_needs(column: Column) -> int:
    texts = (text_of(c).plain for c in column._cells if isinstance(c, str))
    return max([LEAST_TEXT, *(n for text in texts for word in text.split() if (n := len(word)) <= LONGEST_WORD)])


def _show_text_below(made: Table) -> None:
    text = made.columns.pop()
    width = max(_least(made), out.width)
    header, *rows = out.render_lines(made, out.options.update(width=width, max_width=width), pad=False)
    if len(rows) != len(text._cells):  # a name was broken
        made.columns.append(text)
        PlainConsole(width=_needed(made), file=out.file).print(made)
        return
    out.print(Segments([*header, Segment.line()]))
    for row, cell in zip(rows, text._cells, strict=True):
        out.print(Segments([*row, Segment.line()]))
        if cell:
            out.print(f"    {cell}")


_GAP = 2
"""Between two columns."""


def hosts(listed: list[Json]) -> Table:
    """`sterna hosts`."""
    made = table("~HOST", "STATE", "MAINT", ">CPUS", ">FREE", ">MEMORY", "~ADDRESS", "LIBVIRT", "QEMU")
    for h in listed:
        made.add_row(
            safe(h["name"]),
            coloured(h["state"]),
            "yes" if h["maintenance"] else "no",
            UNKNOWN if h["cpus"] is None else str(h["cpus"]),
            size(h["memory_free_bytes"]),
            size(h["memory_total_bytes"]),
            safe(h["address"] or UNKNOWN),
            h["libvirt_version"] or UNKNOWN,
            h["qemu_version"] or UNKNOWN,
        )
    return made


def host_notes(listed: list[Json]) -> list[str]:
    """A line for each host that needs attention: why it is down, when it was declared dead, warnings and fixes."""
    lines = []
    for host in listed:
        notes = []
        if host.get("maintenance_reason"):
            notes.append(f"in maintenance: {host['maintenance_reason']}")
        if host.get("declared_dead_at"):
            notes.append(f"declared dead {host['declared_dead_at'][:19]}")
        if host.get("back_at"):
            since = host["back_at"][:19]
            notes.append(f"BACK ONLINE since {since}: run `sterna host declare-alive {host['name']}`")
        if host.get("reason"):
            notes.append(host["reason"])
            if host.get("fix") and host["state"] == "degraded":
                notes.append(f"fix: {host['fix']}")
        if host.get("warning"):
            notes.append(f"WARNING: {host['warning']}")
            if host.get("warning_fix"):
                notes.append(f"fix: {host['warning_fix']}")
        if notes:
            lines.append(printable(f"{host['name']}: {'; '.join(notes)}"))
    return lines


def enrolments(listed: list[Json]) -> Table:
    """`sterna host list`."""
    made = table("~HOST", "STATE", "CERTIFICATE UNTIL", "REMOVED", "~ADDRESSES")
    for h in listed:
        until, removed = h["certificate_until"], h["removed_at"]
        made.add_row(
            safe(h["name"]),
            h["state"],
            until[:10] if until else UNKNOWN,
            removed[:10] if removed else UNKNOWN,
            safe(", ".join(h["addresses"]) or UNKNOWN),
        )
    return made


def enrolment_notes(listed: list[Json]) -> list[str]:
    """Hosts that may still accept a removed host."""
    late = [safe(h["name"]) for h in listed if h.get("knows_revoked") is False]
    why = "does not have the latest list of revoked certificates: see the controller's log"
    return [f"{name} {why}" for name in late]


def death(answer: Json) -> Table:
    """The effect of declaring a host dead, per migration."""
    made = table("MIGRATION", "~VM", "~HOST", "ROLE", "~ACTION")
    for m in answer["migrations"]:
        made.add_row(m["id"][:8], safe(m["vm"]), safe(m["host"]), m["role"], safe(m["will"]))
    return made


def audit(answer: Json) -> list[str]:
    """`sterna audit`, line by line, as Rich markup."""
    lines = []
    for f in answer["leftovers"]:
        done = f" -> {f['done']}" if f["done"] else ""
        colour = {"safe": "yellow", "waiting": "dim"}.get(f["safety"], "red")
        what = safe(f"{f['host']}: {f['kind']} {f['subject']}")
        lines.append(f"[{colour}]{what}[/]: {safe(f['why'] + done)}")
        if f["repair"] and not done:
            may = "--repair would" if f["safety"] == "safe" else "not repaired automatically; to resolve"
            may = "to resolve" if f["safety"] == "waiting" else may
            lines.append(f"    {may}: {safe(f['repair'])}")
    if answer["clean"]:
        lines.append(_clean(answer))
    return [*lines, *_nova(answer)]


def _nova(answer: Json) -> list[str]:
    """The hosts that are also managed by Nova."""
    lines = [
        f"[yellow]{safe(host)}[/]: also managed by Nova; Sterna refuses to migrate Nova's VMs"
        for host in answer.get("nova_hosts", ())
    ]
    if why := answer.get("nova_reason"):
        lines.append(f"cannot tell which hosts are managed by Nova: {safe(why)}")
    return lines


def _clean(answer: Json) -> str:
    """The result of an audit without findings. It only covers the hosts that were asked."""
    if answer.get("hosts_asked", 1) == 0:
        return "no host could be asked: leftovers are unknown"
    where = " on the hosts that were asked" if answer["silent_hosts"] else ""
    return f"no leftovers{where}"


def vms(listed: list[Json]) -> Table:
    """`sterna vms`."""
    made = table("~VM", "~HOST", "STATE", "TASK", ">VCPUS", ">MEMORY", "~UUID")
    for v in listed:
        made.add_row(
            safe(v["name"]),
            safe(v["host"]),
            coloured(v["state"]),
            v["task_state"] or UNKNOWN,
            str(v["vcpus"] if v["vcpus"] is not None else UNKNOWN),
            size(v["memory_bytes"]),
            v["uuid"],
        )
    return made


def migrations(listed: list[Json]) -> Table:
    """`sterna migrations`."""
    made = table("ID", "~VM", "~FROM", "~TO", "STATUS", ">DONE", "CREATED", "~REASON")
    for m in listed:
        made.add_row(
            m["id"][:8],
            safe(m["vm_name"]),
            safe(m["source"]),
            safe(m["destination"]),
            coloured(m["status"]),
            f"{m['progress']['percent']:.0f} %",
            m["created_at"][:19],
            safe(m["reason"]),
        )
    return made


def timeline(items: list[Json]) -> Table:
    """`sterna show ID --timeline`."""
    made = table("~HOST", "ROW", "WHAT", ">DURATION", "RESULT", "~")
    for item in items:
        more = []
        if item["tries"] > 1:
            more.append(f"{item['tries']} tries")
        if item["restarts"]:
            more.append("agent restarted during this step")
        if item["error"]:
            more.append(error_of(item["error"]))
        what = f"status {item['status']}" if item["what"] == "status" else item["label"]
        if item["what"] == "note" or (not item["row"] and item["what"] != "status"):
            what = item["name"].replace("-", " ")
        duration = ms(item["duration_ms"]) if item["what"] == "step" else ""
        result = coloured(item["result"]) if item["what"] == "step" else ""
        remark = safe("; ".join([*more, *([item["reason"]] if item["reason"] else [])]))
        made.add_row(safe(item["host"]), item["row"], safe(what), duration, result, remark)
    return made


def _known(value: str, reason: str) -> str:
    return f"unknown: {reason}" if value == UNKNOWN and reason else value


def _downtime(status: str, report: Json) -> str:
    """'' where the guest stayed: no destination will report one."""
    stayed = status in ("cancelled", "failed") and report["downtime_ms"] is None
    return "" if stayed else _known(ms(report["downtime_ms"]), report["downtime_reason"])


_PARTS = {
    "last_pass_ms": "last pass, guest still running",
    "stop_ms": "stopping the guest on the source",
    "device_state_ms": "sending the rest and the device state",
    "resume_ms": "hand-over and resume",
    "network_ms": "notifying the network",
}


def _downtime_parts(parts: Json) -> list[tuple[str, str]]:
    """The measured parts of the downtime."""
    return [(f"  {words}", ms(parts[name])) for name, words in _PARTS.items() if parts.get(name) is not None]


def _stream(stream: Json | None) -> list[tuple[str, str]]:
    """The parameters of the copy, the reasons for them, and warnings."""
    if stream is None or stream.get("parameters") is None:
        return []
    parameters = stream["parameters"]
    numbers = [f"{name} {value}" for name, value in sorted(parameters["parameters"].items())]
    made_of = ", ".join([parameters["transport"], *(f.lower() for f in parameters["flags"] if f not in _ALWAYS)])
    lines = [("stream", "; ".join([made_of, *numbers]))]
    lines += [("  reason", reason) for reason in stream["reasons"]]
    return lines + [("  warning", warning) for warning in stream["warnings"]]


_ALWAYS = ("LIVE", "PEER2PEER", "TLS", "TUNNELLED")


def report(migration: Json) -> Table:
    """One migration and what it cost."""
    report: dict[str, Any] = migration["report"]
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    rows = [
        ("migration", migration["id"]),
        ("VM", f"{migration['vm_name']} ({migration['vm_uuid']})"),
        ("hosts", f"{migration['source']} -> {migration['destination']}"),
        ("requested by", migration.get("requested_by") or ""),
        ("status", migration["status"]),
        ("reason", migration["reason"]),
        ("error", error_of(migration["error"])),
        ("fix", (migration["error"] or {}).get("fix", "")),
        ("done", f"{migration['progress']['percent']:.0f} % of the estimated work"),
        ("total time", _known(ms(report["total_ms"]), report["total_reason"])),
        ("guest", report.get("guest", "")),
        ("guest downtime", _downtime(migration["status"], report)),
        ("  without transfer of control", ms(report["downtime_net_ms"])),
        *_downtime_parts(report.get("downtime") or {}),
        *_stream(report.get("stream")),
        ("memory sent", size(report["bytes_memory"])),
        ("disks copied, with holes", size(report["bytes_disks"])),
        ("iterations", str(report["iterations"]) if report["iterations"] is not None else UNKNOWN),
    ]
    rows += [(f"  {p['status']}", _known(ms(p["duration_ms"]), p["reason"])) for p in report["phases"]]
    for name, value in rows:
        if value:
            made.add_row(name, coloured(value) if name == "status" else safe(value))
    return made
