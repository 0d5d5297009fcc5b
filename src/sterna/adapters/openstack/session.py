"""Access to a cloud's services: the login, the threads that wait for answers, and what errors mean.

Used by the `cinder`, `neutron` and `glance` adapters. Every request carries a service token as well: Cinder
refuses to delete a live attachment without one (bug 2004555), and Neutron's port bindings are for services alone.
Tokens are renewed before they expire, and once more when a service answers 401: a migration may outlive its token.
Keystone is asked for them apart from any request (`login.py`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from sterna.adapters.openstack.errors import TokenRefused, meaning, without_role
from sterna.adapters.openstack.login import Login
from sterna.domain.errors import BadRequest, Unknown, Unreachable
from sterna.kit.aborts import raise_if_aborted, unless_aborted
from sterna.kit.threads import in_thread

if TYPE_CHECKING:
    from keystoneauth1.identity.v3 import Password
    from keystoneauth1.session import Session
    from openstack.connection import Connection

T = TypeVar("T")

EXTRA_FIX = "install it: pip install 'sterna[openstack]'"

MOST_ANSWERS = 5
"""An act is a few requests, each perhaps answered byte by byte: it is given up after so many `timeout_s`."""
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


_UNTIL: ContextVar[float] = ContextVar("cloud_until", default=math.inf)
"""When no further request is begun, by `monotonic()`."""


class Cloud:
    """One login, used by every provider of this process. Nothing is asked of the cloud until a provider asks."""

    def __init__(self, access: CloudAccess) -> None:
        me, session, self._connection = _connect(access)
        self._login = Login(me, session, limit_s=access.timeout_s)
        self._timeout_s = access.timeout_s

    @property
    def act_limit_s(self) -> float:
        """How long one act may take."""
        return MOST_ANSWERS * self._timeout_s

    @contextmanager
    def together(self) -> Iterator[None]:
        """The acts inside are one piece of work: none is begun after as long as one may take. One that is under way
        is not given up for that: it may be carried out later, when it is no longer watched."""
        before = _UNTIL.set(monotonic() + self.act_limit_s)
        try:
            yield
        finally:
            _UNTIL.reset(before)

    @asynccontextmanager
    async def asking_for_a_check(self, service: str) -> AsyncIterator[None]:
        """What is inside only reads. Raises Unreachable after CHECK_S."""
        try:
            async with asyncio.timeout(CHECK_S):
                yield
        except TimeoutError as error:
            silent = "Keystone" if self._login.under_way else service
            why = f"{silent} does not answer: no answer within {CHECK_S:g} s"
            raise Unreachable(why, fix="check that the service answers, and how fast") from error

    async def ask(self, what: str, act: Callable[[Connection], T], *, of: str = "") -> T:
        """`act`'s answer, from a thread of its own; it must only read. `what` is for the error: `read volume X`.
        `of`: the service; one that does not answer does not block requests to others. An abort ends it at once.

        Raises Unreachable, Temporary, NotFound, Conflict or Permanent, each with the service's own words.
        """
        return await self._run(what, act, of, changing=False)

    async def change(self, what: str, act: Callable[[Connection], T], *, of: str = "") -> T:
        """As `ask`, for an `act` that changes something: best one request, what it needs read before. An abort is
        checked before it is begun.

        Raises Unknown as well: no answer, or an answer that does not say whether it was done.
        """
        return await self._run(what, act, of, changing=True)

    async def _run(self, what: str, act: Callable[[Connection], T], of: str, *, changing: bool) -> T:
        token = await unless_aborted(self._login.token())
        try:
            return await self._attempt(what, act, of, changing=changing)
        except TokenRefused:  # so nothing was changed; at most something was read
            await unless_aborted(self._login.token(refused=token))
        return await self._attempt(what, act, of, changing=changing)

    async def _attempt(self, what: str, act: Callable[[Connection], T], of: str, *, changing: bool) -> T:
        def attempt() -> T:
            try:
                return act(self._connection)
            except Exception as error:
                translated = meaning(error, what, changing=changing)
                if translated is None:
                    raise
                raise without_role(translated, self._login.roles) from error

        self._begin(what, of)
        work = in_thread(attempt, name="sterna-openstack", of=of, limit_s=self.act_limit_s)
        try:
            return await (work if changing else unless_aborted(work))
        except TimeoutError as error:
            kind = Unknown if changing else Unreachable
            raise kind(f"cannot {what}: {error}", fix="check that the service answers") from error

    def _begin(self, what: str, of: str) -> None:
        """Raises Unreachable where what was asked before has taken too long, Cancelled after an abort."""
        raise_if_aborted()
        if monotonic() > _UNTIL.get():
            service = of.capitalize() or "the cloud"
            why = f"{service} has needed more than {self.act_limit_s:g} s for what was asked before"
            raise Unreachable(
                f"cannot {what}: {why}", fix="find out why it is so slow; what it has done already stays"
            )


def _connect(access: CloudAccess) -> tuple[Password, Session, Connection]:
    """No request logs in: `Login` does, before. Raises BadRequest where the extra is not installed."""
    try:
        from keystoneauth1.identity.v3 import Password
        from keystoneauth1.service_token import ServiceTokenAuthWrapper
        from keystoneauth1.session import Session
        from openstack.connection import Connection
    except ImportError as error:
        raise BadRequest(f"the optional part `openstack` is not installed: {error}", fix=EXTRA_FIX) from error

    class Both(ServiceTokenAuthWrapper):
        def invalidate(self) -> bool:
            """After a 401, and within a request: no."""
            return False

    me = Password(
        access.auth_url,
        username=access.username,
        password=access.password,
        project_name=access.project,
        user_domain_name=access.user_domain,
        project_domain_name=access.project_domain,
        reauthenticate=False,
    )
    session = Session(
        # One login is both: a user that is admin and service needs no second token with an expiry of its own.
        auth=Both(user_auth=me, service_auth=me),
        verify=access.ca_file or True,
        timeout=access.timeout_s,
        app_name="sterna",
    )
    connection = Connection(
        session=session,
        region_name=access.region,
        interface=access.interface,
        block_storage_default_microversion=VOLUME_API,
    )
    return me, session, connection
