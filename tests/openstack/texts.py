"""The servers' settings files. Facts worth knowing stand beside the lines they explain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sterna.lab.places import IQN_PREFIX, ISCSI_PORTAL_PORT, LAB_ADDRESS
from tests.openstack.installing import home, program

PASSWORD = "secret"
REGION = "RegionOne"
KEYSTONE, NEUTRON, CINDER, COMPUTE = 5000, 9696, 8776, 8774
AUTH_URL = f"http://{LAB_ADDRESS}:{KEYSTONE}/v3"
RABBIT = f"rabbit://openstack:{PASSWORD}@{LAB_ADDRESS}:5672/"
DATABASES = ("keystone", "neutron", "cinder")
SERVICE_USERS = ("neutron", "cinder", "nova", "sterna")
"""`sterna` is the one that the agents log in as."""
ENDPOINTS = {
    "neutron": ("network", f"http://{LAB_ADDRESS}:{NEUTRON}"),
    "cinder": ("block-storage", f"http://{LAB_ADDRESS}:{CINDER}/v3"),
    # Nobody needs to listen there; Neutron's notifier posts its events to it.
    "nova": ("compute", f"http://{LAB_ADDRESS}:{COMPUTE}/v2.1"),
}


@dataclass(frozen=True)
class Places:
    """Where one set of running servers keeps its things."""

    folder: Path

    @property
    def etc(self) -> Path:
        """Settings files, the real Open vSwitch agents' base file (`neutron.conf`) among them."""
        return self.folder / "etc"

    @property
    def lib(self) -> Path:
        """State: databases, keys, volumes."""
        return self.folder / "lib"

    @property
    def log(self) -> Path:
        """One file per service."""
        return self.folder / "log"


def login(section: str, user: str) -> str:
    """A section that logs `user` in."""
    return f"""\
[{section}]
auth_type = password
auth_url = {AUTH_URL}
www_authenticate_uri = {AUTH_URL}
username = {user}
password = {PASSWORD}
project_name = service
user_domain_id = default
project_domain_id = default
region_name = {REGION}
"""


def database(name: str) -> str:
    """The URL of a database."""
    return f"mysql+pymysql://openstack:{PASSWORD}@127.0.0.1:3306/{name}"


def keystone(places: Places) -> str:
    """keystone.conf"""
    return f"""\
[DEFAULT]
use_stderr = true
[database]
connection = {database("keystone")}
[fernet_tokens]
key_repository = {places.lib}/fernet
[credential]
key_repository = {places.lib}/credential
[token]
# short, so that a run outlives many: an agent's token must be renewed in the middle of whatever it does
expiration = 180
"""


def neutron(places: Places) -> str:
    """neutron.conf; the real agents read it too."""
    return f"""\
[DEFAULT]
use_stderr = true
state_path = {places.lib}/neutron
api_paste_config = {home()}/neutron/etc/neutron/api-paste.ini
auth_strategy = keystone
core_plugin = ml2
service_plugins = trunk
dhcp_agent_notification = false
# Without it a binding whose profile has `migrating_to` leaves the port in BUILD (ML2 uses a notifier it has not).
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = false
transport_url = {RABBIT}
rpc_workers = 1
rpc_state_report_workers = 0
[database]
connection = {database("neutron")}
[oslo_concurrency]
lock_path = {places.lib}/lock
{login("keystone_authtoken", "neutron")}
service_token_roles_required = true
{login("nova", "neutron")}
"""


def ml2() -> str:
    """ml2_conf.ini: VLAN and flat networks on `physnet1`, Open vSwitch agents."""
    return """\
[ml2]
type_drivers = flat,vlan,vxlan,local
tenant_network_types = vlan
mechanism_drivers = openvswitch
extension_drivers = port_security
[ml2_type_flat]
flat_networks = *
[ml2_type_vlan]
network_vlan_ranges = physnet1:100:199
[ml2_type_vxlan]
vni_ranges = 1000:1999
[securitygroup]
enable_security_group = true
"""


def cinder(places: Places) -> str:
    """cinder.conf: two back ends on the lab's tgt, one of them with CHAP."""
    backend = f"""\
volume_driver = tests.openstack.tgt_driver.TgtDriver
tgt_folder = {places.lib}/volumes
tgt_iqn_prefix = {IQN_PREFIX}
target_ip_address = {LAB_ADDRESS}
target_port = {ISCSI_PORTAL_PORT}
"""
    return f"""\
[DEFAULT]
use_stderr = true
state_path = {places.lib}/cinder
api_paste_config = {home()}/cinder/etc/cinder/api-paste.ini
resource_query_filters_file = {home()}/cinder/etc/cinder/resource_filters.json
rootwrap_config = {home()}/cinder/etc/cinder/rootwrap.conf
auth_strategy = keystone
transport_url = {RABBIT}
enabled_backends = plain,chap
host = storage
image_conversion_dir = {places.lib}/cinder/conversion
periodic_interval = 10
[database]
connection = {database("cinder")}
[oslo_concurrency]
lock_path = {places.lib}/lock
[coordination]
backend_url = file://{places.lib}/cinder/coordination
[plain]
volume_backend_name = plain
{backend}
[chap]
volume_backend_name = chap
use_chap_auth = true
{backend}
{login("keystone_authtoken", "cinder")}
service_token_roles = service
service_token_roles_required = true
{login("nova", "cinder")}
"""


def uwsgi(port: int, module: str, more: str = "") -> str:
    """A server behind uWSGI."""
    return f"""\
[uwsgi]
http-socket = {LAB_ADDRESS}:{port}
module = {module}:application
master = true
processes = 1
threads = 4
enable-threads = true
lazy-apps = true
need-app = true
die-on-term = true
buffer-size = 65535
; a kept connection is reset after a body that was not read
add-header = Connection: close
{more}
"""


def write_all(places: Places) -> None:
    """Every settings file."""
    places.etc.mkdir(parents=True, exist_ok=True)
    texts = {
        "keystone.conf": keystone(places),
        "neutron.conf": neutron(places),
        "ml2_conf.ini": ml2(),
        "cinder.conf": cinder(places),
        "keystone-uwsgi.ini": uwsgi(KEYSTONE, "keystone.wsgi.api"),
        "neutron-uwsgi.ini": uwsgi(NEUTRON, "neutron.wsgi.api", "start-time = %t"),
        "cinder-uwsgi.ini": uwsgi(CINDER, "cinder.wsgi.api", f"pyargv = --config-file {places.etc}/cinder.conf"),
        "rabbitmq.conf": f"loopback_users = none\ndefault_user = openstack\ndefault_pass = {PASSWORD}\n",
        "enabled_plugins": "[].\n",
    }
    for name, text in texts.items():
        (places.etc / name).write_text(text)


def rabbit_environment(places: Places) -> dict[str, str]:
    """What rabbitmq-server wants to be told. Everything of its own is on loopback, AMQP on the lab's address."""
    folder = places.lib / "rabbit"
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": "sterna@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": LAB_ADDRESS,
        "RABBITMQ_NODE_PORT": "5672",
        "RABBITMQ_DIST_PORT": "25672",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(places.etc / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(places.etc / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(places.etc / "none"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def neutron_files(places: Places) -> list[str]:
    """The settings every Neutron server reads."""
    return ["--config-file", f"{places.etc}/neutron.conf", "--config-file", f"{places.etc}/ml2_conf.ini"]


def manage(places: Places) -> list[list[str]]:
    """The commands that make the databases' tables and the first administrator, in order."""
    keystone_manage = [program("keystone", "keystone-manage"), "--config-file", f"{places.etc}/keystone.conf"]
    urls = [word for kind in ("public", "internal", "admin") for word in (f"--bootstrap-{kind}-url", AUTH_URL)]
    root = ["--keystone-user", "root", "--keystone-group", "root"]
    return [
        [*keystone_manage, "db_sync"],
        [*keystone_manage, "fernet_setup", *root],
        [*keystone_manage, "credential_setup", *root],
        [*keystone_manage, "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION, *urls],
        [program("neutron", "neutron-db-manage"), *neutron_files(places), "upgrade", "head"],
        [program("cinder", "cinder-manage"), "--config-file", f"{places.etc}/cinder.conf", "db", "sync"],
    ]
