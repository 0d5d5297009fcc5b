"""The alert rules that are shipped, and promtool, which reads them as Prometheus does."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import yaml

RULES = Path(__file__).parents[2] / "packaging/prometheus/alerts.yml"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str | Path) -> str:
    """What it has against the files; '' for nothing."""
    tool = which("promtool")
    assert tool is not None, "promtool is not installed (Debian: apt-get install prometheus)"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
