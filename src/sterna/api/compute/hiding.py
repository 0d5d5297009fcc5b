"""Names of hosts, and of the VMs in placement rules, in errors: an administrator's to know."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException

from sterna.api.compute.call import Call
from sterna.api.compute.faults import sentence, status_for
from sterna.domain.errors import Refused, SternaError
from sterna.domain.model import Refusal

_RULES: frozenset[str] = frozenset({"placement-rule", "vm-never-moves"})


@asynccontextmanager
async def hiding_hosts(call: Call) -> AsyncIterator[None]:
    """What the controller raises inside, without names of hosts and what placement rules name, for who is no
    administrator."""
    try:
        yield
    except SternaError as error:
        if call.known_user.admin:
            raise
        hosts = [host.facts for host in await call.controller.registry.hosts()]
        names = [name for one in hosts for name in (one.name, one.network_host, one.address)]
        raise HTTPException(status_for(error), without_names(sentence(without_rules(error)), names)) from error


def without_rules(error: SternaError) -> SternaError:
    """The same for those who may not know of other users' VMs, which placement rules name."""
    refusals: tuple[Refusal, ...] = getattr(error, "refusals", ())
    others = [one for one in refusals if one.code not in _RULES]
    if len(others) == len(refusals):
        return error
    message = "the operator's placement rules keep the server where it is"
    return Refused([*others, Refusal(code="placement-rule", message=message, fix="ask the operator of the cloud")])


def without_names(said: str, hosts: Iterable[str]) -> str:
    """The same for those who may not know how hosts are called."""
    names = sorted((re.escape(name) for name in hosts if name), key=len, reverse=True)
    return re.sub(rf"(?<![\w-])({'|'.join(names)})(?![\w-])", "a host", said) if names else said
