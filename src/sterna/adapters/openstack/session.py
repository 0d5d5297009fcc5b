"""The way to a cloud's services: who we are there, threads to wait in, and what their errors mean to us.

Used by the `cinder`, `neutron` and `glance` adapters. Every request carries a service token as well: Cinder
refuses to delete a live attachment without one (bug 2004555), and Neutron's port bindings are for services alone.
Tokens are renewed before they expire, and once more when a service answers 401: a migration may outlive its token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sterna.adapters.openstack.errors import meaning
from sterna.domain.errors import BadRequest, Unknown, Unreachable
from sterna.kit.threads import in_thread

if TYPE_CHECKING:
    from openstack.connection import Connection

T = TypeVar("T")

EXTRA_FIX = "install it: pip install 'sterna[openstack]'"

MOST_ANSWERS = 5
"""An act is a few requests, each perhaps answered byte by byte: after so many `timeout_s` nobody waits for it."""
CHECK_S = 10.0
"""For the questions of a check to one service. A user waits for all of a check for 60 s, and reading takes some
tenths of a second."""
VOLUME_API = "3.44"
"""The first with `os-complete`, the last call of an attachment's life that we need (OpenStack Rocky and newer)."""


@dataclass(frozen=True)
class CloudAccess:
    """How to log in to a cloud. The user needs the roles `admin` and `service` in `project`."""

    auth_url: str
    """Keystone: `http://10.0.0.1:5000/v3`."""
    username: str
    password: str = field(repr=False)
    project: str = "service"
    user_domain: str = "Default"
    project_domain: str = "Default"
    region: str | None = None
    """None: the catalog has one region."""
    interface: str = "internal"
    """Which of the catalog's endpoints: `internal`, `public` or `admin`."""
    ca_file: str | None = None
    """None: the system's certificate authorities."""
    timeout_s: float = 60.0
    """How long one answer may take, in seconds."""


class Cloud:
    """One login, used by every provider of this process. Nothing is asked of the cloud until a provider asks."""

    def __init__(self, access: CloudAccess) -> None:
        self._connection = _connect(access)
        self._timeout_s = access.timeout_s

    @property
    def act_limit_s(self) -> float:
        """How long one act may take."""
        return MOST_ANSWERS * self._timeout_s

    async def ask(self, what: str, act: Callable[[Connection], T], *, of: str = "") -> T:
        """`act`'s answer, from a thread of its own; it must only read. `what` is for the error: `read volume X`.
        `of`: the service; one that does not answer keeps nobody from the others.

        Raises Unreachable, Temporary, NotFound, Conflict or Permanent, each with the service's own words.
        """
        return await self._run(what, act, of, changing=False)

    async def change(self, what: str, act: Callable[[Connection], T], *, of: str = "") -> T:
        """As `ask`, for an `act` that changes something: best one request, what it needs read before.

        Raises Unknown as well: no answer, or an answer that does not say whether it was done.
        """
        return await self._run(what, act, of, changing=True)

    async def _run(self, what: str, act: Callable[[Connection], T], of: str, *, changing: bool) -> T:
        def attempt() -> T:
            try:
                return act(self._connection)
            except Exception as error:
                told = meaning(error, what, changing=changing)
                if told is None:
                    raise
                raise told from error

        try:
            return await in_thread(attempt, name="sterna-openstack", of=of, limit_s=self.act_limit_s)
        except TimeoutError as error:
            kind = Unknown if changing else Unreachable
            raise kind(f"cannot {what}: {error}", fix="see that the service answers") from error


@asynccontextmanager
async def asking_for_a_check(service: str) -> AsyncIterator[None]:
    """What is inside only reads. Raises Unreachable after CHECK_S."""
    try:
        async with asyncio.timeout(CHECK_S):
            yield
    except TimeoutError as error:
        why = f"{service} does not answer: no answer within {CHECK_S:g} s"
        raise Unreachable(why, fix="see that the service answers, and how fast") from error


def _connect(access: CloudAccess) -> Connection:
    """Raises BadRequest where the extra is not installed."""
    try:
        from keystoneauth1.identity.v3 import Password
        from keystoneauth1.service_token import ServiceTokenAuthWrapper
        from keystoneauth1.session import Session
        from openstack.connection import Connection
    except ImportError as error:
        raise BadRequest(f"the optional part `openstack` is not installed: {error}", fix=EXTRA_FIX) from error
    me = Password(
        access.auth_url,
        username=access.username,
        password=access.password,
        project_name=access.project,
        user_domain_name=access.user_domain,
        project_domain_name=access.project_domain,
    )
    session = Session(
        # One login is both: whoever is admin and service need not have two tokens expire apart from each other.
        auth=ServiceTokenAuthWrapper(user_auth=me, service_auth=me),
        verify=access.ca_file or True,
        timeout=access.timeout_s,
        app_name="sterna",
    )
    return Connection(
        session=session,
        region_name=access.region,
        interface=access.interface,
        block_storage_default_microversion=VOLUME_API,
    )
