"""Notes of the destination. Those that either host writes are in `notes.py`."""

from __future__ import annotations

from sterna.domain.entries.base import Note
from sterna.domain.entries.source import Answer
from sterna.domain.fencing import WriteOff
from sterna.domain.model import Vm


class IncomingVm(Note):
    """The VM as its source described it at P3."""

    entry, under = "incoming-vm", "P3"

    vm: Vm


class TargetsReserved(Note):
    """P8: the files that were made, still empty, by the identities by which R7 knows them again."""

    entry, under = "targets-reserved", "P8"

    identities: dict[str, str] = {}


class AnswerGiven(Note, Answer):
    """P11 on the destination."""

    entry, under = "return-result", "P11"


class PortReported(Note):
    """Another service's report of a port. A family, by the report's name, whatever it is, and the port."""

    entry, under, family = "", "P12", True

    name: str = ""
    vm: str = ""
    port: str = ""
    status: str = ""


class AutostartAtSource(Note):
    """Whether the source started the VM by itself, until Sterna took that over."""

    entry = "autostart-at-source"

    on: bool = False


class RanHere(Note):
    """The guest's vCPUs ran here."""

    entry, under = "guest-ran-here", "M4"


class NeverRan(Note):
    """The QEMU that waited for the guest ended, and the guest had not run in it."""

    entry, under = "guest-ended-before-it-ran", "M4"


class Arrival(Note):
    """The parts of the guest's downtime on the destination, in ms. None: not seen."""

    entry, under = "arrival", "M4"

    resume_ms: float | None = None
    network_ms: float | None = None


class ListeningAgain(Note):
    """Where this host waits for the rest of the guest."""

    entry, under = "listening-again", "M4"

    uri: str = ""


class GuestLost(Note):
    """The rest of its memory is gone: the guest can never run on."""

    entry, under = "guest-lost-in-postcopy", "M4"


class EndedIncoming(Note):
    """R0: whether a guest that waited for its memory was ended."""

    entry, under = "ended-incoming", "R0"

    ended: bool = False


class Abandoned(Note, WriteOff):
    """This half ends without being carried out: the host was declared dead with the guest on it."""

    entry = "abandoned"
