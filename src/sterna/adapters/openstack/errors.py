"""What a failed request to an OpenStack service means: one table for Keystone, Cinder, Neutron and Glance.

The question that matters is whether something was changed. An answer of the 4xx kind says no. No answer, or one
from a server or proxy that failed, leaves it unknown, unless the request was never sent.
"""

from __future__ import annotations

from collections.abc import Collection

from sterna.domain.errors import (
    LONGEST_DELAY_S,
    Conflict,
    NotFound,
    Permanent,
    SternaError,
    Temporary,
    Unknown,
    Unreachable,
)

ADMIN = "admin"


class TokenRefused(Permanent):
    """401: the request was not carried out."""


_ROLES = "give the user of `[openstack]` the roles `admin` and `service` in its project"
_LOGIN = "check `username`, `password`, `project` and the domains in `[openstack]`"
_AWAY = "check that the service runs and that this host reaches it; `[openstack]` says where Keystone is"
_CATALOG = "check that Keystone's catalog has the service at this `region` and `interface` (`[openstack]`)"
_PROXY = (
    "find out what answers at the service's address (`openstack catalog list`): this answer is no OpenStack "
    "service's"
)
_NO_ANSWER = (408, 502, 504)
_LATER = (413, 429, 503)


def meaning(error: Exception, what: str, *, changing: bool) -> SternaError | None:
    """The domain's error for one that openstacksdk or keystoneauth raised while doing `what`; None for any
    other."""
    from keystoneauth1 import exceptions as auth

    from openstack import exceptions as sdk

    if isinstance(error, SternaError):
        return None
    status = _status(error)
    if status is not None:
        return _of_status(status, f"{what}: {_words(error)}", error, changing=changing)
    # The SDK renames what happened below it while it looks for the service's versions.
    below = error.__cause__ or error.__context__
    for seen in (error, below):
        if isinstance(seen, auth.SSLError):
            return Permanent(
                f"{what}: {_words(seen)}", fix="set `ca_file` in `[openstack]` to the cloud's authority"
            )
        if isinstance(seen, auth.ConnectionError):
            return _of_transport(seen, what, changing=changing)
    if isinstance(
        error, auth.EndpointNotFound | auth.EmptyCatalog | auth.DiscoveryFailure | sdk.ServiceDisabledException
    ):
        return Permanent(f"{what}: {_words(error)}", fix=_CATALOG)
    if isinstance(error, auth.ClientException | sdk.SDKException):
        return Permanent(f"{what}: {_words(error)}")
    return None


def _status(error: Exception) -> int | None:
    """The HTTP status of an error of either library."""
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    return status if isinstance(status, int) and status >= 400 else None


def _words(error: BaseException) -> str:
    """The service's own message."""
    return str(getattr(error, "details", None) or error).strip()[:800] or type(error).__name__


def _of_status(status: int, message: str, error: Exception, *, changing: bool) -> SternaError:
    message = f"{message} (HTTP {status})"
    if status == 401:
        return TokenRefused(message, fix=_LOGIN)
    if status == 403:
        return Permanent(message, fix=_ROLES)
    if status == 404:
        return NotFound(message) if _is_the_services_own(error) else Unreachable(message, fix=_PROXY)
    if status == 409:
        return Conflict(message)
    if status in _LATER:
        return Temporary(message, delay_s=_retry_after(error))
    if status in _NO_ANSWER:
        return Unknown(message, fix=_AWAY) if changing else Unreachable(message, fix=_AWAY)
    if status >= 500:
        fix = "look into the service's own log"
        return Unknown(message, fix=fix) if changing else Temporary(message, fix=fix)
    return Permanent(message)


def _is_the_services_own(error: Exception) -> bool:
    """Does the body say what is not there, in the words of Cinder, Neutron, Keystone or Glance? The 404 of
    a proxy does not mean that a volume or a port is gone."""
    response = getattr(error, "response", None)
    try:
        body = response.json() if response is not None else None
    except ValueError:
        return False
    if not isinstance(body, dict):
        return False
    fault = body.get("itemNotFound") or body.get("NeutronError") or body.get("error")
    return isinstance(fault, dict) or str(body.get("code", "")).startswith("404")


def without_role(error: SternaError, roles: Collection[str]) -> SternaError:
    """The error, unless it is a NotFound and the user lacks the role `admin`: services hide from it what is other
    projects'. `roles`: the token's; empty where they are not known."""
    if not isinstance(error, NotFound) or not roles or ADMIN in roles:
        return error
    return Permanent(f"{error.message}; the user has no role `{ADMIN}`, so it may be there", fix=_ROLES)


def _retry_after(error: Exception) -> float | None:
    """Seconds, where the service names them."""
    response = getattr(error, "response", None)
    header = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(header), LONGEST_DELAY_S) if header.isdigit() else None


def _of_transport(error: BaseException, what: str, *, changing: bool) -> SternaError:
    message = f"{what}: {_words(error)}"
    if changing and not _never_sent(error):
        return Unknown(message, fix=_AWAY)
    return Unreachable(message, fix=_AWAY)


def _never_sent(error: BaseException) -> bool:
    """Was there no connection to send the request over? (keystoneauth gives one name to both.)"""
    from requests import exceptions as http
    from urllib3 import exceptions as transport

    cause = error.__context__
    if isinstance(cause, http.ConnectTimeout):
        return True
    reason = getattr(cause.args[0], "reason", None) if cause is not None and cause.args else None
    return isinstance(reason, transport.NewConnectionError | transport.NameResolutionError)
