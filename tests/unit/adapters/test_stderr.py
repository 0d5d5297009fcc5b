"""Whoever reads the log (journald) reads nothing any more: the process waits, and loses no line."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

LINES = 2_000
PROGRAM = f"""
import structlog
from sterna.adapters.stderr import log_to_stderr

log_to_stderr()
log = structlog.get_logger()
for number in range({LINES}):
    log.info("one line of the log, of which the pipe does not take all", number=number)
print("all is said", flush=True)
"""


def test_a_log_that_nobody_reads_holds_the_process_up_until_it_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with (tmp_path / "out").open("w+") as out:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=out, stderr=writing)
        try:
            until = time.monotonic() + 60
            while select.select([], [writing], [], 0)[1]:  # it takes more
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.05)
            os.close(writing)
            out.seek(0)
            assert out.read() == "" and process.poll() is None
            with os.fdopen(reading) as log:
                numbers = [int(line.split("number=")[1]) for line in log]
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait(60)
        out.seek(0)
        assert out.read() == "all is said\n"
    assert numbers == list(range(LINES))
