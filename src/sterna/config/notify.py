"""`[[notify]]` of a controller's settings: webhooks that are called when something has happened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from sterna.config.section import Section
from sterna.domain.notifications.addresses import checked
from sterna.domain.notifications.events import EventType, chosen
from sterna.domain.notifications.signing import key_of

MOST = 20
"""Endpoints. Each event is written once for each."""
HOW = """make one with: printf 'whsec_%s\\n' "$(openssl rand -base64 32)\""""


def _secret(given: SecretStr | None) -> SecretStr | None:
    """Without blanks around it. Raises ValueError, which does not show it."""
    if given is None:
        return None
    secret = given.get_secret_value().strip()
    try:
        key_of(secret)
    except ValueError as error:
        raise ValueError(f"{error}; {HOW}") from None
    return SecretStr(secret)


def _name(name: str) -> str:
    """Raises ValueError for one that cannot be in the name of a variable, or in a label."""
    if not re.fullmatch("[a-z][a-z0-9_]{0,31}", name):
        raise ValueError(f"{name!r} is not 1 to 32 small letters, digits and `_`, of which the first is a letter")
    return name


def _events(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError for one that names no type."""
    chosen(patterns)
    return patterns


Secret = Annotated[SecretStr | None, AfterValidator(_secret)]


class NotifySettings(Section):
    """A webhook that is called when something has happened to a migration, an operation or a host. Give all
    controllers of a fleet the same. See docs/how-to/notify.md."""

    name: Annotated[str, AfterValidator(_name)]
    """Its name in commands, logs and metrics: small letters, digits and `_`. Under a new name it gets what happens
    from then on."""
    url: str = Field(json_schema_extra={"path_is_secret": True})
    """Its address. `https`; `http` only to this machine, or with `insecure`."""
    secret: Secret = None
    """Signs what is sent: `whsec_`, and 24 to 64 random bytes in Base64. Better in the environment:
    `STERNA_NOTIFY_SECRETS__NAME`. Never logged."""
    old_secret: Secret = None
    """Signs as well, while receivers change to a new `secret`."""
    events: Annotated[tuple[str, ...], AfterValidator(_events)] = ()
    """Which events it gets: types, as `migration.failed`, or groups of them, as `operation.*`. Empty: all."""
    ca_file: Path | None = None
    """CA certificates of its server. Not set: the system's."""
    insecure: bool = False
    """True: `url` may be `http` to another machine. Whoever can read the network traffic can read names of VMs and
    hosts."""
    give_up_after_hours: float = Field(default=24.0, ge=1, le=168)
    """What it has not accepted for so long is dropped, with a line in the log."""

    @model_validator(mode="after")
    def _may_be_called(self) -> Self:
        try:
            checked(self.url, insecure=self.insecure)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        return self

    @property
    def chosen_events(self) -> tuple[EventType, ...]:
        """As types."""
        return chosen(self.events)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Of its secrets, the new one first."""
        secrets = (one.get_secret_value() for one in (self.secret, self.old_secret) if one is not None)
        return tuple(key_of(one) for one in secrets)


def with_secrets(
    endpoints: Sequence[NotifySettings], secrets: Mapping[str, SecretStr]
) -> tuple[NotifySettings, ...]:
    """Each with its secret from `notify_secrets`, which wins. Raises ValueError."""
    names = [one.name for one in endpoints]
    if len(set(names)) < len(names):
        raise ValueError("two endpoints of [[notify]] have the same name")
    if unknown := sorted(secrets.keys() - set(names)):
        raise ValueError(f"notify_secrets names {', '.join(unknown)}, and [[notify]] has no such endpoint")
    found = []
    for one in endpoints:
        secret = secrets.get(one.name, one.secret)
        try:
            whole = one.model_copy(update={"secret": _secret(secret)})
        except ValueError as error:
            raise ValueError(f"secret of {one.name}: {error}") from None
        if whole.secret is None:
            raise ValueError(
                f"endpoint {one.name} of [[notify]] has no secret: set `secret`, or "
                f"STERNA_NOTIFY_SECRETS__{one.name.upper()} in the environment; {HOW}"
            )
        found.append(whole)
    return tuple(found)
