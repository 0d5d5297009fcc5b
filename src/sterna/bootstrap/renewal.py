"""A process renews its own certificate while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.config.bus import IdentitySettings
from sterna.domain.trust.identities import Kind
from sterna.joining import Renewal
from sterna.ports.clock import Clock
from sterna.ports.identity import JoinDesk

Show = Callable[[Path, Path | None], None]


async def keep_renewed(
    identity: IdentitySettings, clock: Clock, show: Show, kind: Kind = Kind.AGENT, desk: JoinDesk | None = None
) -> None:
    """Renew the certificate whenever it is due, until cancelled; returns at once where there is no CA to ask.
    `desk`: the CA's, where it is in this process; else the server that the settings name. `show` is given each new
    one, for connections to come."""
    if desk is None and identity.server is not None:
        desk = HttpsDesk(identity.server)
    if desk is None:
        return
    own = OwnFiles(identity.folder, kind)
    await Renewal(desk, own, clock, lambda: show(own.certificate_file, own.key_file)).run()
