"""What libvirt's words about a guest prove, at the moments at which they mislead."""

from __future__ import annotations

import libvirt
import pytest

from sterna.adapters.libvirt.observe import ASLEEP, observe_domain, state_of
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import Verdict, locate

EPOCH = 35
METADATA = f"<migration><epoch>{EPOCH}</epoch></migration>"
INCOMING = libvirt.VIR_ERR_OPERATION_UNSUPPORTED
"""How libvirt answers for the job of a guest that comes in."""


class FakeDomain:
    """A domain that carries this migration's epoch."""

    def __init__(self, state: int, reason: int = 0, *, active: bool = True, job: int | None = None) -> None:
        self._state, self._active, self._job = (state, reason), active, job

    def state(self) -> tuple[int, int]:
        return self._state

    def isActive(self) -> bool:
        return self._active

    def metadata(self, kind: int, uri: str) -> str:
        return METADATA

    def jobStats(self) -> dict[str, int]:
        if self._job is None:
            return {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        error = libvirt.libvirtError("no")
        error.err = (self._job, 0, "no", 0, "", None, None, 0, 0)
        raise error


def seen(domain: FakeDomain, *, seen_running: bool = False) -> Observation:
    found = observe_domain(domain, seen_running=seen_running)
    assert found.epoch == EPOCH
    return found


def at_source(reason: str) -> Observation:
    return Observation(state=GuestState.PAUSED, reason=reason, epoch=EPOCH)


def test_an_incoming_qemu_that_is_ended_has_not_run() -> None:
    """libvirt could not start its vCPUs, and says "being shut down" until the process is gone. The source's guest
    is the only one there is."""
    ending = seen(FakeDomain(libvirt.VIR_DOMAIN_SHUTDOWN, job=INCOMING))
    assert ending.state is GuestState.PAUSED
    assert not ending.ran
    assert locate(at_source("api-error"), ending, epoch=EPOCH, started=True).verdict is Verdict.WAIT


def test_a_guest_that_was_seen_to_run_and_shuts_down_has_run() -> None:
    assert seen(FakeDomain(libvirt.VIR_DOMAIN_SHUTDOWN, job=INCOMING), seen_running=True).ran
    ending = seen(FakeDomain(libvirt.VIR_DOMAIN_SHUTDOWN))
    assert ending.state is GuestState.RUNNING
    assert ending.ran


@pytest.mark.parametrize("reason", [libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP])
def test_how_a_guest_ended_is_not_known_while_libvirt_takes_it_down(reason: int) -> None:
    """Its QEMU is gone, and its last state stands: it is asked again."""
    ending = seen(FakeDomain(libvirt.VIR_DOMAIN_PAUSED, reason, active=False))
    assert ending.state is GuestState.UNKNOWN
    assert "does not say yet how it ended" in ending.reason
    assert not ending.ran
    assert locate(at_source("api-error"), ending, epoch=EPOCH, started=True).verdict is Verdict.WAIT


def test_a_failed_arrival_leaves_the_guest_to_the_source() -> None:
    ended = seen(FakeDomain(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, active=False))
    assert not ended.ran
    assert locate(at_source("api-error"), ended, epoch=EPOCH, started=True).verdict is Verdict.STRANDED


def test_a_crashed_guest_without_a_qemu_is_off() -> None:
    assert seen(FakeDomain(libvirt.VIR_DOMAIN_CRASHED, active=False)).state is GuestState.SHUTOFF


def test_a_guest_that_has_suspended_itself_is_told_from_a_paused_one() -> None:
    assert state_of(FakeDomain(libvirt.VIR_DOMAIN_PMSUSPENDED)) == (GuestState.PAUSED, ASLEEP)
    assert state_of(FakeDomain(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER))[1] != ASLEEP
