"""A network agent that is late: it wires every port of both hosts' switches some time after the port is born.

Used by the experiment `late`. As with OVN, a port that is not wired has no flow: what its guest sends is dropped.
The agent follows the switch's own database, adds the flow when the time has come, and says so in the interface's
external_ids (`ovn-installed`). The network between the hosts is made to need no learning (every frame goes
everywhere), so that nothing but the wiring decides when a guest is heard.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sterna.lab.host import LabHost
from sterna.lab.lab import Lab

_FLOW = "priority=10,in_port={},actions=FLOOD"


class LateAgents:
    """One agent per host. `delay_s` may be changed at any time; it counts for ports that are born later."""

    def __init__(self, lab: Lab) -> None:
        self.delay_s = 0.0
        self._lab = lab
        self._following: list[subprocess.Popen[str]] = []
        self._wired: set[str] = set()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For as long as the block lasts."""
        for host in self._lab.hosts.values():
            host.run(["ovs-ofctl", "del-flows", "br-int"])
            uplink = host.run(["ovs-vsctl", "get", "Interface", "uplink", "ofport"]).stdout.strip()
            host.run(["ovs-ofctl", "add-flow", "br-int", _FLOW.format(uplink)])
        self._lab.run(["ip", "link", "set", "tenant", "type", "bridge", "ageing_time", "0"])
        for host in self._lab.hosts.values():
            threading.Thread(target=self._follow, args=(host,), daemon=True).start()
        try:
            yield
        finally:
            for process in self._following:
                process.kill()
                process.wait()

    def _follow(self, host: LabHost) -> None:
        where = ("unix:/run/openvswitch/db.sock", "Open_vSwitch", "Interface", "name,ofport,external_ids")
        argv = ["ovsdb-client", "--format=json", "monitor", *where]
        process = subprocess.Popen(host.inside.command(argv), stdout=subprocess.PIPE, text=True)
        self._following.append(process)
        for line in process.stdout or ():
            for row in _rows(line):
                self._look(host, row)

    def _look(self, host: LabHost, row: dict[str, Any]) -> None:
        """A guest's port that works and was not seen before is due in `delay_s`."""
        if row["action"] not in ("initial", "insert", "new"):
            return
        ids, number, me = dict(row["external_ids"][1]), row["ofport"], f"{host.name} {row['name']} {row['ofport']}"
        if "iface-id" not in ids or me in self._wired:
            return
        if isinstance(number, int) and number > 0:
            self._wired.add(me)
            threading.Timer(self.delay_s, self._wire, (host, row["name"], number)).start()

    def _wire(self, host: LabHost, name: str, number: int) -> None:
        wire = f"ovs-ofctl add-flow br-int {_FLOW.format(number)}"
        say = f"ovs-vsctl -- --if-exists set Interface {name} external_ids:ovn-installed=true"
        host.run(["sh", "-c", f"{wire} && {say}"], check=False)  # a port may be gone by now


def _rows(line: str) -> list[dict[str, Any]]:
    table = json.loads(line)
    return [dict(zip(table["headings"], row, strict=True)) for row in table["data"]]
