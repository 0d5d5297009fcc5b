"""What a form says about how a VM is to be moved, as `/v1` takes it."""

from __future__ import annotations

from typing import Any

from sterna.api.web.forms import Fields


def of_form(fields: Fields) -> dict[str, Any]:
    """The fields of `ObjectiveIn`; None where the form has nothing."""
    return {
        "policy": fields.text("policy") or None,
        "max_downtime_ms": fields.whole("max_downtime_ms"),
        "finish_within_s": fields.number("finish_within_min", times=60.0),
        "may": fields.some("may") or None,
        "bandwidth_bytes_s": fields.whole("bandwidth_mib_s", times=2**20),
        "accept": fields.some("accept") or None,
    }
