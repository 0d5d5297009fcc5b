"""The controllers of a lab: their settings, and when they are ready. Called by `Lab`."""

import json
import time
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sterna.lab.errors import LabError
from sterna.lab.places import NATS_URL
from sterna.lab.record import LabRecord


def settings_file(state: Path, number: int) -> Path:
    """The settings of the controller of that number, from 1."""
    return state / f"controller{'' if number == 1 else number}.toml"


def write_settings(state: Path, number: int, database: str, record: LabRecord) -> tuple[Path, str]:
    """Writes them; the file, and the scheme of the API's URL. The CA and the token are put into `record`."""
    identity, ca = state / f"controller{number}-identity", state / "ca/ca.crt"
    enrolled = f'[identity]\nenrol = "sterna"\nfolder = "{identity}"\n' if identity.exists() else ""
    bus = f'[bus]\nurl = "{NATS_URL}"\n'
    config = settings_file(state, number)
    config.write_text(f'database = "{database}"\n{enrolled}{bus}{record.token_settings()}')
    record.controller_ca = str(ca) if enrolled else None
    return config, "https" if enrolled else "http"


def await_hosts(url: str, hosts: Collection[str], access: dict[str, Any], timeout: float) -> None:
    """Until the controller at `url` has heard the agent of every host. `access`: `Lab.api_access`.

    Raises LabError after `timeout` seconds.
    """
    deadline, seen = time.monotonic() + timeout, "nothing"
    while time.monotonic() < deadline:
        try:
            asked = urllib.request.Request(f"{url}/v1/hosts", headers=access["headers"])  # noqa: S310
            with urllib.request.urlopen(asked, timeout=5, context=access["verify"]) as answer:  # noqa: S310
                up = {host["name"] for host in json.load(answer)["hosts"] if host["state"] == "up"}
        except OSError as error:
            seen = str(error)
        else:
            if up >= set(hosts):
                return
            seen = f"only {', '.join(sorted(up)) or 'no host'} is up"
        time.sleep(0.05)
    raise LabError(f"the agents are not ready after {timeout:g} s ({seen})")
