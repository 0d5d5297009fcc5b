"""The end of a process that has threads in C libraries."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def leave(code: int = 0) -> NoReturn:
    """End this process with this exit code; what it has printed is written first.

    Python tears nothing down: threads of libvirt and other libraries run until the very end, and call into Python.
    An interpreter that is half gone answers that with a crash. So close and write everything before.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more, or it was closed
            stream.flush()
    os._exit(code)
