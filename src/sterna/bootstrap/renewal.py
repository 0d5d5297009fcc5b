"""An agent renews its host's certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.agent.joining import Renewal
from sterna.config.bus import IdentitySettings
from sterna.ports.clock import Clock


async def keep_renewed(identity: IdentitySettings, clock: Clock, show: Callable[[Path, Path | None], None]) -> None:
    """Renew the certificate whenever it is due, until cancelled; at once back where the settings name no server.
    `show` is given each new one, for connections to come."""
    if identity.server is None:
        return
    own = OwnFiles(identity.folder)
    renewal = Renewal(HttpsDesk(identity.server), own, clock, lambda: show(own.certificate_file, own.key_file))
    await renewal.run()
