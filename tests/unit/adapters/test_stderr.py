"""The log on stderr: no line is lost, and each has the form that is asked for."""

from __future__ import annotations

import json
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


OF_LIBRARIES = """
import asyncio, logging, warnings
import structlog
from sterna.adapters.stderr import log_to_stderr

log_to_stderr("info", "json")
log_to_stderr("info", "json")
structlog.get_logger().info("own")
logging.getLogger("asyncio").warning("slow %s", "callback")
logging.getLogger("asyncio").warning("returning true from eof_received() has no effect when using ssl")
logging.getLogger("sqlalchemy").info("of no interest")
try:
    raise ValueError("two\\nlines")
except ValueError:
    logging.getLogger("uvicorn.error").exception("failed")

async def left():
    async def fail():
        raise RuntimeError("nobody waits for this")
    asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(left())
"""


def test_what_libraries_log_has_the_same_form() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OF_LIBRARIES], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(one["level"], one["event"], one.get("logger")) for one in lines] == [
        ("info", "own", None),
        ("warning", "slow callback", "asyncio"),
        ("error", "failed", "uvicorn.error"),
        ("error", lines[-1]["event"], "asyncio"),
    ]
    assert "two\nlines" in lines[2]["exception"] and "nobody waits for this" in lines[3]["exception"]
    assert "never retrieved" in lines[3]["event"]
