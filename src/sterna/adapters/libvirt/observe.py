"""What libvirt says of one guest at one moment, as an `Observation`. Blocking; called in a connection's thread.

Evidence for `ran` ("this guest's vCPUs have run on this host"), strongest first:

- state RUNNING: yes. An incoming guest is PAUSED until libvirt's Finish phase starts its CPUs, and in
  post-copy RUNNING means that they run here.
- this process saw it run (a RESUMED event, or running when libvirtd was connected to): yes.
- PAUSED while libvirt's own job for it is an incoming migration: no (reason `incoming`).
- "being shut down" while that job lasts: as if it were PAUSED. libvirt says so of any QEMU that has been asked to
  end, also of one whose vCPUs it never started.
- PAUSED for any reason a guest only gets into by running (user, I/O error, post-copy, an outgoing copy): yes.
- PAUSED "for migration" without any job (libvirtd was restarted): yes if its vCPU threads have used CPU time.
- SHUTOFF with Sterna's epoch in its definition: yes, unless its start failed. The source's was marked while
  it ran; on the destination libvirt writes the definition in Finish only. Where this is wrong it is wrong to
  the safe side: the other copy is not started.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import libvirt

from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml.metadata import NAMESPACE, parse_xml, read_epoch
from sterna.domain.model import GuestState, Observation

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: GuestState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTDOWN: GuestState.RUNNING,  # it is being shut down: QEMU is there, CPUs may run
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.PAUSED,  # on_crash=preserve keeps its QEMU; without one see below
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.SHUTOFF,
}
_REASONS = {
    state: {
        getattr(libvirt, name): name.removeprefix(prefix).lower().replace("_", "-")
        for name in dir(libvirt)
        if name.startswith(prefix)
    }
    for state, prefix in (
        (libvirt.VIR_DOMAIN_RUNNING, "VIR_DOMAIN_RUNNING_"),
        (libvirt.VIR_DOMAIN_PAUSED, "VIR_DOMAIN_PAUSED_"),
        (libvirt.VIR_DOMAIN_SHUTOFF, "VIR_DOMAIN_SHUTOFF_"),
        (libvirt.VIR_DOMAIN_CRASHED, "VIR_DOMAIN_CRASHED_"),
    )
}
ENDING = "shutting-down"
"""The reason of a guest whose QEMU has been asked to end."""
ASLEEP = "pmsuspended"
"""The reason of a guest that has suspended itself to memory."""
_BARE_REASONS = {
    libvirt.VIR_DOMAIN_SHUTDOWN: ENDING,
    libvirt.VIR_DOMAIN_PMSUSPENDED: ASLEEP,
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_BLOCKED: "blocked",
}


class Job(NamedTuple):
    """Whether a migration job of this guest runs in this libvirt, and in which direction."""

    active: bool
    incoming: bool


NO_JOB = Job(active=False, incoming=False)


def state_of(domain: Any) -> tuple[GuestState, str]:
    """State and libvirt's reason in words. Raises libvirtError."""
    state, reason = domain.state()
    ours = _STATES.get(state, GuestState.UNKNOWN)
    if ours is GuestState.PAUSED and not domain.isActive():
        # While libvirt takes a guest down, its last state stands, and says nothing of how it ended.
        ours = GuestState.SHUTOFF if state == libvirt.VIR_DOMAIN_CRASHED else GuestState.UNKNOWN
    words = _BARE_REASONS.get(state) or _REASONS.get(state, {}).get(reason, str(reason))
    return ours, words


def epoch_of(domain: Any) -> int | None:
    """Sterna's epoch in the live metadata (inactive where there is no QEMU). Raises libvirtError."""
    try:
        return read_epoch(parse_xml(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise


def job_of(domain: Any) -> Job:
    """The guest's migration job. May block for over a second while libvirt prepares or finishes."""
    try:
        stats = domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            # "migration statistics are available only on the source host": this is how libvirt says that a
            # migration comes in here.
            return Job(active=True, incoming=True)
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            return NO_JOB  # no QEMU (any more)
        raise
    if stats.get("type") in (None, libvirt.VIR_DOMAIN_JOB_NONE):
        return NO_JOB
    operation = stats.get(libvirt.VIR_DOMAIN_JOB_OPERATION)
    incoming = operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
    return Job(active=incoming or operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, incoming=incoming)


def find(conn: Connect, uuid: str) -> Any | None:
    """The domain, None where there is none. Raises libvirtError."""
    try:
        return conn.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def observe(conn: Connect, uuid: str, *, seen_running: bool) -> Observation:
    """State, reason, job, epoch and evidence of one guest now. Raises libvirtError if libvirt cannot be asked."""
    try:
        domain = find(conn, uuid)
        if domain is not None:
            return observe_domain(domain, seen_running=seen_running)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    return Observation(state=GuestState.ABSENT, ran=seen_running)


def observe_domain(domain: Any, *, seen_running: bool) -> Observation:
    """As `observe`, of a domain that was found. Raises libvirtError, VIR_ERR_NO_DOMAIN if it went away."""
    epoch = epoch_of(domain)
    job = job_of(domain) if domain.isActive() else NO_JOB
    # The state last: what is reported of the vCPUs is the newest of the answers.
    state, reason = state_of(domain)
    if state is GuestState.SHUTOFF:
        ran = seen_running or (epoch is not None and reason != "failed")
        return Observation(state=state, reason=reason, epoch=epoch, ran=ran)
    if state is GuestState.RUNNING and reason == ENDING and job.incoming and not seen_running:
        return Observation(state=GuestState.PAUSED, reason=reason, job_active=True, epoch=epoch)
    if state is GuestState.RUNNING:
        return Observation(state=state, reason=reason, job_active=job.active, epoch=epoch, ran=True)
    if state is GuestState.UNKNOWN:
        why = f"libvirt takes the guest down, and does not say yet how it ended (last: paused, {reason})"
        return Observation(state=state, reason=why, job_active=job.active, epoch=epoch, ran=seen_running)
    ran = seen_running or _paused_ran(domain, reason, job)
    if job.incoming and not ran and reason in ("migration", "starting-up"):
        reason = "incoming"
    return Observation(state=state, reason=reason, job_active=job.active, epoch=epoch, ran=ran)


def _paused_ran(domain: Any, reason: str, job: Job) -> bool:
    if job.incoming:
        return reason.startswith("postcopy")
    if job.active:
        return True
    if reason == "starting-up":
        return False
    if reason != "migration":
        return True
    try:
        # A vCPU that waits for its memory has used 0 ns (libvirt counts in ticks of 10 ms).
        return any(vcpu[2] > 0 for vcpu in domain.vcpus()[0])
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return True  # nothing proves that it did not
