"""The hypervisor of one host, in protocols of a few verbs each: a function takes the protocol of the verbs that it
uses, and so does its test's fake. `Hypervisor` is all of them; one adapter implements it, in parts that are cut as
`Inventory`, `Mover`, `Lifecycle` and `Devices` are.

All methods are safe to repeat. A VM that does not exist raises `NotFound`; a libvirtd that does not answer
raises `Unreachable`; anything libvirt refuses raises `Permanent` with libvirt's own words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from sterna.domain.claims import Claim, VolumeClaim
from sterna.domain.copying import CompletedJob, CopyPlan, GuestLoad, JobSample
from sterna.domain.cpus import HostCpu
from sterna.domain.definition_changes import DefinitionChanges
from sterna.domain.hosts import HostFacts, VmSummary
from sterna.domain.model import Nic, Observation, Refusal, StateFile, Value, Vm
from sterna.ports.secrets import Keyring


class GuestEvent(Value):
    """Something the hypervisor saw happen to a guest, in its order."""

    kind: str
    """`started-incoming`, `suspended-migrated`, `resumed-migrated`, `stopped-migrated`, `stopped`, `crashed`,
    `shutdown`, `iteration`, `job-completed`, `job-failed`, `defined`, `undefined`, `suspended`, `resumed`, and in
    post-copy `suspended-postcopy` (source), `resumed-postcopy` (destination), `postcopy-failed` (either).
    `migration-device` (source) and `migration-completed` (either) are QEMU's own events of its stream."""
    detail: str = ""
    iteration: int | None = None
    at_ms: float | None = None
    """When it was seen, by this host's monotonic clock."""


COPYING = frozenset({"iteration", "job-completed", "job-failed", "migration-device", "migration-completed"})
"""Kinds of events that tell of a copy, and nothing of what guests there are."""


class Host(Protocol):
    """The host itself. Reads only."""

    async def host(self) -> HostFacts:
        """The host's facts; free memory is what the kernel reports as available now."""


class Descriptions(Protocol):
    """What its guests are. Reads only."""

    async def vms(self) -> list[VmSummary]:
        """Every domain libvirt knows, running or not."""

    async def vm(self, name_or_uuid: str) -> Vm:
        """One VM from its LIVE definition (else the inactive one), sizes of its disks included. A path whose file
        system does not answer is marked as such. Raises NotFound.
        """


class Changes(Protocol):
    """What becomes of its guests."""

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Something each time that a guest was started, stopped, paused, defined or forgotten here, from now on.
        The iterator raises Unreachable when the hypervisor was lost."""


class Observations(Protocol):
    """How its guests are. Reads only."""

    async def observe(self, uuid: str) -> Observation:
        """State, reason, job and epoch of one guest, NOW. Absent is an answer, not an error.

        Raises Unreachable if libvirt cannot be asked.
        """


class NamedFiles(Protocol):
    """Files, as its domains name them. Reads only."""

    async def claims(self, besides: str = "") -> tuple[Claim, ...]:
        """Every file that the domains of this host name, running or off, in any of their definitions; but not those
        of the domain `besides`. Raises Unreachable."""

    async def volume_claims(self, besides: str = "") -> tuple[VolumeClaim, ...]:
        """Every volume on the network (a LUN) that the domains of this host name, as `claims` counts them: their
        host has one login for all of them. Raises Unreachable."""

    async def taken_for_local(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Those of these files that the hypervisor takes for this host's own, whatever the hosts see: it would
        refuse to leave them where they are. Raises Temporary where a file system does not answer."""


class Admission(Protocol):
    """What it has against a guest that wants to come. Reads only."""

    async def check_incoming(self, vm: Vm) -> list[Refusal]:
        """What this hypervisor has against running `vm`: name or UUID taken, CPU, machine type, emulator,
        virtualisation type, software-emulated guest on QEMU < 8, and whatever else its definition names on its host
        (`domain/references.py`) that this one does not have. Changes nothing. Raises Unreachable; Temporary where a
        path or a name that it names cannot be looked at now."""


class Readiness(Protocol):
    """What speaks against a copy to or from this host. Reads only."""

    async def check_outgoing(self, uuid: str) -> list[Refusal]:
        """What speaks against a copy of this guest beginning now: jobs on it or on its disks, what its QEMU itself
        cannot migrate, and files that are not at their paths any more. Nothing for one that does not run. Raises
        NotFound, Unreachable."""

    async def check_postcopy(self) -> list[Refusal]:
        """Why no guest could arrive here by post-copy: its QEMU must be allowed to handle page faults."""

    async def check_peer(self, destination_uri: str) -> Refusal | None:
        """Can this host's side dial the other's libvirtd? None where it can."""


class Cpus(Protocol):
    """Whether a guest that sees its host's CPU finds the same elsewhere. Reads only."""

    async def host_cpu(self, vm: Vm) -> str:
        """What a guest that sees this host's CPU as it is sees, for `compare_cpu`; '' for any other guest.

        Raises Unreachable, Permanent."""

    async def own_cpu(self) -> HostCpu | None:
        """What its CPU gives its guests; None where it cannot describe that. Raises Unreachable."""

    async def compare_cpu(self, vm: Vm, cpu: str) -> list[Refusal]:
        """What of `cpu`, another host's `host_cpu`, this host lacks. Raises Unreachable, Permanent."""


class Renderings(Protocol):
    """The definition a guest would have on another host, and that host's reasons against it. Reads only."""

    async def definition_for(self, uuid: str, plan: CopyPlan) -> str:
        """The definition the destination would be given, without secrets. Raises NotFound, Permanent."""

    async def definition_changes(self, uuid: str, plan: CopyPlan) -> DefinitionChanges:
        """Where the definitions that the destination would be given differ from the VM's, without secrets. Raises
        NotFound, Permanent."""

    async def check_definition(self, xml: str) -> list[Refusal]:
        """Does this hypervisor make a QEMU's command line of it, and has it the huge pages? Changes nothing."""

    async def listens_for(self, vm: Vm) -> dict[str, str]:
        """Listen addresses of `vm` that only its source has -> this host's in their place. Raises Temporary where a
        name cannot be looked up now."""


class OwnDefinitions(Protocol):
    """A guest's definition on this host, without secrets. Reads only."""

    async def persistent_definition(self, uuid: str) -> str:
        """The one for the VM's next start; '' for a transient one. Raises NotFound."""

    async def definition_without_devices(self, uuid: str) -> str:
        """The running guest's definition but for disks, NICs and the host's devices: another host can be asked
        about it before anything is prepared there. '' where it does not run.

        Raises NotFound."""


class Load(Protocol):
    """What running guests do to their memory."""

    async def measure_load(self, uuid: str, seconds: int) -> None:
        """Begin to measure what a running guest dirties; does not wait. Not during a copy. Raises as `load`."""

    async def load(self, uuid: str) -> GuestLoad | None:
        """What was measured last; None where nothing has been, or it is not finished yet.

        Raises NotFound, Permanent (not running), Unreachable."""


class Inventory(
    Host,
    Descriptions,
    Changes,
    Observations,
    NamedFiles,
    Admission,
    Readiness,
    Cpus,
    Renderings,
    OwnDefinitions,
    Load,
    Protocol,
):
    """All methods that change nothing."""


class Marking(Protocol):
    """Before a copy: mark whose the guest is, and make sure that only its owner lets it run."""

    async def mark(self, uuid: str, migration_id: str, epoch: int) -> None:
        """Write Sterna's epoch into the domain's metadata, live and persistent. Not possible during a copy."""

    async def interlock(self, uuid: str, epoch: int) -> None:
        """From the hand-over on nothing, libvirt included, can let this host's guest run again until
        `release_interlock` or `resume`. Idempotent; not during a copy.

        Raises NotFound, Conflict on another epoch, Permanent where it has no QEMU or that cannot do it."""


class Copying(Protocol):
    """Copies a running guest to another host (protocol M1-M6), source side."""

    async def migrate(self, uuid: str, plan: CopyPlan) -> None:
        """Run the copy to its end (M4). Returns when libvirt returns; raises Unknown on any libvirt error:
        the return code is not evidence, the caller must observe both hosts."""

    async def sent(self, uuid: str) -> str:
        """The last stream of this guest that its QEMU says it has sent whole, as a mark that differs from stream to
        stream; `in-postcopy` once the vCPUs were sent; '' for none.

        Raises NotFound, Permanent (it has no QEMU), Unreachable."""

    async def sample(self, uuid: str) -> JobSample | None:
        """Statistics of the running copy; None where there is none. May block for over a second."""

    async def abort(self, uuid: str) -> None:
        """Ask libvirt to abort the running copy. No job is not an error."""

    def events(self, uuid: str) -> AbstractAsyncContextManager[AsyncIterator[GuestEvent]]:
        """Events of one guest on this host from now on, without loss while the context is open."""


class Tuning(Protocol):
    """What a copy may take, before it and while it runs."""

    async def set_max_downtime(self, uuid: str, ms: int) -> None:
        """How long the guest may be paused at the switch-over: before a copy, and while it runs.

        QEMU switches over once what is left can be sent within it. Raises NotFound, Permanent, Unreachable."""

    async def set_bandwidth(self, uuid: str, bytes_s: int | None) -> None:
        """The running copy sends no more than this from now on, memory and disks; None: as fast as it goes.

        Raises NotFound, Permanent (no copy runs), Unreachable."""


class PostcopySource(Protocol):
    """The source's half of a copy in post-copy."""

    async def switch_to_postcopy(self, uuid: str) -> None:
        """Let the guest run on the destination now, its memory follow. Only for a copy whose plan permits it.

        Raises Permanent while libvirt cannot (the memory is not being copied yet, or not any more)."""

    async def send_again(self, uuid: str, uri: str) -> None:
        """Source, post-copy with a broken stream: connect to `uri`, where the destination's half listens.

        A stream that only seems whole is given up first. Raises Permanent, Unreachable; whether it worked is
        seen by observing both hosts."""


class Mover(Marking, Copying, Tuning, PostcopySource, Protocol):
    """All that a source does to move a guest."""


class Ending(Protocol):
    """Ends guests. Every caller has asked both hypervisors first (protocol, invariant 1)."""

    async def end_incoming(self, uuid: str, epoch: int) -> bool:
        """R0: end a guest that is waiting for its memory here and never ran. False where there is none.

        Raises Conflict if it runs, ran, or carries another epoch.
        """

    async def end_leftover(self, uuid: str, epoch: int) -> bool:
        """End the source's paused copy, after proof that the guest runs on dhost. False where there is none.

        Raises Conflict if it runs or carries another epoch.
        """

    async def end_spent(self, uuid: str, epoch: int) -> bool:
        """End the source's half of a guest in post-copy, after proof that the guest ran on dhost, if its QEMU has
        given the migration up: it lets the old copy run, or says that the migration has failed. False where there
        is none.

        Raises Conflict where its QEMU may still send, or it carries another epoch."""

    async def end_lost(self, uuid: str, epoch: int) -> bool:
        """End what is left of a guest in post-copy whose other half is permanently gone. False where there is none.

        libvirt may not have noticed: then its QEMU must show that it waits for memory. Raises Conflict if it does
        not, or carries another epoch."""


class Release(Protocol):
    """The source's guest, which is held while a migration decides, and then resumed or kept paused. Callers as in
    `Ending`."""

    async def hold(self, uuid: str, epoch: int) -> None:
        """Stop the vCPUs of the source's old copy, which libvirt let run again though the guest ran on dhost.

        Paused is not an error. Raises NotFound; Conflict on another epoch, or if it has no QEMU."""

    async def resume(self, uuid: str, epoch: int) -> None:
        """Let the source's guest, paused by a failed migration, run on; the interlock goes.

        Raises Conflict on another epoch."""

    async def release_interlock(self, uuid: str, epoch: int) -> None:
        """Take the interlock from a guest that has proven to be this host's. Missing, of either, is not an error.

        Raises Conflict on another epoch or during a copy."""

    async def interlocked(self, uuid: str) -> bool:
        """Is it set? False too where there is no QEMU."""


class Definitions(Protocol):
    """What of a guest outlives its QEMU."""

    async def undefine(self, uuid: str, epoch: int | None, *, remove: tuple[str, ...] = ()) -> bool:
        """F10, R5: forget an INACTIVE domain. False where there is none.

        Its NVRAM, TPM state and managed save stay, but for the kinds in `remove` (`nvram`, `tpm`, `save`): those
        proven to be only this host's. Raises Temporary while a managed save is in the way.

        Raises Conflict if it is active, or carries another epoch (None: any).
        """

    async def remove_state(self, uuid: str, states: tuple[StateFile, ...]) -> dict[str, str]:
        """F10, R7: remove NVRAM and TPM state of a VM that is not defined here, so that `undefine` cannot: a
        transient one, or one that never arrived. Path -> why it stays: it is not in the hypervisor's own folder.

        The caller has proven that it is only this host's. Raises Conflict where the VM is defined here.
        """

    async def set_autostart(self, uuid: str, on: bool) -> None:
        """Set or clear autostart; a transient domain has none and is left alone."""


class PostcopyDestination(Protocol):
    """The destination's half of a copy in post-copy."""

    async def open_recovery(self, uuid: str) -> None:
        """Destination: be able to reach the incoming guest by `listen_again` later on, whatever dies until then.

        Returns once that holds. To be called before its stream can break. Idempotent; does nothing without such a
        guest. Raises Unreachable while it does not hold."""

    async def listen_again(self, uuid: str, epoch: int, address: str) -> str:
        """Destination, post-copy with a broken stream: wait for the source's half on `address`; the URI.

        A stream that only seems whole is given up first. Raises Conflict if no guest of this epoch is in post-copy
        here; Permanent where its QEMU refuses (the address is not this host's)."""

    async def close_recovery(self, uuid: str) -> None:
        """Destination: take away the monitor through which `listen_again` reaches the guest. Idempotent."""


class Arrived(Protocol):
    """The destination, after the copy."""

    async def end_exports(self, uuid: str) -> tuple[str, ...]:
        """Destination, after the copy: what QEMU still offers of the guest's disks over NBD is offered no more. A
        guest that has a job is left alone. The names of the exports that ended; no guest: none.

        Raises Unreachable, Temporary, Permanent.
        """

    async def completed_job(self, uuid: str) -> CompletedJob | None:
        """Statistics of the last finished migration of this guest as this host saw it (destination: downtime)."""


class Lifecycle(Ending, Release, Definitions, PostcopyDestination, Arrived, Protocol):
    """All that ends, starts and forgets guests."""


class Devices(Protocol):
    """Takes NICs from a running guest and gives them to it; its persistent definition stays."""

    async def detach_nic(self, uuid: str, nic: Nic) -> None:
        """Before M1: take the NIC away; not there is not an error. Returns when the guest has released it.

        Raises NotFound without such a running guest, Temporary while it is not released, Permanent.
        """

    async def attach_nic(self, uuid: str, nic: Nic) -> None:
        """F6, and in a rollback: give it the NIC; there already is not an error.

        Raises NotFound without such a running guest, Permanent where the hypervisor refuses."""


class Hypervisor(Inventory, Mover, Lifecycle, Devices, Keyring, Protocol):
    """One host's hypervisor."""
