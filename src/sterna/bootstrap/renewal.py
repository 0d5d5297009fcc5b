"""A process renews its own certificate while it runs, or warns that nobody does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.adapters.identity.look import validity_of
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.systemd import show_state
from sterna.config.bus import BusTls, IdentitySettings
from sterna.domain.trust.identities import Kind
from sterna.joining import Renewal, Watch
from sterna.ports.bus import Bus
from sterna.ports.clock import Clock
from sterna.ports.identity import CertificateIssuer

_FIX = {
    Kind.AGENT: "set `server` in [identity], or let the host join again: `sterna host add NAME` on the CA's "
    "machine",
    Kind.CONTROLLER: "set `server` in [identity], or issue another one: `sterna ca issue controller NAME`",
}


def watch_of(
    identity: IdentitySettings,
    tls: BusTls,
    clock: Clock,
    show: Callable[[], None],
    kind: Kind = Kind.AGENT,
    desk: CertificateIssuer | None = None,
) -> Watch | None:
    """What looks after the certificate that these settings name; None where they name none. One of Sterna's own CA
    is renewed whenever it is due, where there is somebody to ask. `desk`: the CA's, where it is in this process;
    else the server that the settings name. `show` puts the files' content to use, for connections to come."""
    own = OwnFiles(identity.folder, kind)
    if desk is None and identity.server is not None:
        desk = HttpsDesk(identity.server)
    if desk is not None:
        return Renewal(desk, own, clock, show)
    if identity.enrol == "sterna":
        return Watch(own.validity, clock, show, _FIX[kind])
    cert_file = identity.bus_tls(tls).cert_file
    if cert_file is None:
        return None
    fix = f"replace {cert_file} and its key: the process reads them within an hour"
    return Watch(partial(validity_of, cert_file), clock, show, fix)


def watching(
    bus: Bus, watch: Watch | None, trouble: Callable[[], str] = lambda: ""
) -> list[Coroutine[Any, Any, None]]:
    """What runs beside a process's own work: looks at its certificate, and its state for systemd."""
    if watch is None:
        return [show_state(bus, trouble)]
    return [show_state(bus, trouble, watch.warning), watch.run()]
