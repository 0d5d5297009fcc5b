"""Runs in Neutron's environment: says for each host named that an Open vSwitch agent lives there.

usage: fake_agents.py NEUTRON_CONF HOST...
"""

import sys
import time

from neutron.agent import rpc
from neutron.common import config
from neutron.conf.agent import common
from neutron_lib import context
from neutron_lib.agent import topics
from oslo_config import cfg

common.register_agent_state_opts_helper(cfg.CONF)
config.register_common_config_options()
config.init(["--config-file", sys.argv[1]])
config.setup_logging()
admin = context.get_admin_context_without_session()
reports = rpc.PluginReportStateAPI(topics.REPORTS)
states = [
    {
        "binary": "neutron-openvswitch-agent",
        "host": host,
        "topic": "N/A",
        "agent_type": "Open vSwitch agent",
        "configurations": {
            "bridge_mappings": {"physnet1": "br-phys"},
            "tunnel_types": ["vxlan"],
            "tunneling_ip": "127.0.0.1",
            "l2_population": False,
            "datapath_type": "netdev",
            "integration_bridge": "br-int",
            "ovs_hybrid_plug": False,
            "ovs_capabilities": {"datapath_types": ["netdev", "system"], "iface_types": ["tap", "internal"]},
        },
        "resource_versions": {},
        "start_flag": True,
    }
    for host in sys.argv[2:]
]
while True:
    for state in states:
        reports.report_state(admin, state, True)
        state.pop("start_flag", None)
    time.sleep(20)
