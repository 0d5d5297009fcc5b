"""Collects the contents of the bundle, from this machine and from the controller."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sterna.cli.api_address import find_apis
from sterna.cli.client import Client, path_of
from sterna.config import AgentSettings, ControllerSettings
from sterna.domain.errors import BadRequest, Permanent
from sterna.kit import redaction
from sterna.kit.command import run
from sterna.kit.loop import run as run_on_loop
from sterna.kit.version import installed
from sterna.support.bundle import Bundle

UNITS = ("sterna-agent", "sterna-controller")
LOG_S = 60.0
NEWEST = 200
"""Operations and migrations."""
LARGEST = 1 << 20
"""Bytes of a settings file."""


def versions(bundle: Bundle) -> None:
    """Of this machine: Sterna, Python and its packages, the kernel, the distribution."""
    packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    release = platform.freedesktop_os_release()
    found = {
        "sterna": installed() or None,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "system": release.get("PRETTY_NAME"),
        "packages": dict(sorted(packages.items())),
    }
    bundle.add_document("versions.json", found)


def settings(bundle: Bundle, file: Path) -> None:
    """Of one process, without secrets and comments. Those in it are looked for everywhere else."""
    with file.open("rb") as opened:
        content = opened.read(LARGEST)
    try:
        data = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise BadRequest("it is not TOML, and left out") from None
    kind = AgentSettings if "host" in data or "migration" in data else ControllerSettings
    shown = redaction.settings(data, kind)
    bundle.secrets |= set(redaction.secrets_of(data, shown))
    bundle.add_document(f"settings/{file.name}.json", shown)


def environment(bundle: Bundle) -> None:
    """Which variables of Sterna's are set; not to what."""
    names = sorted(name for name in os.environ if name.startswith("STERNA_"))
    bundle.secrets |= {os.environ[name] for name in names if redaction.is_secret(name) or "DATABASE" in name}
    bundle.add_document("environment.json", {"set": names})


def local_doctor(bundle: Bundle, config: Path) -> None:
    """As `sterna agent doctor` sees this host."""
    from sterna.bootstrap.doctor import examine  # needs libvirt

    found = [one.model_dump(mode="json") for one in run_on_loop(examine(config, []))]
    bundle.add_document("doctor-here.json", {"findings": found})


def log(bundle: Bundle, unit: str, lines: int) -> None:
    """The last lines of a unit in systemd's journal."""
    command = ("journalctl", "--unit", unit, "--lines", str(lines), "--no-pager", "--output", "short-iso-precise")
    done = asyncio.run(run(command, limit_s=LOG_S))
    if done.code != 0:
        raise Permanent(done.words)
    if done.out.strip() and "-- No entries --" not in done.out:
        bundle.add(f"log/{unit}.log", done.out)


def fleet(bundle: Bundle, api: list[str] | None, wanted: Sequence[str], *, doctor: bool) -> None:
    """What the controller knows; of the `wanted` migrations every step. `doctor`: it examines all hosts as well."""
    addresses = find_apis(api)
    bundle.secrets |= {one.token for one in addresses if one.token}
    client = Client.of(*addresses)
    answered = bundle.attempt("the controller", partial(_asked, bundle, "controller.json", client, "/v1/version"))
    if not answered:
        return
    for name in ("hosts", "vms"):
        bundle.attempt(name, partial(_listed, bundle, client, name))
    for name in ("operations", "migrations"):
        bundle.attempt(name, partial(_asked, bundle, f"{name}.json", client, f"/v1/{name}", limit=NEWEST))
    bundle.attempt("queue", partial(_asked, bundle, "queue.json", client, "/v1/queue", limit=NEWEST))
    for begin in wanted:
        bundle.attempt(f"migration {begin}", partial(_migration, bundle, client, begin))
    if doctor:
        with_time = Client.of(*addresses)  # it may take all that a command has
        bundle.attempt("doctor", partial(_examined, bundle, with_time))


def _migration(bundle: Bundle, client: Client, begin: str) -> None:
    id = client.migration_id(begin)
    path = path_of("migrations", id)
    bundle.add_document(f"migrations/{id}.json", client.get(path))
    bundle.add_document(f"migrations/{id}.timeline.json", client.get(f"{path}/timeline"))


def _asked(bundle: Bundle, name: str, client: Client, path: str, **query: Any) -> None:
    bundle.add_document(name, client.get(path, **query))


def _listed(bundle: Bundle, client: Client, name: str) -> None:
    bundle.add_document(f"{name}.json", client.pages(f"/v1/{name}", name, None))


def _examined(bundle: Bundle, client: Client) -> None:
    bundle.add_document("doctor.json", client.post("/v1/doctor", {"hosts": []}))


def machine(bundle: Bundle, configs: Sequence[Path], *, lines: int, doctor: bool) -> None:
    """All that is here: settings first, because their secrets are looked for in all else."""
    bundle.attempt("environment", partial(environment, bundle))
    for file in configs:
        bundle.attempt(f"settings {file}", partial(settings, bundle, file))
    bundle.attempt("versions", partial(versions, bundle))
    for unit in UNITS if lines else ():
        bundle.attempt(f"log of {unit}", partial(log, bundle, unit, lines))
    agent = next((file for file in configs if file.name == "agent.toml" and file.exists()), None)
    if doctor and agent is not None:
        bundle.attempt("doctor on this host", partial(local_doctor, bundle, agent))
