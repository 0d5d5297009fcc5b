"""Every page of the scene, by the name of its pictures."""

from __future__ import annotations

from tests.browser.scene import COMPLETED, DONE, DRAIN, FAILED, ROLLING, RUNNING
from tests.unit.controller.fakes import uuid

OF_THE_KEYBOARD = "cache-08"
"""A VM that no other test touches."""
PAGES = {
    "fleet": "/",
    "fleet-none-matches": "/?name=nothing",
    "host": "/hosts/kvm-a01",
    "host-down": "/hosts/kvm-c05",
    "host-degraded": "/hosts/kvm-c04",
    "vms": "/vms",
    "vm": f"/vms/{uuid(700 + 3)}",
    "destinations": f"/vms/{uuid(700 + 3)}/destinations",
    "migrations": "/migrations",
    "migration-running": f"/migrations/{RUNNING}",
    "migration-completed": f"/migrations/{COMPLETED}",
    "migration-failed": f"/migrations/{FAILED}",
    "operations": "/operations",
    "operation-drain": f"/operations/{DRAIN}",
    "operation-rolling": f"/operations/{ROLLING}",
    "operation-done": f"/operations/{DONE}",
    "queue": "/queue",
    "queue-nothing": "/queue?host=nothing",
    "undo": f"/operations/{DRAIN}/undo",
    "audit": "/audit",
    "accuracy": "/accuracy",
    "log": "/log",
    "missing": "/hosts/nowhere",
}
"""Those that an address leads to."""
PLANNED = {"plan": PAGES["vm"], "drain-preview": "/hosts/kvm-b01", "audit-found": "/audit"}
"""What a form on another page leads to."""
