"""`sterna --help` with its commands in sections, those used together next to each other."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

SECTIONS: dict[str, tuple[str, ...]] = {
    "Migrate a VM": ("plan", "place", "migrate", "tune", "post-copy", "abort", "show", "migrations", "queue"),
    "Many VMs": ("drain", "rolling", "bring-back", "rebalance", "operation", "operations"),
    "Hosts and VMs": ("hosts", "host", "vms", "vm", "rules"),
    "Checks and records": ("doctor", "audit", "accuracy", "log", "version", "support-bundle"),
    "Installation": ("setup", "agent", "controller", "bus", "ca", "token", "notify", "lab"),
}
_OTHERS = "Commands"
_WHOLE = 500
"""Characters of a summary: none is cut."""


class Sections(TyperGroup):
    """A group of commands that lists them by section. Those without one are listed last, under `Commands`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, each command with the first sentence of its help.

        Typer does not export the types of these arguments.
        """
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        listed = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in shown if name not in listed)
        for title, names in {**SECTIONS, _OTHERS: others}.items():
            rows = [(name, shown[name].get_short_help_str(_WHOLE)) for name in names if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
