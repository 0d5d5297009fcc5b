"""The systemd unit of the process: enabled and started, or the command to run if there is no unit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sterna.setup.actions import Action
from sterna.setup.machine import Units

AGENT, CONTROLLER = "sterna-agent.service", "sterna-controller.service"


def starting(units: Units, name: str, config: Path, *, changed: bool) -> tuple[Action | None, str]:
    """What starts it: None where it runs and nothing has `changed`, and where nothing can start it. Then what to do
    instead is the second; else ''."""
    by_hand = f"sterna {name.partition('.')[0].removeprefix('sterna-')} --config {config}"
    if not units.present():
        return None, f"systemd does not run here: run `{by_hand}` as a service of this machine"
    unit = units.look(name)
    if not unit.there:
        return None, f"there is no {name}: install the package that has it, or run `{by_hand}` as a service"
    if str(config) not in unit.text:
        return None, f"{name} does not read {config}: have it run `{by_hand}`, then systemctl restart {name}"
    words = list(_words(name, enabled=unit.enabled, active=unit.active, changed=changed))
    if not words:
        return None, ""

    def start() -> None:
        if not unit.enabled:
            units.enable(name)
        if changed or not unit.active:
            units.restart(name)

    return Action.of(" and ".join(words), start), ""


def _words(name: str, *, enabled: bool, active: bool, changed: bool) -> Iterable[str]:
    if not enabled:
        yield f"enable {name}"
    if not active:
        yield f"start {name}"
    elif changed:
        yield f"restart {name}"
