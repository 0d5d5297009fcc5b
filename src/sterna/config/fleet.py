"""`[fleet]` of a controller's settings: what operations fill hosts with, and what may be done to empty ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from sterna.config.section import Section
from sterna.domain.webhooks import address_of


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError for a program without its whole path."""
    if words and not Path(words[0]).is_absolute():
        raise ValueError(f"{words[0]!r} is not the absolute path of a program")
    return words


def _addresses(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError for what cannot be called."""
    for url in urls:
        try:
            address_of(url)
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from error
    return urls


def _token(given: SecretStr | None) -> SecretStr | None:
    """Without blanks around it. Raises ValueError for what no header can hold, and does not show it."""
    if given is None:
        return None
    token = given.get_secret_value().strip()
    if not token or any(not "!" <= sign <= "~" for sign in token):
        raise ValueError("it is empty, or contains a blank, a line break or a character that is not ASCII")
    return SecretStr(token)


class FleetSettings(Section):
    """Limits for operations such as `sterna drain`, and commands and webhooks for `sterna rolling`. Use the same
    values for all controllers of a fleet. Single migrations are not limited by it: the destination's agent checks
    them."""

    vcpus_per_cpu: float = Field(default=16.0, gt=0, le=1024)
    """Maximum number of vCPUs for each CPU of a host. The default suits VMs that are mostly idle."""
    kept_memory_mib: int = Field(default=512, ge=0)
    """Memory of each host that VMs cannot use, in MiB. The default is Nova's."""
    spare_hosts: int = Field(default=0, ge=0, le=1000)
    """N+1: this many of the largest hosts may fail, and the others still have capacity for their VMs. VMs that
    would need that capacity stay where they are."""
    preparing: int = Field(default=4, ge=1, le=64)
    """Maximum number of migrations that a host prepares concurrently in each direction, in addition to running
    copies."""
    rebalance: bool = False
    """`sterna rebalance` may migrate VMs from full hosts to emptier ones. Nothing is rebalanced unless somebody
    requests it. The preview is always possible."""
    between: Annotated[tuple[str, ...], AfterValidator(_command)] = ()
    """Command that this controller runs for each empty host of `sterna rolling`, as the controller's user:
    `["/usr/local/bin/reboot-host"]`. The host, the operation and a key are added as arguments. Empty: none."""
    webhooks: Annotated[tuple[str, ...], AfterValidator(_addresses)] = ()
    """URLs that this controller may call for `sterna rolling --between-webhook`, including everything below them:
    `["https://jobs.example/sterna"]`. Empty: none."""
    webhook_token: Annotated[SecretStr | None, AfterValidator(_token)] = None
    """Sent to all webhooks: `Authorization: Bearer TOKEN`. Visible ASCII characters; leading and trailing blanks
    and line breaks are removed. Better in the environment: `STERNA_FLEET__WEBHOOK_TOKEN`. Never logged."""
    webhook_ca_file: Path | None = None
    """CA certificates for the webhooks. Not set: the system's."""
