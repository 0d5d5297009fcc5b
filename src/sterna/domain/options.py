"""What a migration was asked for with, and what its two hosts agreed on when it was accepted.

It crosses the bus and is in the journal, and other versions read it. So fields are added with a default and never
renamed, and fields that this version does not know are kept.
"""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from sterna.domain.addresses import is_address
from sterna.domain.forecast import Expectations
from sterna.domain.model import Data, Value, omitted
from sterna.domain.objective import Objective

T = TypeVar("T")


def _or_none(raw: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(raw)
    except ValidationError:
        return None


Readable = Annotated[T | None, WrapValidator(_or_none)]
"""None if another version wrote a value that this one cannot read. The migration itself can be read."""


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError(f"{text[:80]!r} is no address")
    return text


Address = Annotated[str, AfterValidator(_address)]


class Requester(Value):
    """The user of a cloud who asked for a migration, by Keystone's ids."""

    user_id: str
    project_id: str


class MigrationOptions(Value):
    """The options of one migration. None: not given, or not readable."""

    model_config = ConfigDict(extra="allow")

    objective: Readable[Objective] = omitted(None)
    """Every request has one: see `wanted`."""
    rehearse: str = omitted("")
    """`prepare`, or `copy`: everything is to be undone again. Any other word is a rehearsal as well."""
    requester: Readable[Requester] = omitted(None)
    """Where a user of a cloud asked for it."""
    expectations: Readable[Expectations] = omitted(None)
    """What the controller expected when it asked for the migration."""
    addresses: tuple[Address, ...] | None = omitted(None)
    """Where the destination may be, as it was enrolled; None where the controller does not know."""
    memory_bytes: int | None = omitted(None)
    """How much of the destination's memory the VM needs. The source adds it on acceptance."""
    network_hosts: tuple[str, str] | None = omitted(None)
    """Both hosts as the network service calls them, '' where that is the host's name. The source adds it, too."""

    @classmethod
    def of_request(cls, raw: object) -> Self:
        """Those that a controller sends. Raises ValueError where they have no valid objective."""
        options = cls.model_validate(raw)
        if options.objective is None:
            Objective.model_validate(raw.get("objective") if isinstance(raw, dict) else None)  # says what is wrong
        return options

    @property
    def wanted(self) -> Objective:
        """The objective. Raises ValueError where there is none that this version can read."""
        if self.objective is None:
            raise ValueError("the migration's objective is missing, or of another version")
        return self.objective

    def expecting(self, expectations: Expectations) -> Self:
        """The same, with what the controller expects."""
        return self.model_copy(update={"expectations": expectations})

    def going_to(self, addresses: tuple[str, ...] | None) -> Self:
        """The same, for a destination with these addresses."""
        return self.model_copy(update={"addresses": addresses})

    def between(self, network_hosts: tuple[str, str]) -> Self:
        """The same, for hosts that the network service calls so."""
        return self.model_copy(update={"network_hosts": network_hosts})

    def agreed(self, *, memory_bytes: int, network_hosts: tuple[str, str]) -> Self:
        """The same, with what the source knows when it accepts the migration."""
        return self.model_copy(update={"memory_bytes": memory_bytes, "network_hosts": network_hosts})

    def to_data(self) -> Data:
        """Plain JSON, for the bus."""
        return self.model_dump(mode="json")
