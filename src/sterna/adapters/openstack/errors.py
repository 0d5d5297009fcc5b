"""What a failed request to an OpenStack service means: one table for Keystone, Cinder, Neutron and Glance.

The question that matters is whether something was changed. An answer of the 4xx kind says no. No answer, or one
from a server or proxy that failed, leaves it unknown, unless the request was never sent.
"""

from __future__ import annotations

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


class TokenRefused(Permanent):
    """401: the request was not carried out."""


_ROLES = "give the user of `[openstack]` the roles `admin` and `service` in its project"
_LOGIN = "check `username`, `password`, `project` and the domains in `[openstack]`"
_AWAY = "see that the service runs and that this host reaches it; `[openstack]` says where Keystone is"
_CATALOG = "see that Keystone's catalog has the service at this `region` and `interface` (`[openstack]`)"
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
        return NotFound(message)
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
