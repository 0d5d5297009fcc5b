"""Requests to agents, built by the code with which the controller builds them: tests ask for what users get.

`tests/unit/api/test_same_request.py` compares them with what the REST API sends.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sterna.api.migration_models import ObjectiveIn
from sterna.controller.intents.request import MigrateRequest, check_params, proposal, start_params
from sterna.domain.experience import Experience
from sterna.domain.forecast import Expectations, Load
from sterna.domain.model import Data, GuestState
from sterna.domain.objective import Asked
from sterna.ports.fleet import VmRecord


def wish(body: Mapping[str, Any]) -> Asked:
    """What a user asks for with this part of a request's JSON body."""
    return ObjectiveIn(**body).asked()


def to_start(
    vm: str,
    to: str,
    asked: Asked | None = None,
    *,
    source: str = "host1",
    migration: str = "",
    rehearse: str = "",
    load: Load | None = None,
    name: str = "tern",
    requested_by: str = "",
) -> Data:
    """Parameters of `start_migration`, of a controller that has learnt nothing yet. `load`: a plan measured it."""
    asked = asked or Asked()
    request = MigrateRequest(
        id=migration or str(uuid.uuid4()),
        vm=vm,
        destination=to,
        asked=asked,
        rehearse=rehearse,
        requested_by=requested_by,
    )
    link = Experience().link(vm, source, to, bandwidth_bytes_s=asked.bandwidth_bytes_s)
    return start_params(proposal(request, _record(vm, source, name), to, Expectations(load=load, link=link), ""))


def to_check(vm: str, to: str, asked: Asked | None = None, *, source: str = "host1") -> Data:
    """Parameters of `check_migration`."""
    request = MigrateRequest(vm=vm, destination=to, asked=asked or Asked())
    return check_params(_record(vm, source, ""), to, request.options)


def _record(vm: str, source: str, name: str) -> VmRecord:
    return VmRecord(uuid=vm, name=name, host=source, state=GuestState.RUNNING)
