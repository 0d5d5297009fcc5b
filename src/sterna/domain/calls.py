"""The calls between the two agents of a migration: each with its parameters and the type of its answer.

A reader checks them as it checks all that another host sends: their types here, and in `domain/untrusted.py` what
may become part of a URI, a command, a path or XML. Fields are added with a default and never renamed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from pydantic import StrictBool, StrictInt

from sterna.domain.claims import Sight
from sterna.domain.entries.source import Answer, ConnectionsRemoved, PortsWired, WayMade
from sterna.domain.fencing import SentWriteOff
from sterna.domain.journal import Migration
from sterna.domain.model import Data, Observation, Refusal, Value, Vm
from sterna.domain.secrets import Brought, Need

A = TypeVar("A", bound=Value)


class Message(Value):
    """What crosses the bus."""

    def to_wire(self) -> Data:
        """Plain JSON. What was not given is left out."""
        return self.model_dump(mode="json", include=self.model_fields_set)


class Call(Message, Generic[A]):
    """The parameters of a call. `Call[TokenSeen]` is answered with `TokenSeen`."""

    method: ClassVar[str]

    @classmethod
    def answer(cls) -> type[A]:
        """What it is answered with."""
        arguments = (base.__pydantic_generic_metadata__["args"] for base in cls.__mro__ if issubclass(base, Call))
        found: type[A] = next(filter(None, arguments))[0]
        return found


class Taken(Message):
    """It is done, and there is nothing to say."""


# ------------------------------------------------------------ before a migration


class Judgement(Message):
    """A destination's answer about a VM that may come."""

    refusals: tuple[Refusal, ...]
    epoch: Any = 0
    """The newest one of the VM that it has seen: a whole number, or it is not believed."""
    lacking: tuple[str, ...] = ()
    """Keys of the secrets that it lacks."""


class CheckDestination(Call[Judgement]):
    """May this VM come?"""

    method = "check_destination"

    vm: Vm
    may: tuple[str, ...] = ()
    """What may be done to it, by name."""
    definition: str = ""
    """Its definition without devices."""
    needs: tuple[Need, ...] = ()
    cpu: str = ""
    """What its host's CPU is called; '' where that is not compared."""
    network_host: str = ""
    """What the cloud's services call its host; '' for the host's own name."""


class TokenSeen(Message):
    """What a host sees of a token, and of the file beside it."""

    seen: StrictBool = False
    sight: Sight | None = None


class SeesToken(Call[TokenSeen]):
    """Is that storage shared with the sender, and is there a lock on that place of the file?"""

    method = "sees_token"

    path: str
    token: str
    place: StrictInt | None = None


class FileSeen(Message):
    """How a host comes to see a file."""

    seen: StrictBool = False
    """Under its path."""
    users: tuple[str, ...] = ()
    """Domains that name it, under whatever path."""


class SeesFile(Call[FileSeen]):
    """Is that file on storage that the other host sees as well?"""

    method = "sees_file"

    path: str
    token: str
    name: str
    """The file's, without its folder."""
    perhaps: StrictBool = False
    """Also one that does not answer, and may lead there."""


class Digest(Message):
    """A digest of a medium's content; None where there is no such medium."""

    digest: str | None = None


class DigestOf(Call[Digest]):
    """What does its file of that name contain?"""

    method = "digest"

    path: str


class Port(Message):
    """A TCP port, 0 for none."""

    port: StrictInt = 0


class ExpectStream(Call[Port]):
    """Take one connection as QEMU will."""

    method = "expect_stream"

    disks: StrictBool = False
    """Local disks come as well, by a port of their own."""
    begins: StrictBool = False
    """The copy comes next: its ports are promised to no other."""


# ------------------------------------------------------------ phase 1


class SecretsLacking(Message):
    """Which secrets a host lacks, what speaks against bringing them, and the key to seal them with."""

    lacking: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    key: str = ""


class SecretsWanted(Call[SecretsLacking]):
    """Which of these does it lack?"""

    method = "secrets_wanted"

    vm: str
    needs: tuple[Need, ...] = ()


class PreLiveMigration(Call[Answer]):
    """P3."""

    method = "pre_live_migration"

    migration: Migration
    vm: Vm
    secrets: Brought | None = None
    """None where the VM's disks refer to none."""


class TakeMedium(Call[Taken]):
    """A piece of a medium, in base64."""

    method = "take_medium"

    path: str
    offset: StrictInt
    data: str


class WaitVifPlugged(Call[PortsWired]):
    """P12."""

    method = "wait_vif_plugged"


class Tried(Message):
    """What a rehearsal has tried on the destination."""

    tried: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    port: StrictInt = 0
    """Where it expects a handshake, 0 for nowhere."""


class RehearseThere(Call[Tried]):
    """Try what M4 would need."""

    method = "rehearse"

    xml: str = ""
    postcopy: StrictBool = False
    tls: StrictBool = False


# ------------------------------------------------------------ the copy


class MakeWayThere(Call[WayMade]):
    """M4 is next: the taps made ahead go, and their ports stay."""

    method = "make_way"

    autostart: StrictBool = False
    """Whether the source started the VM by itself."""


class GuestObserved(Message):
    """A host's view of a guest."""

    observation: Observation
    written_off: SentWriteOff | None = None
    """What it settled while the asking host was thought dead."""


class ObserveGuest(Call[GuestObserved]):
    """Where is it, as you see it?"""

    method = "observe_guest"

    vm: str


class OpenRecovery(Call[Taken]):
    """Post-copy is about to begin: a broken stream must be one that can be joined again."""

    method = "open_recovery"

    vm: str = ""


class Listening(Message):
    """Where a host waits for the rest of a guest."""

    uri: str = ""


class ListenAgain(Call[Listening]):
    """The stream broke in post-copy: wait for the source's half."""

    method = "listen_again"

    vm: str = ""
    address: str = ""


class Ended(Message):
    """Was there a guest to be ended?"""

    ended: StrictBool = False


class EndLost(Call[Ended]):
    """The rest of its memory is gone, it can never run on."""

    method = "end_lost"

    vm: str = ""


# ------------------------------------------------------------ the rollback, and a host that was declared dead


class EndIncoming(Call[Ended]):
    """R0: end what waits for its memory and never ran."""

    method = "end_incoming"

    vm: str = ""


class RemoveVolumeConnection(Call[ConnectionsRemoved]):
    """R3."""

    method = "remove_volume_connection"


class Ending(Message):
    """How a migration ended on a host: `open`, `unknown`, or the row that closed it."""

    ending: str = ""


class MigrationEnding(Call[Ending]):
    """How did it end there?"""

    method = "migration_ending"


class Fate(Message):
    """What a half settled because the asking host was declared dead."""

    written_off: SentWriteOff | None = None


class MigrationFate(Call[Fate]):
    """Has it been settled without me?"""

    method = "migration_fate"
