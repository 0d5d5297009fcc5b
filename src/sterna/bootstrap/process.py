"""What both processes need: the bus, the signal that ends them, and a log line for what delays their start."""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from sterna.adapters.nats.bus import NatsBus
from sterna.config.bus import BusSettings, BusTls, IdentitySettings
from sterna.domain.errors import BadRequest
from sterna.rpc.subjects import token

log = structlog.get_logger(__name__)

DISK_FIX = "check that its disk answers"
SLOW_S = 30.0
"""A start that takes longer is logged: a disk or a resolver hangs."""


@contextmanager
def warn_when_slow(what: str, fix: str) -> Iterator[None]:
    """Log an error after SLOW_S if `what` has not answered by then. Only an answer or a signal ends the wait."""
    why = f"{what} does not answer yet; waiting: nothing within {SLOW_S:g} s"
    timer = threading.Timer(SLOW_S, log.error, (why,), {"fix": fix})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def bus_tls(settings: BusTls, url: str = "") -> ssl.SSLContext | None:
    """What TLS to the bus is spoken with; None for plain TCP. An address that begins with `tls:` asks for it, too:
    of the system's CAs where none is named. Raises BadRequest for files that will not do."""
    if settings.ca_file is None:
        asked = any(one.strip().startswith("tls:") for one in url.split(","))
        return ssl.create_default_context() if asked else None
    try:
        tls = ssl.create_default_context(cafile=str(settings.ca_file))
        if settings.cert_file is not None:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl's own errors are OSErrors
        named = ", ".join(
            str(f) for f in (settings.ca_file, settings.cert_file, settings.key_file) if f is not None
        )
        raise BadRequest(
            f"TLS to the bus cannot be set up with {named}: {error}", fix="see [bus.tls] in the settings"
        ) from error
    return tls


async def join_bus(settings: BusSettings, name: str, who: str, identity: IdentitySettings) -> NatsBus:
    """The bus these settings name; a bus that is away is waited for in the background. `who`: the name in the bus's
    subjects. Raises BadRequest."""
    files = identity.bus_tls(settings.tls)
    password = settings.password.get_secret_value() if settings.password else None
    with warn_when_slow(f"the disk of {files.ca_file}", DISK_FIX):
        tls = bus_tls(files, settings.url)
    return await NatsBus.connect(
        settings.url,
        name=name,
        who=token(who),
        user=settings.user,
        password=password,
        tls=tls,
        server_name=files.server_name,
    )


async def wait_for_stop_signal(stopped: asyncio.Event | None = None) -> None:
    """Return on SIGTERM or SIGINT, or when `stopped` is set."""
    stopped = stopped or asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
