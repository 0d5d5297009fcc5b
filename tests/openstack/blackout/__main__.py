"""How long nobody reaches a guest with a Neutron port while it moves, with real Open vSwitch agents.

    python -m tests.openstack.blackout [quick] [order] [late] [late-hybrid] [--rounds N] [--arm NAME]

`quick`: Sterna, Nova's requests to Neutron in Nova's order around libvirt's own migration, and other ways to hand
the port over, interleaved at random in one run, over a link that nothing slows down. `order`: the same over a link
of 100 MiB/s, so that an agent has time to look while the copy lasts. `late`: Sterna, while the destination's
network agent is stopped and goes on 0, 1, 5 or 20 s after the port was made there; `late-hybrid`: the same where
Neutron wants hybrid plug. Prints tables and writes every sample to out/bench/. As root, on a machine that has
nothing else to do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tests.openstack.blackout.experiments import ARMS, EXPERIMENTS, FIREWALLS, Asked
from tests.openstack.blackout.sample import table
from tests.openstack.neutron_hosts import NeutronHosts

STATE, OUT = Path(".lab-bench"), Path("out/bench")


def main() -> int:
    """The benchmark; raises LabError where a move went wrong."""
    parser = argparse.ArgumentParser(prog="tests.openstack.blackout", description=__doc__)
    parser.add_argument("experiment", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; all where none is named")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--arm", action="append", choices=ARMS, help="of quick and order; may be repeated; else all"
    )
    told = parser.parse_args()
    if unknown := set(told.experiment) - set(EXPERIMENTS):
        parser.error(f"there is no experiment {', '.join(sorted(unknown))}")
    console = Console(soft_wrap=True)
    asked = Asked(told.rounds, told.arm or tuple(ARMS), console)
    OUT.mkdir(parents=True, exist_ok=True)
    for firewall, names in itertools.groupby(told.experiment or EXPERIMENTS, key=lambda name: FIREWALLS[name]):
        hosts = NeutronHosts.up(STATE, firewall)
        try:
            for name in names:
                samples = EXPERIMENTS[name](hosts, asked)
                (OUT / f"neutron-{name}.json").write_text(json.dumps([asdict(s) for s in samples], indent=1))
                console.print(table(f"{name}: ML2/OVS, {'hybrid' if hosts.hybrid else 'normal'} plug", samples))
        finally:
            hosts.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
