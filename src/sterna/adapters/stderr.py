"""Logs on stderr, for people or as JSON. Called by `bootstrap`."""

from __future__ import annotations

import io
import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from sterna.domain.plain_text import printable


def _printable_values(_logger: object, _method: str, event: EventDict) -> EventDict:
    """One line is one event, and no name or reason steers the terminal it is read on."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _plain_traceback(sio: TextIO, exc_info: ExcInfo) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    sio.write(printable(written.getvalue(), breaks=True))


_MEANS_NOTHING = "returning true from eof_received() has no effect when using ssl"
"""asyncio's, for each TLS connection that the other side has closed."""


class _InOneForm(logging.Handler):
    """What libraries log (asyncio, uvicorn, SQLAlchemy), in the same form as Sterna's own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if message != _MEANS_NOTHING:
                more = {"exc_info": record.exc_info} if record.exc_info else {}
                structlog.get_logger().log(record.levelno, message, logger=record.name, **more)
        except Exception:  # as logging's own handlers: a line that cannot be written ends nobody
            self.handleError(record)


def _take_libraries_lines() -> None:
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _InOneForm)]:
        root.removeHandler(handler)
    root.addHandler(_InOneForm(logging.WARNING))


def log_to_stderr(level: str = "info", form: str = "console") -> None:
    """Processes log to stderr, where systemd and the lab collect it; stdout is for answers.

    `form`: `console` or `json`.

    Tracebacks are plain: structlog's own show each frame's variables, passwords among them. Warnings and errors of
    libraries are logged in the same form.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            *(_json() if form == "json" else _console()),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    _take_libraries_lines()


def _console() -> list[Processor]:
    plain = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_plain_traceback)
    return [structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False), _printable_values, plain]


def _json() -> list[Processor]:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return [stamp, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
