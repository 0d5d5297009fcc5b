"""The secrets of one host's libvirt, and how a value travels to another host's: it is in no message as plain text,
and in no journal, log or error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sterna.domain.model import SecretRef
from sterna.domain.secrets import Secret


class Keyring(Protocol):
    """What disks are opened with. Safe to repeat; raises Unreachable, or Permanent with libvirt's words."""

    async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
        """Those that one of these references names. Reads only."""

    async def secret_value(self, uuid: str) -> bytes:
        """Raises NotFound; Permanent where it is private or has no value."""

    async def make_secret(self, secret: Secret, value: bytes) -> None:
        """Define it, marked as made by Sterna (`made_for`, `made_by`), and give it its value. One that has a value
        here is left as it is. Raises Conflict where it is here without one, not made by Sterna."""

    async def remove_secret(self, uuid: str, vm_uuid: str, migration_id: str | None = None) -> bool:
        """Undefine it if Sterna made it here for this VM (and by this migration, where one is named) and no domain
        here refers to it, running or not. False where it stays, or there is none."""

    async def unused_secrets(self) -> list[Secret]:
        """Those that Sterna made here and that no domain here refers to, running or not. Reads only."""


class Sealing(Protocol):
    """Seals a value for one process on another host. The key pair is this process's own, and ends with it."""

    @property
    def public_key(self) -> str:
        """What others seal with."""

    def seal(self, value: bytes, *, key: str, about: str) -> str:
        """For the process with this public key, and as an answer to `about` alone. Raises BadRequest for no key."""

    def open(self, sealed: str, *, about: str) -> bytes:
        """Raises Temporary where it was sealed for another process (an earlier life of this one), or about
        something else: it must be brought again."""
