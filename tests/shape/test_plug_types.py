"""A plug type is one value in one registry: nobody else compares names, so one more type touches four files.

What is added in a copy here, and runs there, is what docs/contributing/adding-a-plug-type.md tells to do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.domain import model, plugs
from sterna.domain.plugs import PLUG_TYPES
from tests.parsing import parse
from tests.shape.seams import AT_MOST, SOURCE, Copy

KINDS = [kind.name for kind in PLUG_TYPES]
NAMES = {name: value for name, value in vars(plugs).items() if value in KINDS and name not in vars(model)}
"""The constants of `domain/plugs.py` that are names of plug types."""
NAMED_IN = {
    "domain/plugs.py": {*NAMES},
    "adapters/libvirt/xml/nic_forms.py": {*NAMES},
    "adapters/vif/plugs.py": {*NAMES},
    "adapters/vif/ovs.py": {"OVS"},
    "adapters/vif/hybrid.py": {"HYBRID"},
    "adapters/vif/bridge.py": {"BRIDGE"},
}
"""The registries, and the modules that plug one type each."""
NOT_OURS = ("lab/",)
"""It makes guests and hosts, and knows nothing of Sterna (`.importlinter`)."""


def named(text: str) -> Iterator[str]:
    """The plug types that a module names: by a constant, or by a word that is compared or given as one."""
    for node in ast.walk(parse(text)):
        match node:
            case ast.ImportFrom(module="sterna.domain.plugs", names=names):
                yield from (alias.name for alias in names if alias.name in NAMES)
            case ast.Attribute(value=ast.Name(id="plugs"), attr=name) if name in NAMES:
                yield name
            case ast.keyword(arg="plug", value=ast.Constant(value=word)):
                yield from words({word})
            case ast.Dict(keys=keys, values=values):
                given = zip(keys, values, strict=True)
                yield from words({v.value for k, v in given if is_plug(k) and isinstance(v, ast.Constant)})
            case ast.Compare(left=left, comparators=right) if any(map(is_plug, (left, *right))):
                every = (each for part in right for each in ast.walk(part))
                yield from words({each.value for each in every if isinstance(each, ast.Constant)})


def is_plug(node: ast.expr | None) -> bool:
    """`something.plug`, `plug`, or the key "plug"?"""
    match node:
        case ast.Attribute(attr="plug") | ast.Name(id="plug") | ast.Constant(value="plug"):
            return True
    return False


def words(found: set[object]) -> list[str]:
    """The constants whose value is one of these."""
    return [constant for constant, value in NAMES.items() if value in found]


def test_there_are_names() -> None:
    assert sorted(NAMES.values()) == sorted(KINDS)


def test_only_the_registries_name_a_plug_type() -> None:
    found = {path.relative_to(SOURCE).as_posix(): {*named(path.read_text())} for path in SOURCE.rglob("*.py")}
    ours = {file: names for file, names in found.items() if not file.startswith(NOT_OURS)}
    assert {file: names for file, names in ours.items() if names - NAMED_IN.get(file, set())} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from sterna.domain.plugs import HOSTDEV, tap_name",
        "from sterna.domain import plugs\nx = plugs.HYBRID",
        "def f(nic):\n    return nic.plug == 'macvtap'",
        "def f(nic):\n    return nic.plug in ('bridge', 'ovs')",
        "def f(plug):\n    return plug != 'bridge'",
        "nic = Nic(mac='', plug='hostdev')",
        "update = {'plug': 'bridge'}",
    ],
)
def test_a_name_is_found(line: str) -> None:
    assert [*named(line)]


MADE_UP = """
from sterna.adapters.vif.bridge import LinuxBridgeVif


class MidonetVif(LinuxBridgeVif):
    \"\"\"A made-up plug type.\"\"\"
"""
USED = """
import asyncio
from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.render import render_live
from sterna.adapters.network.neutron.plug import nic_for
from sterna.adapters.vif.midonet import MidonetVif
from sterna.adapters.vif.plugs import Plugs
from sterna.domain.bindings import Binding
from sterna.domain.copying import CopyPlan, DestinationNic
from sterna.domain.model import Nic
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from tests.saga.fleet import SimFleet

MAC = "52:54:00:00:00:01"
XML = f'''<domain><name>vm</name><uuid>u</uuid><memory>1</memory><devices><interface type="bridge">
<mac address="{MAC}"/><source bridge="br0"/><virtualport type="midonet"/></interface></devices></domain>'''
(nic,) = describe(XML).nics
assert (nic.plug, nic.bridge) == ("midonet", "br0"), nic
there = DestinationNic(mac=MAC, plug="midonet", device="tap1", bridge="br1")
(moved,) = describe(render_live(XML, CopyPlan(migration_id="m", epoch=1, destination_uri="", nics=(there,)))).nics
assert (moved.plug, moved.bridge, moved.device) == ("midonet", "br1", "tap1"), moved
plain = DestinationNic(mac=MAC, plug="bridge", device="tap1", bridge="br1")
(other,) = describe(render_live(XML, CopyPlan(migration_id="m", epoch=1, destination_uri="", nics=(plain,)))).nics
assert other.plug == "bridge", other
binding = Binding(host="h", active=True, vif_type="midonet", vif_details={"bridge_name": "br2"})
bound = nic_for(nic, binding, "h", mtu=1)
assert (bound.plug, bound.bridge) == ("midonet", "br2"), bound
assert isinstance(Plugs()._of(nic), MidonetVif)


async def scenario(fleet):
    async with fleet:
        vm = add_vm(fleet.world, "host1", "vm1", plugs=("ovs", "midonet"))
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert "midonet" in {p.plug for p in fleet.world.hosts["host2"].ports.values()}
        assert not fleet.world.hosts["host1"].ports and not fleet.world.violations


fleet = SimFleet()
asyncio.run(fleet.clock.run(scenario(fleet)))
"""


def test_a_made_up_plug_type_touches_four_files_and_moves(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    domain, forms, real = "domain/plugs.py", "adapters/libvirt/xml/nic_forms.py", "adapters/vif/plugs.py"
    copy.insert(domain, "@dataclass(frozen=True)\nclass PlugType:", 'MIDONET: Final = "midonet"\n\n\n')
    said = '{"bridge": b.vif_details["bridge_name"]} if b.vif_type == MIDONET else None'
    copy.insert(
        domain,
        "    PlugType(VHOSTUSER,",
        f'    PlugType(MIDONET, Joins.LINUX_BRIDGE, needs=("bridge",), made_ahead=True, bound=lambda b: {said}),\n',
    )
    copy.insert(forms, "LOCATIONS = ", "from sterna.domain.plugs import MIDONET\n")
    copy.insert(
        forms,
        "    BRIDGE: Form(",
        '    MIDONET: Form("bridge", lambda i: _attr(i, "virtualport", "type") == "midonet", move=_move_bridge),\n',
    )
    copy.insert(
        real,
        "class Plugs:",
        "from sterna.adapters.vif.midonet import MidonetVif\nfrom sterna.domain.plugs import MIDONET\n\n\n",
    )
    copy.insert(real, "            BRIDGE: LinuxBridgeVif(", "            MIDONET: MidonetVif(self._netlink),\n")
    copy.write("adapters/vif/midonet.py", MADE_UP)
    done = copy.run(USED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(copy.touched()) <= AT_MOST, copy.touched()


def test_a_made_up_plug_type_does_not_move_without_that(tmp_path: Path) -> None:
    done = Copy(tmp_path).run(USED.replace("from sterna.adapters.vif.midonet import MidonetVif\n", ""))
    assert done.returncode != 0
    assert "AssertionError" in done.stderr
