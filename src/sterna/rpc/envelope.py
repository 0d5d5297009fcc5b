"""The wire form of calls, casts and their replies: JSON, versioned.

Nothing that arrives is trusted: whatever the bytes, decoding ends in a value or in BadRequest.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from sterna.domain.errors import BadRequest, SternaError, from_wire
from sterna.domain.model import Data, Value
from sterna.ports.records import Envelope

PROTOCOL_VERSION = 1
OLDEST_VERSION = max(1, PROTOCOL_VERSION - 1)
"""Versions N and N-1 are accepted, so that a fleet can be upgraded host by host. There was no version 0."""
MAX_MESSAGE_BYTES = 512 * 1024
"""A domain's XML is about 10 KiB, a VM with 30 disks under 50 KiB; half of what nats-server takes by default."""

MAX_HEARTBEAT_BYTES = 1024
"""Ours have 100. Any number of them may come before an answer."""

_MAX_EPOCH = 2**63 - 1
_Name = Annotated[str, Field(min_length=1, max_length=255)]

M = TypeVar("M", bound=BaseModel)


class Request(Value):
    """A call or a cast. Handlers get it as it came."""

    v: int = PROTOCOL_VERSION
    kind: Literal["call", "cast"]
    id: _Name
    """Unique per call; of a cast, the key by which a repeat is recognised."""
    method: _Name
    sender: _Name
    """Host name of the sender."""
    migration_id: str = Field(default="", max_length=255)
    epoch: int = Field(default=0, ge=0, le=_MAX_EPOCH)
    params: Data = {}

    @classmethod
    def build(cls, **fields: Any) -> Request:
        """A request of our own. Raises BadRequest saying which field is wrong."""
        try:
            return cls(**fields)
        except ValidationError as e:
            raise BadRequest(f"the message is malformed: {_what_is_wrong(e)}") from e

    @classmethod
    def of_cast(cls, envelope: Envelope) -> Request:
        """The cast in this envelope. Raises BadRequest saying which field is wrong."""
        return cls.build(kind="cast", **envelope.model_dump(exclude={"to"}))

    def to_envelope(self, to: str) -> Envelope:
        """The inverse of `of_cast`."""
        return Envelope(to=to, **self.model_dump(exclude={"v", "kind"}))


class Reply(Value):
    """One answer to a request: any number of `heartbeat`, then `result`, `error` or (to a cast) `ack`."""

    v: int = PROTOCOL_VERSION
    kind: Literal["heartbeat", "result", "error", "ack"]
    id: str = ""
    """The request's; '' where it could not be read."""
    data: Data = {}
    error: Data = {}
    """An error's wire form, see domain.errors."""

    @classmethod
    def of_error(cls, request_id: str, error: SternaError) -> Reply:
        """The reply that carries `error`."""
        return cls(kind="error", id=request_id, error=error.to_wire())

    def raised(self) -> SternaError:
        """The error it carries."""
        try:
            return from_wire(self.error)
        except (ValueError, TypeError) as e:  # an error whose own fields are nonsense
            return BadRequest(f"an error reply that cannot be read: {e}")


class Event(Value):
    """A hint on `sterna.event.<topic>`."""

    v: int = PROTOCOL_VERSION
    sender: _Name
    data: Data = {}


def encode(message: Request | Reply | Event) -> bytes:
    """Its bytes. Raises BadRequest where it is over the limit or not plain JSON."""
    try:
        payload = message.model_dump_json().encode()
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"the message is not plain JSON: {e}") from e
    _check_size(len(payload))
    return payload


def decode_request(payload: bytes) -> Request:
    """The request in these bytes. Raises BadRequest saying what is wrong with them."""
    return _decode(Request, payload)


def decode_reply(payload: bytes) -> Reply:
    """The reply in these bytes. Raises BadRequest saying what is wrong with them."""
    reply = _decode(Reply, payload)
    if reply.kind == "heartbeat" and (reply.data or reply.error or len(payload) > MAX_HEARTBEAT_BYTES):
        raise BadRequest(f"a heartbeat of {len(payload)} bytes: it carries nothing")
    return reply


def decode_event(payload: bytes) -> Event:
    """The hint in these bytes. Raises BadRequest saying what is wrong with them."""
    return _decode(Event, payload)


def _decode(model: type[M], payload: bytes) -> M:
    _check_size(len(payload))
    try:
        raw = from_json(payload, allow_inf_nan=False)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"the message is not JSON: {e}") from e
    if not isinstance(raw, dict):
        raise BadRequest(f"the message is not a JSON object but a {type(raw).__name__}")
    _check_version(raw.get("v"))
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        raise BadRequest(f"the message is malformed: {_what_is_wrong(e)}") from e


def _what_is_wrong(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, x['loc'])) or 'message'}: {x['msg']}" for x in error.errors(include_input=False)
    )


def _check_size(size: int) -> None:
    if size > MAX_MESSAGE_BYTES:
        raise BadRequest(f"a message of {size} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes")


def _check_version(version: Any) -> None:
    if type(version) is not int:
        raise BadRequest("the message has no protocol version (field `v`)")
    if not OLDEST_VERSION <= version <= PROTOCOL_VERSION:
        raise BadRequest(
            f"the message has protocol version {version}; this host speaks {OLDEST_VERSION} to {PROTOCOL_VERSION}",
            fix="upgrade the older of the two hosts",
        )
