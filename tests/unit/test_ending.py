"""A process of Sterna ends without tearing Python down, and all that it printed is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, sys
from sterna.kit.ending import leave

atexit.register(print, "torn down")
print("printed")
print("an error", file=sys.stderr)
{before}
leave({code})
"""


def ended(code: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(code=code, before=before)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("code, expected", [("", 0), ("3", 3)])
def test_what_was_printed_is_written_and_nothing_is_torn_down(code: str, expected: int) -> None:
    done = ended(code)
    assert (done.returncode, done.stdout, done.stderr) == (expected, "printed\n", "an error\n")


def test_streams_that_are_closed_keep_nothing_from_ending() -> None:
    assert ended(before="sys.stdout.close()").returncode == 0
