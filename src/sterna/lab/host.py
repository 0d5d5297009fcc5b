"""One lab host: its folders and settings on the machine, and ways to do something on it."""

import json
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from sterna.lab import namespaces
from sterna.lab.credentials import PKI, SSH
from sterna.lab.errors import LabError
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import (
    IDENTITY,
    INSTANCES,
    LAB_ADDRESS,
    NATS_URL,
    SHARED,
    STATE,
    TGT_SOCKET,
    initiator_name,
    second_address,
)

LIBVIRTD_CONF = """\
listen_tls = 1
listen_tcp = {insecure:d}
listen_addr = "{address}"
auth_tcp = "none"
auth_tls = "none"  # a certificate of the lab's CA is needed to come as far
ca_file = "{pki}/cacert.pem"
cert_file = "{pki}/servercert.pem"
key_file = "{pki}/serverkey.pem"
tls_allowed_dn_list = ["O=Sterna,OU=agents,CN=*"]  # hosts, and no controllers
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
max_clients = 500
max_client_requests = 50
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
migration_host = "{address}"
migration_address = "{address}"
shared_filesystems = [ "{shared}" ]
migrate_tls_x509_cert_dir = "{pki}"
"""

AGENT_TOML = """\
host = "{host}"
state_dir = "{state}"
instances_dir = "{instances}"
libvirt_uri = "qemu:///system"
[identity]
enrol = "sterna"
folder = "{identity}"
[bus]
url = "{nats}"
[migration]
address = "{address}"
more_addresses = ["{second_address}"]
{transport}
ssh_uri_template = "qemu+ssh://root@{{address}}/system?command={ssh}/ssh"
[network]
ovsdb = "unix:/run/openvswitch/db.sock"
[volumes]
initiator = "{initiator}"
tgt_socket = "{tgt_socket}"
[test]
fault_file = "{state}/faults.json"
"""

ENCRYPTED = f"""\
uri_template = "qemu+tls://{{address}}/system?pkipath={PKI}"
"""
INSECURE = """\
insecure = true
uri_template = "qemu+tcp://{address}/system"
transport = "tcp"  # as virsh by default; a migration may ask for tls or ssh
"""


class LabHost:
    """A host of the lab, as a test or a person uses it."""

    def __init__(
        self, name: str, index: int, address: str, root: Path, inside: Namespaces, *, insecure: bool = False
    ) -> None:
        self.name = name
        self.index = index
        self.address = address
        """On the management network."""
        self.root = root
        """Its folder on the machine: state, instances, log, libvirt's files."""
        self.inside = inside
        self.insecure = insecure
        """Whether libvirt and migrations are not encrypted here."""

    def run(
        self, argv: Sequence[str], check: bool = True, timeout: float = 60.0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on the host; raises LabError when it fails (with `check`) or takes over `timeout` s."""
        extra = {"TGT_IPC_SOCKET": TGT_SOCKET}
        return self.inside.run(argv, check=check, timeout=timeout, stdin=stdin, extra_environment=extra)

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a command on the host, output in pipes; killing the returned process kills the command."""
        return self.inside.popen(argv)

    def virsh(self, *arguments: str, check: bool = True, timeout: float = 60.0) -> str:
        """The output of a virsh command on this host's libvirt."""
        return self.run(["virsh", "-q", *arguments], check=check, timeout=timeout).stdout

    def agent_pid(self) -> int | None:
        """The machine's PID of the Sterna agent on this host; None when there is none.

        A child that the agent has forked looks like it until it executes another program.
        """
        alike = [pid for pid, argv in self.inside.processes() if argv[1:4] == ["-m", "sterna", "agent"]]
        return next((pid for pid in alike if namespaces.parent_of(pid) not in alike), None)

    @property
    def peer_uri(self) -> str:
        """What another host's libvirt calls this one's."""
        if self.insecure:
            return f"qemu+tcp://{self.address}/system"
        return f"qemu+tls://{self.address}/system?pkipath={PKI}"


def write_host_files(root: Path, name: str, address: str, *, insecure: bool) -> None:
    """Makes the folders and settings of one host, again. `insecure`: nothing that is migrated is encrypted."""
    shutil.rmtree(root, ignore_errors=True)
    folders = ("state", "instances", "etc/libvirt/qemu", "lib/libvirt", "cache/libvirt", "log/libvirt/qemu")
    for folder in (*folders, "openvswitch"):
        (root / folder).mkdir(parents=True)
    host_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{root}")
    conf = root / "etc/libvirt"
    libvirtd = LIBVIRTD_CONF.format(address=address, host_uuid=host_uuid, insecure=insecure, pki=PKI)
    (conf / "libvirtd.conf").write_text(libvirtd)
    (conf / "qemu.conf").write_text(QEMU_CONF.format(address=address, shared=SHARED, pki=PKI))
    agent = AGENT_TOML.format(
        host=name,
        state=STATE,
        instances=INSTANCES,
        nats=NATS_URL,
        address=address,
        second_address=second_address(address),
        initiator=initiator_name(name),
        tgt_socket=TGT_SOCKET,
        ssh=SSH,
        identity=IDENTITY,
        transport=INSECURE if insecure else ENCRYPTED,
    )
    (root / "state/agent.toml").write_text(agent)


def etc_hosts(addresses: dict[str, str]) -> str:
    """An /etc/hosts that names every host: libvirt looks its peers and itself up."""
    lines = ["127.0.0.1 localhost", f"{LAB_ADDRESS} sterna-lab"]
    return "\n".join([*lines, *(f"{address} {name}" for name, address in addresses.items())]) + "\n"


def start_host(lab_dir: Path, name: str, index: int, address: str, outer: Namespaces, *, insecure: bool) -> LabHost:
    """Starts the namespaces of one host and links it to both networks. `furnish_host` does the rest."""
    log = lab_dir / "logs" / f"{name}.log"
    inside = namespaces.start_nested(["host", str(lab_dir), name], outer, log)
    variables = {"HOST": name, "INDEX": str(index), "HOST_PID": str(inside.pid_seen_from(1))}
    run_setup("host-links", outer, variables)
    return LabHost(name, index, address, lab_dir / "hosts" / name, inside, insecure=insecure)


def furnish_host(host: LabHost, lab_dir: Path, image: Path, vlan: int) -> None:
    """Mounts the host's folders and starts its Open vSwitch and libvirt; returns when both answer."""
    variables = {
        "LAB": str(lab_dir),
        "HOST": host.name,
        "ADDRESS": host.address,
        "SECOND_ADDRESS": second_address(host.address),
        "GUEST_IMAGE": str(image),
        "VLAN": str(vlan),
        "DATAPATH": "system" if Path("/sys/module/openvswitch").exists() else "netdev",
    }
    run_setup("host", host.inside, variables)
    host.run(["sh", "-c", "until virsh -q uri; do sleep 0.05; done >/dev/null 2>&1"], timeout=60)


def part_indexes(host: LabHost) -> None:
    """Makes the numbers of the network devices made on this host from now on unlike those of the other hosts.

    A macvtap's character device is `/dev/tapN` with N its number, and all lab hosts have the machine's /dev: with
    equal numbers the second host's QEMU would open the first one's device. Numbers are given out in turn, so some
    are used up.
    """
    count = (host.index - 1) * INDEXES_APART
    lines = [f"link add link phys0 name room{n} group {ROOM} type macvlan mode bridge" for n in range(count)]
    if lines:
        host.run(["ip", "-batch", "-"], stdin="\n".join(lines))
        host.run(["ip", "link", "del", "group", str(ROOM)])


INDEXES_APART = 1000
"""So many devices may be made on a host before it comes to the next one's numbers."""
ROOM = 77
"""A group of devices that nothing else uses."""


def run_setup(script: str, inside: Namespaces, variables: dict[str, str]) -> None:
    """Runs one of the scripts in `setup/`; raises LabError with its output when it fails."""
    text = (Path(__file__).parent / "setup" / f"{script}.sh").read_text()
    done = inside.run(["sh", "-s"], stdin=text, check=False, timeout=90, extra_environment=variables)
    if done.returncode != 0:
        raise LabError(f"setting up {variables.get('HOST', 'the lab')} ({script}.sh): {done.stderr.strip()}")


def open_vswitch_ports(host: LabHost) -> list[dict[str, object]]:
    """The ports of br-int with their VLAN tag and their interface's external_ids, by name."""
    names = host.run(["ovs-vsctl", "list-ports", "br-int"]).stdout.split()
    tags = _ovs_table(host, "Port", "tag")
    ids = _ovs_table(host, "Interface", "external_ids")
    return [{"name": name, "tag": tags.get(name), "external_ids": ids.get(name) or {}} for name in sorted(names)]


def _ovs_table(host: LabHost, table: str, column: str) -> dict[str, object]:
    text = host.run(["ovs-vsctl", "--format=json", f"--columns=name,{column}", "list", table]).stdout
    return {name: _ovs_value(value) for name, value in json.loads(text)["data"]}


def _ovs_value(value: object) -> object:
    """OVSDB's JSON for maps and sets, as a dict, a list, or None for the empty set."""
    match value:
        case ["map", list(pairs)]:
            return dict(pairs)
        case ["set", list(members)]:
            return members or None
    return value
