"""`make fuzz`: Schemathesis asks the API of a real lab for everything its OpenAPI document has, as each role and as
nobody. out/fuzz has its reports. Exit 1: an answer was wrong, or a guest is not as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx2

from sterna.domain.access import UserRole
from sterna.lab.lab import Lab
from tests.fuzz.run import NOBODY, ask_everything, nobody_was_let_in
from tests.fuzz.world import GuestsAsTheyWere

STATE, OUT = Path(".lab-fuzz"), Path("out/fuzz")


def main(arguments: Sequence[str]) -> int:
    """0: nothing was wrong; 1: something was; 2: it cannot be run like this."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Any request, as anybody.")
    parser.add_argument("--minutes", type=float, default=15, help="all roles together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", choices=[NOBODY, *UserRole], action="append", help="only this one")
    asked = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("the lab needs root: try 'sudo make fuzz'", file=sys.stderr)
        return 2
    roles = asked.role or [NOBODY, *UserRole]
    OUT.mkdir(parents=True, exist_ok=True)
    lab = Lab.up(STATE, owner=True)
    try:
        wrong = fuzz(lab, roles, asked.minutes * 60 / len(roles), asked.seed)
    finally:
        lab.down()
    print(*(f"WRONG: {line}" for line in wrong), "nothing was wrong" if not wrong else "", sep="\n")
    return 1 if wrong else 0


def fuzz(lab: Lab, roles: Sequence[str], seconds: float, seed: int) -> list[str]:
    """Each role in turn; what was wrong."""
    guests = GuestsAsTheyWere(lab)
    with httpx2.Client(base_url=lab.controller_url or "", timeout=30, **lab.api_access) as admin:
        document = OUT / "openapi.json"
        document.write_text(json.dumps(admin.get("/openapi.json").raise_for_status().json()))
        wrong = nobody_was_let_in(lab, json.loads(document.read_text()))
        for role in roles:
            token = None if role == NOBODY else lab.controller_token
            if role not in (NOBODY, UserRole.ADMIN):  # an administrator's requests may remove any other token
                made = admin.post("/v1/tokens", json={"name": f"fuzz-{role}", "role": role, "days": 1})
                token = made.raise_for_status().json()["token"]
            wrong += ask_everything(lab, document, OUT / role, token, round(seconds), seed)
            wrong += [f"after {role}: {line}" for line in guests.differences()]
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
