"""The server of the bus beside the controller that has the CA: its configuration follows the CA's register.

nats-server closes the connections of users that its configuration has no more when it reads it again. Others go on.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading

import structlog

from sterna.adapters.identity import private_files
from sterna.adapters.identity.authority import Authority
from sterna.config.bus import BusServerSettings
from sterna.domain.errors import BadRequest, NotFound, SternaError, Temporary
from sterna.domain.trust.bus_config import HEADER, BusServer, bus_config
from sterna.domain.trust.enrolment import on_the_bus
from sterna.kit.environment import clean_environment
from sterna.kit.tasks import own_cancellation_only
from sterna.kit.threads import in_thread

log = structlog.get_logger(__name__)

LOOK_S = 2.0
AGAIN_S = 10.0
"""After a failure."""
RELOAD_S = 20.0
"""The command only sends a signal, as a rule."""
_OF_A_LOOK_S = 30.0


async def keep_configured(settings: BusServerSettings, authority: Authority | None) -> None:
    """Write the configuration and have the server read it whenever the register has changed, until cancelled;
    returns at once where that is the operator's work."""
    if settings.config_file is None or authority is None:
        return
    file, said = BusServerFile(settings, authority), ""
    while True:
        trouble, fix = await _looked(file)
        if trouble and trouble != said:
            log.error("nats-server could not be configured from the CA's register", why=trouble, fix=fix)
        said = trouble
        await asyncio.sleep(AGAIN_S if trouble else LOOK_S)


async def _looked(file: BusServerFile) -> tuple[str, str]:
    """What went wrong and would correct it; '' for nothing."""
    try:
        with own_cancellation_only():
            await in_thread(file.look, name="sterna-bus-server", limit_s=_OF_A_LOOK_S)
    except SternaError as error:
        return error.message, error.fix
    except TimeoutError as error:
        return str(error), "check that the disks of the CA and of the configuration answer"
    except Exception:
        log.exception("configuring the server of the bus failed unexpectedly")
        return "unexpected", ""
    return "", ""


class BusServerFile:
    """The configuration. Blocking."""

    def __init__(self, settings: BusServerSettings, authority: Authority) -> None:
        assert settings.config_file is not None
        self._path, self._reload_command = settings.config_file, settings.reload
        self._server = BusServer.of(settings.listen, str(settings.folder))
        self._authority = authority
        self._writing = threading.Lock()
        """A thread that was left alone may come back while another one is at it."""
        self._looked_at: tuple[int, int] | None = None
        self._read = ""
        """What the server was told to read in this life. What came before may not have reached it."""

    def look(self) -> None:
        """Bring the server up to date with the register, if that has changed. Raises SternaError: try again."""
        stamp = self._authority.stamp()
        if stamp == self._looked_at:
            return
        text = bus_config(self._server, on_the_bus(self._authority.register()))
        if text != self._read:
            with self._writing:
                self._write(text)
            self._reload()
            self._read = text
            log.info("nats-server was told to read its new configuration", file=str(self._path))
        self._looked_at = stamp

    def _write(self, text: str) -> None:
        try:
            present = private_files.read(self._path, fix="").decode(errors="replace")
        except NotFound:
            present = HEADER
        if not present.startswith(HEADER):
            fix = "move it away, or set another file in [bus_server], and have nats-server read that"
            raise BadRequest(f"{self._path} was not written by Sterna: it is left unchanged", fix=fix)
        if present != text:
            private_files.write(self._path, text.encode(), 0o644)

    def _reload(self) -> None:
        words = " ".join(self._reload_command)
        fix = f"check that nats-server runs with {self._path}, and that the controller's user may run this command"
        try:
            done = subprocess.run(
                self._reload_command,
                capture_output=True,
                text=True,
                timeout=RELOAD_S,
                check=False,
                env=clean_environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Temporary(f"{words}: {error}", fix=fix) from error
        if done.returncode != 0:
            why = (done.stderr.strip() or f"exit code {done.returncode}")[-300:]
            raise Temporary(f"{words}: {why}", fix=fix)
