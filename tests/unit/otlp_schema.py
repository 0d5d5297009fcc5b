"""The JSON encoding of OTLP's requests with traces, as strict models: a field that is not here, a missing one and a
value of another type or form, are errors.

Written from the definition of the protocol (opentelemetry-proto 1.x: trace.proto, common.proto, and the rules for
JSON in its specification).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _is_id(text: str) -> str:
    assert set(text) != {"0"}
    return text


TraceId = Annotated[str, Field(pattern="^[0-9a-f]{32}$"), AfterValidator(_is_id)]
SpanId = Annotated[str, Field(pattern="^[0-9a-f]{16}$"), AfterValidator(_is_id)]
Nanoseconds = Annotated[str, Field(pattern="^[0-9]{1,19}$")]


class AnyValue(_Message):
    stringValue: str | None = None
    intValue: Annotated[str, Field(pattern="^-?[0-9]+$")] | None = None
    doubleValue: float | None = None

    @model_validator(mode="after")
    def _is_one(self) -> AnyValue:
        assert len(self.model_fields_set) == 1
        return self

    @property
    def plain(self) -> str | int | float | None:
        return int(self.intValue) if self.intValue is not None else self.stringValue or self.doubleValue


class KeyValue(_Message):
    key: str = Field(min_length=1)
    value: AnyValue


class _Attributed(_Message):
    attributes: list[KeyValue]

    @model_validator(mode="after")
    def _is_unique(self) -> _Attributed:
        assert len({one.key for one in self.attributes}) == len(self.attributes)
        return self

    @property
    def told(self) -> dict[str, str | int | float | None]:
        return {one.key: one.value.plain for one in self.attributes}


class Event(_Attributed):
    timeUnixNano: Nanoseconds
    name: str


class SpanStatus(_Message):
    code: Literal[0, 1, 2] = 0
    message: str = ""


class Span(_Attributed):
    traceId: TraceId
    spanId: SpanId
    parentSpanId: SpanId | None = None
    name: str = Field(min_length=1)
    kind: Literal[1, 2, 3, 4, 5]
    startTimeUnixNano: Nanoseconds
    endTimeUnixNano: Nanoseconds
    events: list[Event]
    status: SpanStatus

    @property
    def start_ms(self) -> int:
        return int(self.startTimeUnixNano) // 10**6

    @property
    def end_ms(self) -> int:
        return int(self.endTimeUnixNano) // 10**6


class Scope(_Message):
    name: str
    version: str


class ScopeSpans(_Message):
    scope: Scope
    spans: list[Span]


class Resource(_Attributed):
    pass


class ResourceSpans(_Message):
    resource: Resource
    scopeSpans: list[ScopeSpans]


class Request(_Message):
    """Of `/v1/traces`."""

    resourceSpans: list[ResourceSpans]

    @property
    def spans(self) -> list[Span]:
        return [span for one in self.resourceSpans for scoped in one.scopeSpans for span in scoped.spans]
