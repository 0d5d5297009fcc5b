"""Intents and outcomes of the destination's steps, in the order of the flow."""

from __future__ import annotations

from sterna.domain.copying import CompletedJob
from sterna.domain.entries.base import Outcome, Plan
from sterna.domain.files import Created
from sterna.domain.model import Data, Disk, Nic, Value, omitted


class VolumesToAttach(Plan):
    """P4."""

    entry = "attach-volumes"

    disks: tuple[Disk, ...] = ()


class VolumesAttached(Outcome):
    """P4: as this host reaches them."""

    entry = "attach-volumes"

    disks: tuple[Disk, ...]


class NetworkInfo(Outcome):
    """P5: the NICs as this host must plug them."""

    entry = "read-network-info"

    nics: tuple[Nic, ...]
    network: str = omitted("")
    """The network service that was asked, here and in other outcomes."""


class DriverPrepared(Outcome):
    """P6: listen addresses that only the source has -> this host's in their place."""

    entry = "driver-pre-live-migration"

    listens: dict[str, str] = {}


class ImageRead(Outcome):
    """P7: the image's metadata, as the image has it."""

    entry = "read-image-metadata"

    image: Data = {}


class TargetsToMake(Plan, Created):
    """P8: exactly what will be made; only this will be removed again."""

    entry = "create-instance-directory"

    absent: tuple[str, ...] = ()
    """Files of the firmware's state that are not here: libvirt makes them with the guest."""


class TargetsMade(Outcome, Created):
    """P8: what was made, and by which identities R7 knows it again."""

    entry = "create-instance-directory"

    absent: tuple[str, ...] = ()
    identities: dict[str, str | None] = {}


class DevicesToClaim(Plan):
    """P8: the NICs, each with the device of this host that it gets. The intent is the claim."""

    entry = "claim-devices"

    nics: tuple[Nic, ...]


class DevicesClaimed(Outcome):
    """P8: the same, once nobody was there before."""

    entry = "claim-devices"

    nics: tuple[Nic, ...]


class SecretsMade(Outcome):
    """P9: UUIDs. None where the VM's disks refer to no secrets."""

    entry = "make-secrets"

    made: tuple[str, ...] | None = omitted(None)
    found: tuple[str, ...] | None = omitted(None)
    """Keys of those that were here."""


class VolumesToConnect(Plan):
    """P9: those that P4 attached."""

    entry = "connect-volumes"


class VolumesConnected(Outcome):
    """P9."""

    entry = "connect-volumes"

    disks: tuple[Disk, ...]


class Tap(Value):
    """A tap that is made ahead of the guest."""

    device: str
    nic: Nic


class TapsToMake(Plan):
    """P10: the taps about to be made."""

    entry = "plug-vifs"

    taps: tuple[Tap, ...] = ()


class VifsPlugged(Outcome):
    """P10: the NICs as they are plugged here."""

    entry = "plug-vifs"

    nics: tuple[Nic, ...]


# ------------------------------------------------------------ phase 3


class NetworkInfoAfter(Outcome):
    """F6: the NICs that must be plugged now."""

    entry = "read-network-info-after"

    nics: tuple[Nic, ...] = ()


class BindingsActivated(Outcome):
    """F7."""

    entry = "activate-bindings"

    network: str = omitted("")


class VmUpdated(Outcome):
    """F8: this host's hypervisor's view of the guest, and the finished job's statistics."""

    entry = "update-vm"

    host: str = ""
    power_state: str = ""
    """A `GuestState`; a newer version may know another one."""
    power_reason: str | None = None
    """libvirt's; None in a journal of an agent that did not say."""
    task_state: None = None
    job: CompletedJob | None = None


class ResourcesUpdated(Outcome):
    """F9."""

    entry = "update-resources"

    memory_free_bytes: int | None = None


# ------------------------------------------------------------ the rollback


class SecretsRemoved(Outcome):
    """R5: UUIDs. None where the VM's disks refer to no secrets."""

    entry = "remove-secrets"

    removed: tuple[str, ...] | None = omitted(None)


class BindingsWithdrawn(Outcome):
    """R6."""

    entry = "withdraw-bindings"

    network: str = omitted("")


class TargetsRemoved(Outcome):
    """R7: what became of P8's files. None where P8 never began."""

    entry = "remove-instance-directory"

    removed: tuple[str, ...] | None = omitted(None)
    kept: dict[str, str] | None = omitted(None)
    """Path -> why it was left alone."""
