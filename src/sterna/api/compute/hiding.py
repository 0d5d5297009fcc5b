"""Names of hosts in errors: an administrator's to know."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException

from sterna.api.compute.call import Call
from sterna.api.compute.faults import sentence, status_for
from sterna.domain.errors import SternaError


@asynccontextmanager
async def hiding_hosts(call: Call) -> AsyncIterator[None]:
    """What the controller raises inside, without names and addresses of hosts for who is no administrator."""
    try:
        yield
    except SternaError as error:
        if call.known_user.admin:
            raise
        hosts = [host.facts for host in await call.controller.registry.hosts()]
        names = [name for one in hosts for name in (one.name, one.network_host, one.address)]
        raise HTTPException(status_for(error), without_names(sentence(error), names)) from error


def without_names(said: str, hosts: Iterable[str]) -> str:
    """The same for those who may not know how hosts are called."""
    names = sorted((re.escape(name) for name in hosts if name), key=len, reverse=True)
    return re.sub(rf"(?<![\w-])({'|'.join(names)})(?![\w-])", "a host", said) if names else said
