"""What tests of commands name, and read from their output."""

from __future__ import annotations

import json

from typer.testing import Result

ID = "33333333-3333-4333-8333-333333333333"


def document(result: Result) -> dict:  # type: ignore[type-arg]
    return dict(json.loads(result.stdout))
