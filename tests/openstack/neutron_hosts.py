"""Lab hosts whose switches real neutron-openvswitch-agents run, and what Neutron says of their ports.

The lab's guests' network becomes a flat provider network: `br-phys` holds the host's link to it, the agent joins
`br-int` to it and tags ports with its own local VLANs.
"""

from __future__ import annotations

import itertools
import json
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

from openstack.connection import Connection

from sterna.lab.host import LabHost
from sterna.lab.lab import Lab
from tests.openstack.installing import home, program
from tests.openstack.servers import Servers
from tests.openstack.texts import AUTH_URL, PASSWORD

FIRST_GUEST = ("10.74.0.20", "52:54:00:74:00:14")
"""Address and MAC of the first guest a lab makes; the others follow in turn."""
FIRST_KEEPER = 200
"""Addresses that no guest of a lab comes to."""
PRIVSEP = ("privsep", "privsep_dhcp_release", "privsep_ovs_vsctl", "privsep_namespace", "privsep_conntrack",
           "privsep_link")  # fmt: skip
AGENT_INI = """\
[DEFAULT]
host = {host}
state_path = {state}
[oslo_concurrency]
lock_path = {state}
[ovs]
datapath_type = netdev
bridge_mappings = physnet1:br-phys
integration_bridge = br-int
ovsdb_connection = unix:/run/openvswitch/db.sock
[agent]
polling_interval = 2
extensions =
root_helper =
root_helper_daemon =
[securitygroup]
enable_security_group = {groups}
enable_ipset = false
firewall_driver = {firewall}
"""
SWITCH = """
ovs-vsctl del-port br-int uplink
ovs-vsctl add-br br-phys -- set bridge br-phys datapath_type=netdev fail_mode=standalone -- add-port br-phys uplink
"""


class NeutronHosts:
    """A lab, its OpenStack servers, and a network agent and a Sterna agent on each host."""

    def __init__(self, lab: Lab, servers: Servers, firewall: str) -> None:
        self.lab, self.servers, self.firewall = lab, servers, firewall
        self.network_id = ""
        self._made = itertools.count()

    @property
    def hybrid(self) -> bool:
        """Does Neutron want the ports plugged the hybrid way?"""
        return self.firewall == "iptables_hybrid"

    @classmethod
    def up(cls, state: Path, firewall: str = "noop", *, cinder: bool = False) -> NeutronHosts:
        """Everything, running; it ends with this process or with `down`. With `cinder` the agents have its volumes
        too. Raises LabError."""
        lab = Lab.up(state, agents=False, owner=True)
        try:
            hosts = cls(lab, Servers.up(lab.outer, state.absolute() / "openstack"), firewall)
            for host in lab.hosts.values():
                hosts.start_network_agent(host)
            hosts.servers.eventually(lambda: set(lab.hosts) <= hosts.servers.ask(_live), "the network agents")
            hosts.network_id = hosts.servers.ask(_make_network)
            lab.start_controller()
            for host in lab.hosts.values():
                settings = host.root / "state/agent.toml"
                text = with_neutron(settings.read_text())
                settings.write_text(text.replace("[volumes]", '[volumes]\nprovider = "cinder"') if cinder else text)
                lab.start_agent(host.name)
            lab.wait_ready()
            return hosts
        except BaseException:
            lab.down()
            raise

    def down(self) -> None:
        """End it all."""
        self.servers.close()
        self.lab.down()

    def start_network_agent(self, host: LabHost) -> None:
        """A real neutron-openvswitch-agent on the host, on its real switch."""
        host.run(["sh", "-ec", SWITCH])
        etc = self.servers.places.etc
        own = etc / f"ovs-agent-{host.name}.ini"
        groups = "false" if self.firewall == "noop" else "true"
        text = AGENT_INI.format(
            host=host.name, state=f"/run/neutron-{host.name}", groups=groups, firewall=self.firewall
        )
        text += "".join(f"[{s}]\nhelper_command = {home()}/neutron/bin/privsep-helper\n" for s in PRIVSEP)
        own.write_text(text)
        argv = [program("neutron", "neutron-openvswitch-agent"), "--config-file", f"{etc}/neutron.conf"]
        path = f"PATH={home()}/neutron/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        log = self.servers.places.log / f"ovs-agent-{host.name}.log"
        host.inside.detach(["env", path, *argv, "--config-file", str(own)], log)

    def restart_agents(self, **settings: float) -> None:
        """Sterna's agents begin again with these settings of `[network]`."""
        for host in self.lab.hosts.values():
            file = host.root / "state/agent.toml"
            lines = [line for line in file.read_text().splitlines() if line.split(" =")[0] not in settings]
            at = lines.index("[network]") + 1
            file.write_text("\n".join([*lines[:at], *(f"{k} = {v}" for k, v in settings.items()), *lines[at:], ""]))
            self.lab.kill_agent(host.name, signal.SIGTERM)
            self.lab.start_agent(host.name)
        time.sleep(6)  # what the controller knows of the agents' former lives runs out after five seconds
        self.lab.wait_ready()

    def make_port(self, host: str, address: str, mac: str) -> str:
        """A VM's port, bound to `host`; its id."""

        def act(cloud: Connection) -> str:
            fixed = [{"ip_address": address}]
            port = cloud.network.create_port(
                network_id=self.network_id, mac_address=mac, fixed_ips=fixed, binding_host_id=host,
                device_owner="compute:nova", port_security_enabled=False,
            )  # fmt: skip
            return str(port.id)

        return self.servers.ask(act)

    def next_guest(self) -> int:
        """The number of the guest that the lab makes next, from 0: whoever makes it asks once."""
        return next(self._made)

    def address_of(self, number: int) -> tuple[str, str]:
        """The address and the MAC that the lab gives that guest: its port is made before it."""
        last = int(FIRST_GUEST[0].rpartition(".")[2]) + number
        return f"10.74.0.{last}", f"52:54:00:74:00:{last:02x}"

    def keep_network_on(self, host: str) -> None:
        """A port that stays on the host, once: its agent then has a VLAN for the network all the time."""
        device, inside = f"keeper-{host}", self.lab.hosts[host]
        if inside.run(["ovs-vsctl", "port-to-br", device], check=False).returncode == 0:
            return
        last = FIRST_KEEPER + inside.index
        mac = f"52:54:00:74:01:{last:02x}"
        port_id = self.make_port(host, f"10.74.0.{last}", mac)
        ids = [
            f"external_ids:iface-id={port_id}",
            f"external_ids:attached-mac={mac}",
            "external_ids:iface-status=active",
        ]
        inside.run(
            ["ovs-vsctl", "add-port", "br-int", device, "--", "set", "Interface", device, "type=internal", *ids]
        )
        self.servers.eventually(lambda: self.port(port_id)["status"] == "ACTIVE", f"port {device}")

    def port(self, port_id: str) -> dict[str, Any]:
        """The port as Neutron shows it."""
        return self.servers.ask(lambda c: c.network.get(f"/ports/{port_id}").json()["port"])

    def bindings(self, port_id: str) -> list[tuple[str, str, str]]:
        """(host, status, vif type) of each of its bindings, as Neutron says."""
        found = self.servers.ask(lambda c: c.network.get(f"/ports/{port_id}/bindings").json()["bindings"])
        return sorted((b["host"], b["status"], b["vif_type"]) for b in found)

    def tag(self, host: str, device: str) -> object:
        """The VLAN tag a port of `br-int` has."""
        text = self.lab.hosts[host].run(["ovs-vsctl", "--format=json", "get", "Port", device, "tag"]).stdout
        return json.loads(text) if text.strip() != "[]" else None


def with_neutron(settings: str) -> str:
    """The agent's settings with the network provider `neutron`."""
    cloud = f"""
        [openstack]
        auth_url = "{AUTH_URL}"
        username = "sterna"
        password = "{PASSWORD}"
        """
    return settings.replace("[network]\n", '[network]\nprovider = "neutron"\n') + textwrap.dedent(cloud)


def _live(cloud: Connection) -> set[str]:
    return {agent.host for agent in cloud.network.agents() if agent.is_alive}


def _make_network(cloud: Connection) -> str:
    made = cloud.network.create_network(
        name="guests", provider_network_type="flat", provider_physical_network="physnet1", is_shared=True
    )
    cloud.network.create_subnet(
        network_id=made.id, cidr="10.74.0.0/24", ip_version=4, enable_dhcp=False, gateway_ip="10.74.0.1"
    )
    return str(made.id)
