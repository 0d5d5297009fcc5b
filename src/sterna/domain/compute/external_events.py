"""Events that services of a cloud report of servers, in the names and codes of Nova. Pure."""

from __future__ import annotations

from sterna.domain.model import Value

SINCE: dict[str, int] = {
    "network-changed": 1,
    "network-vif-plugged": 1,
    "network-vif-unplugged": 1,
    "network-vif-deleted": 1,
    "volume-extended": 51,
    "power-update": 76,
    "accelerator-request-bound": 82,
    "volume-reimaged": 93,
}
"""By name: the minor version of the Compute API that has it first."""
STATUSES = ("completed", "failed", "in-progress")
LONGEST_TAG = 255
_PASSED_ON = frozenset(name for name in SINCE if name.startswith("network-"))
_NEEDS_TAG = frozenset({"volume-extended"})


class ExternalEvent(Value):
    """One report."""

    name: str
    """`network-vif-plugged`, `network-vif-unplugged`, ..."""
    vm: str
    port: str = ""
    """The event's tag; of those that are passed on, a port's ID."""
    status: str = "completed"

    @property
    def passed_on(self) -> bool:
        """Do agents get to know of it? All else would be Sterna's own to do, and it does nothing of it: a guest's
        disk is not resized, no guest is stopped."""
        return self.name in _PASSED_ON


def code_of(event: ExternalEvent, *, known: bool) -> int:
    """As Nova answers it. `known`: there is such a VM."""
    if not known:
        return 404
    if event.name in _NEEDS_TAG and not event.port:
        return 400
    return 200 if event.passed_on else 422


def status_of(code: int) -> str:
    """What is answered beside that code: Cinder must not take an event for done that nobody acts on."""
    return "completed" if code == 200 else "failed"
