"""Intents and outcomes of the source's steps, in the order of the flow."""

from __future__ import annotations

from sterna.domain.copying import DestinationDisk, DestinationNic
from sterna.domain.entries.base import Outcome, Plan
from sterna.domain.files import Created, Removed
from sterna.domain.hosts import HostFacts
from sterna.domain.model import Nic, Observation, Value, Vm, omitted


class Measuring(Outcome):
    """Whether the guest's dirty rate is being measured."""

    entry = "measure-load"

    measured: bool = False
    why: str = omitted("")
    """Why it cannot be."""


class TokensToLeave(Plan):
    """P2: the paths beside which a token is put for a moment."""

    entry = "snapshot-volumes"

    paths: tuple[str, ...] = ()


class Snapshot(Outcome):
    """P2: the VM as it was before anything was done, with every disk's `local` decided."""

    entry = "snapshot-volumes"

    vm: Vm


class BindingsPrepared(Outcome):
    """Before P3."""

    entry = "prepare-bindings"

    network: str = omitted("")
    """The network service that was asked, here and in other outcomes."""


class DestinationAsked(Plan):
    """P3: from here on the destination may have prepared something."""

    entry = "pre-live-migration"


class Answer(Value):
    """P11: where the destination has each disk and NIC of the guest that comes, and where it is reached."""

    disks: tuple[DestinationDisk, ...]
    nics: tuple[DestinationNic, ...]
    listens: dict[str, str] = {}
    """Listen addresses that only the source has -> the destination's in their place."""
    address: str
    addresses: tuple[str, ...] = ()
    """At which a memory stream may arrive; `address` is the first."""
    host: HostFacts | None = omitted(None)
    """What it can do."""


class DestinationAnswer(Outcome, Answer):
    """P11, as it came."""

    entry = "pre-live-migration"


class MediaSent(Outcome):
    """The media that the destination did not have."""

    entry = "send-media"

    sent: dict[str, int] = {}
    """Path -> bytes."""


class PortsWired(Outcome):
    """P12: the destination's answer that its network forwards."""

    entry = "network-vif-plugged"

    wired: tuple[str | None, ...] = ()
    """The taps that were made ahead."""
    by_agent: bool | None = omitted(None)
    """Its network agent has wired them too; None where none was waited for."""
    why: str = omitted("")
    """Why not."""


class StreamProbed(Outcome):
    """A stream reached the destination's port. 0: none was tried."""

    entry = "probe-stream"

    port: int = omitted(0)


class RehearsedOutcome(Outcome):
    """What a rehearsal has tried before its copy."""

    entry = "rehearse"

    tried: tuple[str, ...] = ()


class DevicesToDetach(Plan):
    """The virtual functions that the guest is about to lose."""

    entry = "detach-devices"

    nics: tuple[Nic, ...] = ()


class DisksToCopy(Outcome):
    """M2: the targets of the disks that are copied with the memory."""

    entry = "find-local-disks"

    copied: tuple[str, ...] = ()


class AutostartBefore(Plan):
    """What autostart was when it was about to be switched off."""

    entry = "take-ownership"

    autostart: bool


class Owned(Outcome):
    """The epoch that is in the domain's metadata now."""

    entry = "take-ownership"

    epoch: int


class WayMade(Outcome):
    """The destination's taps that are gone for now; their ports stay."""

    entry = "make-way"

    taps: tuple[str | None, ...] = ()


class Copied(Outcome):
    """M5: the guest is the destination's. The pivot."""

    entry = "copy"

    guest_ended: bool = False
    """It has ended there since."""


class VolumesFound(Outcome):
    """F1: the targets of the volumes to disconnect."""

    entry = "find-volumes-to-disconnect"

    disks: tuple[str, ...]


class _VolumesDetached(Outcome):
    kept: dict[str, str] = omitted({})
    """Target of a disk -> why this host is still admitted to its volume."""

    def words(self, host: str) -> str:
        """For a status; '' where nothing was kept."""
        return "; ".join(
            f"{host} keeps its access to the volume of {disk}: {why}" for disk, why in self.kept.items()
        )


class VolumesDetached(_VolumesDetached):
    """F3."""

    entry = "detach-volumes"

    later: tuple[str, ...] = omitted(())
    """Targets of the disks that were left for `detach-remaining-volumes`: libvirt did not answer."""


class RemainingVolumesDetached(_VolumesDetached):
    """F3, where libvirt did not answer the first time."""

    entry = "detach-remaining-volumes"


class VifsRemoved(Outcome):
    """F4: the devices removed from this host's bridges."""

    entry = "remove-vifs-at-source"

    removed: tuple[str, ...] = ()


class FilesToRemove(Plan, Created):
    """F10: what was local to this host, by its journal."""

    entry = "remove-vm-at-source"


class VmRemoved(Outcome, Removed):
    """F10: what became of the VM's files here."""

    entry = "remove-vm-at-source"

    why: str = omitted("")
    """Why all of it was kept: the definition, too."""
    state: tuple[str, ...] | None = omitted(None)
    """The kinds of firmware's state that are gone from here; None where the definition was kept."""


class SecretsRemovedAtSource(Outcome):
    """F10: UUIDs. None where the VM's disks refer to no secrets."""

    entry = "remove-secrets-at-source"

    removed: tuple[str, ...] | None = omitted(None)


class Released(Outcome):
    """F11."""

    entry = "release-resources"

    memory_free_bytes: int | None = None


# ------------------------------------------------------------ the rollback


class BothAsked(Outcome):
    """R0: the answers of both hypervisors."""

    entry = "ask-both-hypervisors"

    source: Observation
    destination: Observation


class TokensLeft(Outcome):
    """Paths whose file system did not answer: a token may be beside them."""

    entry = "drop-tokens"

    left: tuple[str, ...] = omitted(())


class AutostartRestored(Outcome):
    """What autostart is now."""

    entry = "restore-autostart"

    autostart: bool
    why: str = omitted("")
    """Why it was not set."""


class BindingsGivenBack(Outcome):
    """R6: the ports are the source's again."""

    entry = "give-bindings-back"

    plugged: tuple[str, ...] = ()
    """MACs of the NICs that were put back on their switch."""
    wired: bool | None = omitted(None)
    """The network forwards for them again; None where nothing had been taken."""
    network: str = omitted("")


class DestinationBindingsWithdrawn(Outcome):
    """R6."""

    entry = "withdraw-destination-bindings"

    network: str = omitted("")


class ConnectionsFound(Outcome):
    """R2: the targets of the volumes that the destination may have connected."""

    entry = "find-destination-connections"

    disks: tuple[str, ...] = ()


class ConnectionsRemoved(Outcome):
    """R3."""

    entry = "remove-volume-connection"

    untouched: bool = omitted(False)
    """P3 never reached the destination."""
    removed: bool | None = omitted(None)
    """As the destination says; None where it could not be asked."""
    deferred: str = omitted("")
    """Why it is left to R4."""


class RollbackCast(Outcome):
    """R4."""

    entry = "cast-rollback"

    untouched: bool = omitted(False)
    """P3 never reached the destination: nothing was sent."""


class SourceProven(Outcome):
    """R8: the VM is as it was."""

    entry = "prove-source"


class DowntimeRestored(Outcome):
    """QEMU has its own limit of the downtime again."""

    entry = "restore-max-downtime"

    kept: str = omitted("")
    """Why it has not."""
