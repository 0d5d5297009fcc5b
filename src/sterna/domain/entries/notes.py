"""Notes: what was seen or sent between steps. One type for each name, or for each family of names.

`under` is the row of the protocol under which it stands. Timelines show `why` and `network` of any note.
"""

from __future__ import annotations

from pydantic import field_serializer

from sterna.domain.copying import CompletedJob, GuestLoad, JobSample
from sterna.domain.definition_changes import DefinitionChanges
from sterna.domain.entries.base import Failure, Note
from sterna.domain.entries.source import Answer
from sterna.domain.fencing import SentWriteOff, WriteOff
from sterna.domain.forecast import Forecast, Link, Load
from sterna.domain.model import Data, Refusal, omitted
from sterna.domain.objective import CopyParameters

# ------------------------------------------------------------ either host


class Waiting(Note):
    """Why it does not go on, in a sentence. A family: `waiting`, `waiting-copy`, ..."""

    entry, family = "waiting", True

    why: str = ""


class PortsSwitched(Note):
    """The network service has made the ports the destination's, at the switch-over."""

    entry = "ports-switched"

    network: str = ""
    """The network service."""


class PeerDeclared(Note):
    """An operator declared the other host dead and fenced; `dead` is False once that host answered again."""

    entry = "peer-declared-dead"

    dead: bool = False
    host: str = omitted("")
    at: str | None = omitted(None)
    """When it was declared."""
    why: str = omitted("")
    """Why it is not dead after all."""


class WroteOffPeer(Note, SentWriteOff):
    """This half acted on the declaration. From here on the other half complies with it, if it comes back."""

    entry = "wrote-off-peer"


class WrittenOffByPeer(Note, WriteOff):
    """This host was declared dead, and the other half has settled the migration."""

    entry = "written-off-by-peer"

    host: str = omitted("")
    """This one."""


# ------------------------------------------------------------ the source, before and while it copies


class Counted(Note):
    """Something that may happen several times."""

    times: int = 0


class AskedDestination(Counted):
    """Tries of P3 that were begun."""

    entry = "asking-destination"


class DestinationNotReached(Counted):
    """Tries of P3 that certainly did not arrive."""

    entry = "destination-not-reached"


class AnswerReceived(Note, Answer):
    """P11 on the source."""

    entry, under = "pre-live-migration-result", "P11"


class Rehearsed(Note):
    """What a rehearsal has tried before its copy."""

    entry, under = "rehearsed", "P12"

    tried: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


class RehearsedCopy(Note):
    """How far a rehearsal's copy came: all it wanted to know."""

    entry, under = "rehearsed-copy", "M3"

    sample: JobSample | None = None


class CopyExpected(Note):
    """What is known right before the copy. What is not known is left out."""

    entry, under = "load", "M3"

    load: GuestLoad | None = omitted(None)
    """As it was measured for this migration."""
    assumed: Load | None = omitted(None)
    """What the forecast is made of, with `link`."""
    link: Link | None = omitted(None)
    forecast: Forecast | None = omitted(None)

    @field_serializer("link")
    def _without_copies(self, link: Link | None) -> Data | None:
        """The copies it was learnt from are long, and in the controller's records."""
        return None if link is None else link.model_dump(mode="json", exclude={"seen"})


class StreamChosen(Note):
    """What the copy's stream is made of, with the reasons."""

    entry, under = "stream", "M3"

    parameters: CopyParameters | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class CopyStarted(Note):
    """libvirt is about to be asked for the copy."""

    entry, under = "copy-started", "M3"

    sent_before: str = omitted("")
    """The stream that its QEMU had sent whole before: of a snapshot, or of an earlier copy."""
    definition: str = omitted("")
    """SHA-256 of the persistent definition, of which the destination is given its own; '' for a transient VM."""
    changes: DefinitionChanges | None = omitted(None)
    """What the destination is given differently; None where libvirt did not say, or of an earlier version."""


class DefinitionEdited(Note):
    """Somebody changed the persistent definition on the source after the copy had begun."""

    entry, under = "definition-edited", "F10"

    text: str = ""
    """The definition as it was when F10 removed it, without secrets."""


class Iteration(Note):
    """A pass over the memory begins."""

    entry, under = "iteration", "M3"

    iteration: int | None = None


class Saw(Note):
    """An event of the hypervisor's. A family, by the event: `saw-suspended-migrated`."""

    entry, under, family = "saw-", "M3", True

    detail: str = ""


class Tuned(Note):
    """A user changed the limit of a running copy. None: there is no limit any more."""

    entry, under = "tuned", "M3"

    bandwidth_bytes_s: int | None = None


class Steered(Note):
    """The last thing done to the copy, and why: a verdict of `domain/convergence.py`."""

    entry, under = "steered", "M3"

    action: str
    why: str = ""
    downtime_ms: int | None = omitted(None)
    throttle_percent: int | None = omitted(None)


class GaveUp(Note):
    """The copy is ended, as its objective cannot be met, or the VM is not what the destination prepared for."""

    entry, under = "gave-up", "M3"

    why: str = ""
    fix: str = omitted("")
    """What to do; '' for more leeway."""


class AbortAsked(Note):
    """An abort was requested; a restarted agent must honour it."""

    entry = "abort-asked"


class AbortRequested(Note):
    """The copy is to be given up."""

    entry, under = "abort-requested", "M4"


class AbortDelivered(Note):
    """libvirt has taken the wish."""

    entry, under = "abort-delivered", "M4"


class LibvirtSaid(Note):
    """How libvirt's call ended, where it did not like the copy."""

    entry, under = "libvirt-said", "M4"

    error: Failure = Failure()


class CopySucceeded(Note):
    """The guest is the destination's, as both hypervisors say."""

    entry, under = "copy-succeeded", "M5"

    why: str = ""
    guest_ended: bool = False
    job: CompletedJob | None = None
    """As the source counted: only here are the disks counted."""


class CopyFailed(Note):
    """The guest stayed, as both hypervisors say."""

    entry, under = "copy-failed", "M6"

    why: str = ""
    libvirt: str = ""
    """libvirt's message."""


# ------------------------------------------------------------ the source, at the switch-over and after it


class SwitchOver(Note):
    """The parts of the guest's downtime on the source, in ms. None: not seen."""

    entry, under = "switch-over", "M4"

    last_pass_ms: float | None = None
    stop_ms: float | None = None
    device_state_ms: float | None = None
    paused_ms: float | None = omitted(None)
    """For how long the guest had been paused when its switch-over began."""


class RunsThere(Note):
    """In post-copy, the guest was seen to run on the destination."""

    entry, under = "runs-on-destination", "M4"


class HeldOldCopy(Note):
    """libvirt let the source's old copy run again; it was paused here, by Sterna."""

    entry, under = "held-old-copy", "M4"

    why: str = ""


class StayedHere(Note):
    """The copy is over, and the source's hypervisor has shown that the guest never left whole: no word of the
    destination's changes that."""

    entry, under = "stayed-here", "M6"


class HandOverLate(Note):
    """The source's paused guest was ended here, as libvirt did not."""

    entry, under = "hand-over-late", "M5"

    why: str = ""


class PostcopyAsked(Note):
    """The switch to post-copy was requested."""

    entry, under = "postcopy-asked", "M4"


class PauseAsked(Note):
    """A user asked that the guest be paused until the rest is copied."""

    entry, under = "pause-asked", "M4"


class JoiningAgain(Note):
    """A broken stream of post-copy is joined again at this address."""

    entry, under = "joining-again", "M4"

    address: str = ""
    tries: int = 0
    uri: str = ""
    """Where the destination waits."""


class NotJoined(Note):
    """It could not be joined there."""

    entry, under = "not-joined", "M4"

    address: str = ""
    tries: int = 0
    error: Failure = Failure()


class ChangedMeanwhile(Note):
    """How the VM differs from P2's snapshot, by changes that are not Sterna's."""

    entry, under = "changed-meanwhile", "R8"

    what: tuple[str, ...] = ()


class DestinationReport(Note):
    """The destination has finished F9 or R7. A family, by the row. What was not sent is not written either."""

    entry, family = "dhost-reports-", True

    row: str = ""
    written_off: SentWriteOff | None = None
    guest_state: str = ""
    """A `GuestState`, at F9."""
    guest_reason: str = ""
    migration: Data = {}
    """As every cast carries it."""
    forgotten: bool = False
    """It does not know the migration any more: what P3 had prepared there is not undone."""

    def to_data(self) -> Data:
        """See Recorded.to_data."""
        return self.model_dump(mode="json", exclude_unset=True)
