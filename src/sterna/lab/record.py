"""`lab.json`: what has to be remembered of a lab between two commands."""

import hashlib
import os
from pathlib import Path
from secrets import token_urlsafe
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sterna.lab.errors import LabError
from sterna.lab.namespaces import ProcessId


class Process(BaseModel):
    """PID 1 of a set of namespaces; the start time keeps a recycled PID from being taken for it."""

    model_config = ConfigDict(frozen=True)
    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, identity: ProcessId) -> "Process":
        """What is recorded of a process."""
        return cls(pid=identity.pid, started=identity.started, boot=identity.boot)

    @property
    def identity(self) -> ProcessId:
        """The process, to ask whether it lives."""
        return ProcessId(self.pid, self.started, self.boot)


class HostRecord(BaseModel):
    """One host of the lab."""

    name: str
    index: int
    address: str
    init: Process


class DiskRecord(BaseModel):
    """One disk of a guest. `id` is the volume's UUID, the disk's serial."""

    kind: str
    id: str
    device: str


class NicRecord(BaseModel):
    """A further NIC of a guest; `kind` is one of `places.FURTHER_NICS`."""

    kind: str
    mac: str
    address: str
    port_id: str


Pace = Literal["busy", "usual", "calm"]


class GuestRecord(BaseModel):
    """One guest as it was made; where it runs now, only the hypervisors know."""

    name: str
    uuid: str
    mac: str
    address: str
    port_id: str
    memory_mib: int
    dirty_mib_s: int
    disks: list[DiskRecord]
    nics: list[NicRecord] = Field(default_factory=list)
    """Besides the first, which `mac`, `address` and `port_id` are about."""
    pace: Pace = "usual"
    """How often it looks at its clock and its disks: many calm software-emulated guests fit on one machine."""
    wired_by_agent: bool = False
    """Its port is a network service's: the VLAN tag of its tap is an agent's business, not its definition's."""


class LabRecord(BaseModel):
    """The whole lab. `complete` is set when `up` came to its end."""

    version: int = 1
    owner_pid: int | None = None
    outer: Process
    complete: bool = False
    accelerator: str = "tcg"
    hosts: dict[str, HostRecord] = Field(default_factory=dict)
    guests: dict[str, GuestRecord] = Field(default_factory=dict)
    insecure: bool = False
    """Whether nothing that is migrated is encrypted."""
    guests_made: int = 0
    indexes_apart: bool = False
    """Whether `host.part_indexes` was done on all hosts."""
    controller_url: str | None = None
    """Of the first controller."""
    controller_urls: dict[int, str] = Field(default_factory=dict)
    """Of each controller, by its number from 1."""
    controller_ca: str | None = None
    """The file of the CA that the controllers' certificates are of; None where the API has no TLS."""
    controller_token: str | None = None
    """What the controllers know an administrator by."""
    database: str = "sqlite"
    """What the controllers keep their records in: `sqlite` or `postgresql`."""

    def token_settings(self) -> str:
        """The part of a controller's settings by which it knows `controller_token`, which is made here once."""
        self.controller_token = self.controller_token or token_urlsafe(32)
        digest = hashlib.sha256(self.controller_token.encode()).hexdigest()
        return f'[[access.tokens]]\nname = "lab"\nrole = "admin"\nsha256 = "{digest}"\n'

    def processes(self) -> list[Process]:
        """PID 1 of the lab and of each host."""
        return [self.outer, *(host.init for host in self.hosts.values())]

    def save(self, state_dir: Path) -> None:
        """Replaces lab.json in one go."""
        path = state_dir / "lab.json"
        fresh = path.with_suffix(f".{os.getpid()}")
        with open(fresh, "w", opener=_for_its_owner) as file:  # it has the token
            file.write(self.model_dump_json(indent=2))
        os.replace(fresh, path)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def load_record(state_dir: Path) -> LabRecord | None:
    """The record in a state folder; None where there is none. Raises LabError when it cannot be read."""
    path = state_dir / "lab.json"
    try:
        return LabRecord.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as failure:
        raise LabError(f"{path} is unreadable: {failure}") from None
