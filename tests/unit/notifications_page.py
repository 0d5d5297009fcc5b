"""docs/reference/notifications.md: the events, and what a message has, from the code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise

from pydantic import BaseModel

from sterna.domain.notifications.events import PAYLOAD_VERSION, EventType
from sterna.domain.notifications.payload import HostData, MigrationData, OperationData
from tests.parsing import parse
from tests.unit.markdown import MADE, cell, docstrings

PLAIN = {
    EventType.MIGRATION_COMPLETED: "The VM is on its destination, and everything is cleaned up.",
    EventType.OPERATION_STARTED: "It was requested.",
    EventType.OPERATION_RESUMED: "It continues after it was paused, stopped or incomplete.",
    EventType.OPERATION_STOPPING: "A user stops it: what has not switched over is aborted.",
    EventType.OPERATION_UNDOING: "A user undoes it: VMs are migrated back.",
}
"""What the code does not say, because the name does."""


def _about() -> Iterator[tuple[str, str]]:
    """Each type with what stands below it."""
    (found,) = parse(inspect.getsource(EventType)).body
    assert isinstance(found, ast.ClassDef)
    texts = {}
    for one, below in pairwise(found.body):
        if isinstance(one, ast.Assign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(one.targets[0], ast.Name)
            texts[one.targets[0].id] = str(below.value.value)
    for kind in EventType:
        yield kind.value, texts.get(kind.name) or PLAIN[kind]


def _fields(model: type[BaseModel]) -> list[str]:
    about = docstrings(model)
    return [
        "| Field | What it is |",
        "|---|---|",
        *(f"| `{name}` | {cell(about[name])} |" for name in model.model_fields),
    ]


def page() -> str:
    """The page."""
    events = [f"| `{kind}` | {cell(text)} |" for kind, text in _about()]
    text = ["# Notifications", MADE, _INTRODUCTION, "## Events"]
    text += ["\n".join(["| Type | What has happened |", "|---|---|", *events]), _EVENTS, "## A message", _MESSAGE]
    for of, model in (("a migration", MigrationData), ("an operation", OperationData), ("a host", HostData)):
        text += [f"## `data` of {of}", "\n".join(_fields(model))]
    return "\n\n".join(text) + "\n"


_INTRODUCTION = """\
This page lists the events that a controller can report to webhooks, and the fields of a message. [Send
notifications](../how-to/notify.md) explains how to set up an endpoint, how to verify a message, and what is
guaranteed about its delivery. The settings are in [Configuration](configuration.md)."""
_EVENTS = """\
Rehearsals are not reported, nor are migrations that only a host's journal knows of. If it was in doubt which host
runs a guest, `migration.switched_over` may be reported twice. A later version may report more types: ignore those
that you do not know."""
_SIGNATURE = (
    "`v1,` and the HMAC-SHA256 of `ID.TIMESTAMP.BODY` in Base64. With `old_secret` there are two, "
    "separated by a blank."
)
_VERSION = (
    f"`{PAYLOAD_VERSION}`. It grows when a field is removed or its meaning changes. New fields and new types do "
    "not change it."
)
_MESSAGE = f"""\
A message is a `POST` with a JSON body, and with the headers of
[Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):

| Header | What it is |
|---|---|
| `webhook-id` | The ID of the event. It is the same for each attempt. |
| `webhook-timestamp` | When this attempt was made, Unix time in seconds. |
| `webhook-signature` | {_SIGNATURE} |

| Field of the body | What it is |
|---|---|
| `version` | {_VERSION} |
| `id` | The same as `webhook-id`. |
| `type` | The type of the event. |
| `timestamp` | When the event was stored. ISO 8601 UTC, a controller's clock. |
| `object` | What it is about: its path in the [REST API](rest.md), as `/v1/migrations/ID`. Null for a test. |
| `data` | See below. Empty for a test. |

```json
{{
  "version": {PAYLOAD_VERSION},
  "id": "3f1c7a52-6d0e-4c1b-9a55-0c9b8f6d2e11",
  "type": "host.down",
  "timestamp": "2026-01-01T00:00:00+00:00",
  "object": "/v1/hosts/host1",
  "data": {{"name": "host1", "reason": "nothing received from its agent since 2025-12-31T23:59:25 UTC"}}
}}
```

Texts are shortened to 2,000 characters. Names of VMs and hosts, and reasons, come from users and hosts: treat them
as text from elsewhere."""
