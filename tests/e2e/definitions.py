"""Kinds of VM that name something of their host, for `test_definitions.py`: what, and how each must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

STATE = "/srv/sterna/state"
HOST1, HOST2 = "10.73.0.11", "10.73.0.12"
SECOND1, SECOND2 = "10.73.1.11", "10.73.1.12"
ELSEWHERE = "192.0.2.7"
DOMAIN = """<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{name}</name>
<memory unit='MiB'>32</memory><vcpu{vcpu}>1</vcpu>{head}<os><type arch='x86_64' machine='q35'>hvm</type>{os}</os>
<devices>{devices}<memballoon model='none'/></devices>{tail}</domain>"""
LISTEN = """
import os, socket, sys
where = sys.argv[1]
family = socket.AF_UNIX if where[0] == "/" else socket.AF_INET
if where[0] == "/" and os.path.exists(where):
    os.unlink(where)
server = socket.socket(family)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(where if where[0] == "/" else (where.split(":")[0], int(where.split(":")[1])))
server.listen()
print("listening", flush=True)
kept = []
while True:
    kept.append(server.accept())
"""
"""A program that accepts every connection at a path or `address:port`, and says nothing."""


@dataclass(frozen=True)
class Case:
    """One kind of VM on host1, and what stands on host2."""

    name: str
    devices: str = ""
    os: str = ""
    head: str = ""
    tail: str = ""
    vcpu: str = ""
    here: str = ""
    """Commands on host1 before it starts."""
    there: str = ""
    """Commands on host2 before the plan."""
    serve_here: str = ""
    """A program listens there on host1."""
    serve_there: str = ""
    """The same on host2, until it is mended."""
    code: str = ""
    """Why it is refused; '' for nothing."""
    mend: str = ""
    """Commands on host2 that take the reason away: as the refusal's `fix` says."""
    mend_serve: str = ""
    """A program that has to listen on host2."""
    virsh: bool | None = None
    """Does `virsh migrate` do it before it is mended? None: as Sterna does."""
    shows: tuple[str, str] = ("", "")
    """What the live and persistent definitions hold on host1 and on host2."""
    warns: str = ""
    """What the plan says nobody could look for."""
    inactive: Callable[[str], str] | None = field(default=None)
    """How the persistent definition differs from the running one."""
    clean: str = ""
    """Commands on both hosts at the end."""

    def xml(self, kind: str) -> str:
        """Its definition."""
        parts = {p: getattr(self, p) for p in ("devices", "os", "head", "tail", "vcpu")}
        return DOMAIN.format(kind=kind, name=self.name, **parts)


def _vnc(address: str, more: str = "autoport='yes'") -> str:
    return f"<graphics type='vnc' {more}><listen type='address' address='{address}'/></graphics>"


def _serial(kind: str, *sources: str) -> str:
    raw = "<protocol type='raw'/>" if kind == "tcp" else ""
    return f"<serial type='{kind}'>{''.join(sources)}{raw}</serial>"


def _file(path: str) -> str:
    return f"mkdir -p $(dirname {path}) && echo content > {path}"


def _network(name: str, bridge: str) -> str:
    xml = f"<network><name>{name}</name><forward mode='bridge'/><bridge name='{bridge}'/></network>"
    return f'echo "{xml}" >/tmp/net.xml && virsh net-define /tmp/net.xml && virsh net-start {name}'


_ISOLATED = "<network><name>{name}</name><bridge name='br-alone'/></network>"
_ALONE = f'echo "{_ISOLATED}" >/tmp/net.xml && virsh net-define /tmp/net.xml && virsh net-start {{name}}'
FILTER = "<filter name='mine'><rule action='drop' direction='in'><ip srcipaddr='192.0.2.1'/></rule></filter>"
_DEFINE_FILTER = f'echo "{FILTER}" >/tmp/filter.xml && virsh nwfilter-define /tmp/filter.xml'
_NIC = "<interface type='{kind}'><mac address='52:54:00:74:0b:01'/>{source}{more}<model type='virtio'/></interface>"
_FWCFG = "<sysinfo type='fwcfg'><entry name='opt/org.test/a' file='{path}'/></sysinfo>"
_ARGUMENTS = "<qemu:commandline><qemu:arg value='-fw_cfg'/><qemu:arg value='{value}'/></qemu:commandline>"
_BIOS = "/usr/share/seabios"
_ONLINE = "/sys/devices/system/cpu/online"
_ONE_CPU = f"echo 0 > /run/online && mount --bind /run/online {_ONLINE}"
_MODULES = "/usr/lib/x86_64-linux-gnu/qemu"
_LOG = f"<serial type='pty'><log file='{STATE}/busy.log'/></serial>"
_OTHER_LOG = (
    f"echo \"<domain type='qemu'><name>writer</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
    f'<devices>{_LOG}</devices></domain>" >/tmp/writer.xml && virsh create /tmp/writer.xml'
)


CASES = (
    # listen addresses
    Case("vnc-source", _vnc(HOST1), virsh=False, shows=(HOST1, HOST2)),
    Case("vnc-second", _vnc(SECOND1), virsh=False, shows=(SECOND1, SECOND2)),
    Case("vnc-any", _vnc("0.0.0.0")),
    Case(
        "vnc-elsewhere",
        _vnc(ELSEWHERE),
        here=f"ip address add {ELSEWHERE}/32 dev lo",
        code="listen-address-missing",
        mend=f"ip address add {ELSEWHERE}/32 dev lo",
        clean=f"ip address del {ELSEWHERE}/32 dev lo",
    ),
    Case(
        "serial-source",
        _serial("tcp", f"<source mode='bind' host='{HOST1}' service='7701'/>"),
        virsh=False,
        shows=(HOST1, HOST2),
    ),
    Case(
        "serial-udp",
        _serial(
            "udp",
            f"<source mode='bind' host='{HOST1}' service='7702'/>",
            "<source mode='connect' host='127.0.0.1' service='7703'/>",
        ),
        virsh=False,
        shows=(HOST1, HOST2),
    ),
    # fixed ports
    Case("vnc-free", _vnc("127.0.0.1", "port='5977'")),
    Case("vnc-taken", _vnc("127.0.0.1", "port='5978'"), serve_there="127.0.0.1:5978", code="port-taken"),
    Case(
        "vnc-websocket",
        _vnc("0.0.0.0", "autoport='yes' websocket='5799'"),
        serve_there="127.0.0.1:5799",
        code="port-taken",
    ),
    Case("vnc-source-taken", _vnc(HOST1, "port='5979'"), serve_there=f"{HOST2}:5979", code="port-taken"),
    Case(
        "serial-taken",
        _serial("tcp", "<source mode='bind' host='127.0.0.1' service='7704'/>"),
        serve_there="127.0.0.1:7704",
        code="port-taken",
    ),
    # connections to others
    Case(
        "serial-connects",
        _serial("tcp", "<source mode='connect' host='127.0.0.1' service='7705'/>"),
        serve_here="127.0.0.1:7705",
        code="remote-unreachable",
        mend_serve="127.0.0.1:7705",
    ),
    Case(
        "serial-tries-again",
        _serial(
            "tcp",
            "<source mode='connect' host='127.0.0.1' service='7706'>"
            "<reconnect enabled='yes' timeout='5'/></source>",
        ),
        warns="serial reconnects by itself",
        serve_here="127.0.0.1:7706",
    ),
    Case(
        "serial-client",
        _serial("unix", f"<source mode='connect' path='{STATE}/server.sock'/>"),
        serve_here=f"{STATE}/server.sock",
        code="socket-missing",
        mend_serve=f"{STATE}/server.sock",
    ),
    # sockets and files that are made
    Case("agent-channel", "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"),
    Case(
        "vnc-socket",
        f"<graphics type='vnc'><listen type='socket' socket='{STATE}/vnc/one.sock'/></graphics>",
        here=f"mkdir -p {STATE}/vnc",
        code="folder-missing",
        mend=f"mkdir -p {STATE}/vnc",
    ),
    Case(
        "serial-socket",
        _serial("unix", f"<source mode='bind' path='{STATE}/tty/one.sock'/>"),
        here=f"mkdir -p {STATE}/tty",
        code="folder-missing",
        mend=f"mkdir -p {STATE}/tty",
    ),
    Case(
        "serial-file",
        _serial("file", f"<source path='{STATE}/out/one.log'/>"),
        here=f"mkdir -p {STATE}/out",
        code="folder-missing",
        mend=f"mkdir -p {STATE}/out",
    ),
    Case(
        "serial-log",
        f"<serial type='pty'><log file='{STATE}/log/one.log'/></serial>",
        here=f"mkdir -p {STATE}/log",
        code="folder-missing",
        mend=f"mkdir -p {STATE}/log",
    ),
    Case("log-in-use", _LOG, there=_OTHER_LOG, code="path-taken", mend="virsh destroy writer"),
    Case(
        "serial-pipe",
        _serial("pipe", f"<source path='{STATE}/pipe'/>"),
        here=f"mkfifo {STATE}/pipe",
        code="device-missing",
        mend=f"mkfifo {STATE}/pipe",
    ),
    Case(
        "pstore",
        f"<pstore backend='acpi-erst'><path>{STATE}/erst/one</path><size unit='KiB'>64</size></pstore>",
        here=f"mkdir -p {STATE}/erst",
        code="folder-missing",
        mend=f"mkdir -p {STATE}/erst",
    ),
    # files that are read
    Case(
        "kernel",
        os=f"<kernel>{STATE}/vmlinuz</kernel>",
        here=f"cp /srv/sterna/guest/vmlinuz {STATE}/vmlinuz",
        code="file-missing",
        mend=f"cp /srv/sterna/guest/vmlinuz {STATE}/vmlinuz",
    ),
    Case(
        "initrd-differs",
        os=f"<kernel>{STATE}/vmlinuz</kernel><initrd>{STATE}/initrd</initrd>",
        here=f"cp /srv/sterna/guest/vmlinuz {STATE}/vmlinuz; echo a > {STATE}/initrd",
        there=f"cp /srv/sterna/guest/vmlinuz {STATE}/vmlinuz; echo b > {STATE}/initrd",
        code="file-differs",
        mend=f"echo a > {STATE}/initrd",
        virsh=True,
    ),
    Case(
        "slic",
        os=f"<acpi><table type='slic'>{STATE}/slic</table></acpi>",
        here=f"head -c 374 /dev/zero > {STATE}/slic",
        code="file-missing",
        mend=f"head -c 374 /dev/zero > {STATE}/slic",
    ),
    Case(
        "fw-cfg",
        head=_FWCFG.format(path=f"{STATE}/ignition/one"),
        here=_file(f"{STATE}/ignition/one"),
        code="file-missing",
        mend=_file(f"{STATE}/ignition/one"),
    ),
    Case(
        "fw-cfg-differs",
        head=_FWCFG.format(path=f"{STATE}/seed"),
        here=_file(f"{STATE}/seed"),
        there=f"echo other > {STATE}/seed",
        code="file-differs",
        mend=_file(f"{STATE}/seed"),
        virsh=True,
    ),
    Case(
        "argument",
        tail=_ARGUMENTS.format(value=f"name=opt/a,file={STATE}/given"),
        here=_file(f"{STATE}/given"),
        warns="qemu:commandline",
        code="file-missing",
        mend=_file(f"{STATE}/given"),
    ),
    Case(
        "argument-log",
        tail=_ARGUMENTS.replace("-fw_cfg", "-D").format(value=f"{STATE}/trace/qemu.log"),
        here=f"mkdir -p {STATE}/trace",
        code="folder-missing",
        mend=f"mkdir -p {STATE}/trace",
    ),
    Case(
        "firmware",
        os=f"<loader readonly='yes' type='rom'>{STATE}/bios.bin</loader>",
        here=f"cp {_BIOS}/bios-256k.bin {STATE}/bios.bin",
        code="file-missing",
        mend=f"cp {_BIOS}/bios-256k.bin {STATE}/bios.bin",
    ),
    Case(
        "firmware-size",
        os=f"<loader readonly='yes' type='rom'>{STATE}/bios2.bin</loader>",
        here=f"cp {_BIOS}/bios-256k.bin {STATE}/bios2.bin",
        there=f"cp {_BIOS}/bios.bin {STATE}/bios2.bin",
        code="firmware-size",
        mend=f"cp {_BIOS}/bios-256k.bin {STATE}/bios2.bin",
    ),
    Case(
        "rng",
        f"<rng model='virtio'><backend model='random'>{STATE}/random</backend></rng>",
        here=f"mknod {STATE}/random c 1 9",
        code="device-missing",
        mend=f"mknod {STATE}/random c 1 9",
    ),
    Case(
        "rom",
        _NIC.format(kind="bridge", source="<source bridge='br-lan'/>", more=f"<rom file='{STATE}/rom'/>"),
        here=f"head -c 65536 /dev/zero > {STATE}/rom",
        code="file-missing",
        mend=f"head -c 65536 /dev/zero > {STATE}/rom",
    ),
    # what libvirt knows by name
    Case(
        "vnc-network",
        "<graphics type='vnc' autoport='yes'><listen type='network' network='seen'/></graphics>",
        here=f"ip address add 10.99.0.1/24 dev br-lan; {_network('seen', 'br-lan')}",
        code="network-missing",
        mend=f"ip address add 10.99.0.2/24 dev br-lan; {_network('seen', 'br-lan')}",
        clean="virsh net-destroy seen; virsh net-undefine seen; ip address flush dev br-lan",
    ),
    Case(
        "nic-network",
        _NIC.format(kind="network", source="<source network='office'/>", more=""),
        here=_network("office", "br-lan"),
        code="network-missing",
        mend=_network("office", "br-lan"),
        clean="virsh net-destroy office; virsh net-undefine office",
    ),
    Case(
        "nic-other-network",
        _NIC.format(kind="network", source="<source network='office'/>", more=""),
        here=_network("office", "br-lan"),
        there=_ALONE.format(name="office"),
        code="network-differs",
        mend=f"virsh net-destroy office; virsh net-undefine office; {_network('office', 'br-lan')}",
        virsh=True,
        clean="virsh net-destroy office; virsh net-undefine office",
    ),
    Case(
        "nic-filter",
        _NIC.format(kind="bridge", source="<source bridge='br-lan'/>", more="<filterref filter='mine'/>"),
        here=_DEFINE_FILTER,
        code="filter-missing",
        mend=_DEFINE_FILTER,
        clean="virsh nwfilter-undefine mine",
    ),
    # CPUs and nodes
    Case("host-model", head="<cpu mode='host-model'/>"),
    Case("model-in-part", head="<cpu mode='custom' match='exact'><model fallback='allow'>EPYC-Milan</model></cpu>"),
    Case("pinned", vcpu=" cpuset='0-1'", there=_ONE_CPU, code="cpus-missing", mend=f"umount {_ONLINE}", virsh=True),
    Case(
        "label",
        tail="<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>",
    ),
    Case("numa", head="<numatune><memory mode='strict' nodeset='0'/></numatune>"),
    # what QEMU is there
    Case(
        "video",
        "<video><model type='virtio'/></video>",
        there=f"mount -t tmpfs none {_MODULES}",
        code="definition-refused",
        mend=f"umount {_MODULES}",
    ),
    # the next cold start
    Case(
        "cold-kernel",
        here=_file(f"{STATE}/next/vmlinuz"),
        code="file-missing",
        mend=_file(f"{STATE}/next/vmlinuz"),
        virsh=True,
        inactive=lambda xml: xml.replace("</type>", f"</type><kernel>{STATE}/next/vmlinuz</kernel>"),
    ),
    Case("cold-nothing", inactive=lambda xml: xml.replace("</type>", "</type><kernel>/srv/no/vmlinuz</kernel>")),
    Case(
        "cold-no-folder",
        inactive=lambda xml: xml.replace(
            "</devices>", "<parallel type='file'><source path='/srv/no/parallel.log'/></parallel></devices>"
        ),
    ),
)
