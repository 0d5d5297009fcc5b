"""`sterna hosts --cpu`: the CPUs of the fleet, side by side."""

from __future__ import annotations

import textwrap

from rich.table import Table

from sterna.cli import formatting
from sterna.cli.client import Json
from sterna.cli.console import safe
from sterna.domain.amounts import UNKNOWN

_SHOWN = 6
"""Hosts that a line names."""


def show(answer: Json) -> None:
    """Print what all have in common, the groups of hosts with equal CPUs, and the pairs that lack features."""
    out = formatting.out
    groups = answer["groups"]
    if groups:
        _show_common(answer)
        out.print()
        formatting.show(_table(groups))
    if len(groups) == 1:
        out.print("\nall of these hosts have equal CPUs", markup=False)
    elif groups:
        _show_pairs(answer)
    for why, hosts in _by_reason(answer["unknown"]).items():
        out.print(f"not known of {_names(hosts)}: {why}", markup=False)


def _by_reason(unknown: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host, why in sorted(unknown.items()):
        found.setdefault(why, []).append(host)
    return found


def _show_common(answer: Json) -> None:
    features, models = answer["common_features"], answer["common_models"]
    _listed(f"common features ({len(features)})", features)
    _listed(f"common CPU models ({len(models)})", models)


def _listed(title: str, words: list[str]) -> None:
    out = formatting.out
    if out.is_terminal:
        out.print(f"{title}:", markup=False)
        for line in textwrap.wrap(", ".join(words) or "none", max(20, out.width - 3)):
            out.print(f"  {line}", markup=False)
    else:
        out.print(f"{title}: {', '.join(words) or 'none'}", markup=False)


def _table(groups: list[Json]) -> Table:
    made = formatting.table(">GROUP", ">HOSTS", "VENDOR", "~MODEL", ">FEATURES", "~NAMES")
    for group in groups:
        made.add_row(
            str(group["number"]),
            str(len(group["hosts"])),
            safe(group["vendor"] or UNKNOWN),
            safe(group["model"]),
            str(len(group["features"])),
            safe(_names(group["hosts"])),
        )
    return made


def _names(hosts: list[str]) -> str:
    more = f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
    return ", ".join(hosts[:_SHOWN]) + more


def _show_pairs(answer: Json) -> None:
    out = formatting.out
    if not answer["pairs"]:
        out.print("\nVMs with host-model or host-passthrough can be migrated between all groups", markup=False)
        return
    out.print("\nVMs with host-model or host-passthrough cannot be migrated:", markup=False)
    for pair in answer["pairs"]:
        reasons = [pair["why"]] if pair["why"] else []
        if pair["missing"]:
            reasons.append(f"missing {', '.join(pair['missing'])}")
        out.print(f"  group {pair['source']} -> group {pair['destination']}: {'; '.join(reasons)}", markup=False)
    if answer["pairs_left_out"]:
        out.print(f"  and {answer['pairs_left_out']} more pairs", markup=False)
