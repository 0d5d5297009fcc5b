"""Where the labs of a test run keep their state: tests may run in several processes side by side (pytest-xdist)."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / ".lab-test"


def state(name: str) -> Path:
    """The folder for a lab of this process: labs of the same name in two processes do not meet."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return ROOT / (f"{name}-{worker}" if worker else name)
