"""One run of Schemathesis, and the requests without a token."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from sterna.lab.lab import Lab

NOBODY = "nobody"
TOOL = Path(".cache/fuzz/bin/schemathesis")
STREAMS = r"/events$"
"""They do not end: tests/unit/api/test_streams.py has them."""
SETTINGS = Path(__file__).with_name("schemathesis.toml")


def ask_everything(lab: Lab, document: Path, folder: Path, token: str | None, seconds: int, seed: int) -> list[str]:
    """All that Schemathesis thinks of in that time. What was wrong: a line, which names the report."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [str(TOOL), "--config-file", str(SETTINGS), "run", str(document), "--url", lab.controller_url or ""]
    argv += ["--max-time", str(seconds), "--seed", str(seed), "--exclude-path-regex", STREAMS, "--no-color"]
    argv += ["--request-timeout", "60", "--report", "ndjson", "--report-ndjson-path", str(folder / "events.ndjson")]
    if token is None:  # 401 comes before 405
        argv += ["--exclude-checks", "unsupported_method"]
    else:
        argv += ["--header", f"Authorization: Bearer {token}"]
    if lab.controller_ca:
        argv += ["--tls-verify", lab.controller_ca]
    report = folder / "report.txt"
    with report.open("w") as output:
        ended = subprocess.run(
            argv, stdout=output, stderr=subprocess.STDOUT, timeout=seconds * 3 + 120, check=False
        )
    summary = report.read_text().rstrip().rpartition("\n")[2]
    print(f"{folder.name}: {summary}", flush=True)
    return [f"as {folder.name}: {summary}; see {report}"] if ended.returncode else []


def nobody_was_let_in(lab: Lab, document: dict[str, Any]) -> list[str]:
    """Each operation that needs a user, asked without a token and with a wrong one."""
    wrong = []
    with httpx2.Client(base_url=lab.controller_url or "", timeout=30, verify=lab.api_access["verify"]) as client:
        for method, path in _guarded(document):
            for headers in ({}, {"Authorization": "Bearer sterna_0123456789ab_" + "A" * 43}):
                status = client.request(method, path, headers=headers).status_code
                if status != httpx2.codes.UNAUTHORIZED:
                    wrong.append(f"{method} {path} without a valid token: {status}")
    return wrong


def _guarded(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                yield method.upper(), path.replace("{", "").replace("}", "")
