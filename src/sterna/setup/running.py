"""The controller after its setup: does it work? And the first token for its API."""

from __future__ import annotations

import time
from pathlib import Path

from sterna.adapters.identity import private_files
from sterna.cli.api_address import UNIX, ApiAddress
from sterna.cli.client import ApiAway, ApiError, Client
from sterna.domain.errors import Conflict, Permanent, Unreachable

UP_S, LOOK_S = 20.0, 0.5
DAYS = 90


def client_at(socket: str) -> Client:
    """Of the controller on this machine, as root."""
    return Client.of(ApiAddress(f"{UNIX}{socket}"))


def what_is_wrong(client: Client) -> str:
    """Why the controller cannot work now; '' where it can. It gets a moment to reach the bus."""
    until, why = time.monotonic() + UP_S, ""
    while True:
        try:
            bus = client.get("/v1/hosts", limit=1)["bus"]
            why = "" if bus["connected"] else f"it has not reached the message bus: {bus['why']}"
        except (ApiAway, ApiError) as error:
            why = str(error)
        if not why or time.monotonic() >= until:
            return why
        time.sleep(LOOK_S)


def has_token(client: Client, name: str) -> bool:
    """Is there one of this name? False where the controller does not answer yet."""
    try:
        return any(one["name"] == name for one in client.get("/v1/tokens")["tokens"])
    except (ApiAway, ApiError):
        return False


def create_token(client: Client, name: str) -> str:
    """A token of the role admin. Raises Unreachable, or Conflict where there is one of this name."""
    try:
        return str(client.post("/v1/tokens", {"name": name, "role": "admin", "days": DAYS})["token"])
    except ApiAway as error:
        again = f"once the controller runs: sterna token create {name} --role admin"
        raise Unreachable(f"no token was created: {error}", fix=again) from error
    except ApiError as error:
        kind = Conflict if error.status == 409 else Permanent
        raise kind(f"no token was created: {error}", fix="see `sterna token list`") from error


def keep_token(file: Path, token: str) -> None:
    """In a file that only its owner may read. Raises BadRequest."""
    private_files.write(file.absolute(), f"{token}\n".encode())
