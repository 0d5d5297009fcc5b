"""A trace in the JSON encoding of OTLP, the protocol of OpenTelemetry (ADR 29). Pure.

As the protocol has it: ids are hexadecimal, times are nanoseconds since 1970 as decimal texts, kinds and status
codes are numbers. Each host is a resource of its own, and so is the migration as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sterna.domain.model import Data
from sterna.domain.one_clock import EARLIEST
from sterna.domain.spans import Attribute, Span, SpanEvent, Trace

_INTERNAL = 1
_ERROR = 2


def otlp_of(trace: Trace, version: str) -> Data:
    """The body of a request to `/v1/traces`. `version`: of Sterna."""
    scope = {"name": "sterna", "version": version}
    hosts = dict.fromkeys(span.host for span in trace.spans)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(_resource(host, version))},
                "scopeSpans": [
                    {"scope": scope, "spans": [_span(trace.id, span) for span in trace.spans if span.host == host]}
                ],
            }
            for host in hosts
        ]
    }


def _resource(host: str, version: str) -> dict[str, Attribute]:
    if not host:
        return {"service.name": "sterna", "service.version": version}
    return {"service.name": "sterna-agent", "service.instance.id": host, "host.name": host}


def _span(trace_id: str, span: Span) -> Data:
    made: Data = {
        "traceId": trace_id,
        "spanId": span.id,
        "name": span.name,
        "kind": _INTERNAL,
        "startTimeUnixNano": _nanoseconds(span.start),
        "endTimeUnixNano": _nanoseconds(span.end),
        "attributes": _attributes(span.attributes),
        "events": [_event(event) for event in span.events],
        "status": {"code": _ERROR, "message": span.error} if span.failed else {},
    }
    return made | ({"parentSpanId": span.parent} if span.parent else {})


def _event(event: SpanEvent) -> Data:
    return {
        "timeUnixNano": _nanoseconds(event.at),
        "name": event.name,
        "attributes": _attributes(event.attributes),
    }


def _attributes(attributes: Mapping[str, Attribute]) -> list[Data]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Attribute) -> Data:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}


def _nanoseconds(at: datetime) -> str:
    return str(max(at - EARLIEST, timedelta()) // timedelta(microseconds=1) * 1000)
