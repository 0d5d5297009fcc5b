"""What random VMs have beside disks: machine, CPU, memory, NICs, consoles, other devices, and their state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.random_vms.draft import Draft

FREE, HERE_ONLY = "10.73.0.11", "192.0.2.9"
ORDINARY = ("virtio", "e1000", "rtl8139", "e1000e")


_CPUS = {
    "default CPU": (6, ""),
    "maximum CPU": (2, "<cpu mode='maximum'/>"),
    "CPU like the host's": (1, "<cpu mode='host-model'/>"),
    "named CPU": (2, "<cpu mode='custom' match='exact'><model>qemu64</model></cpu>"),
    "at least a named CPU": (1, "<cpu mode='custom' match='minimum'><model>Nehalem</model></cpu>"),
    "named CPU with less": (
        1,
        "<cpu mode='custom'><model fallback='allow'>qemu64</model><feature policy='disable' name='sse4.1'/></cpu>",
    ),
}
_CLOCKS = (
    "",
    "",
    "<clock offset='localtime'/>",
    "<clock offset='utc'><timer name='hpet' present='no'/></clock>",
    "<clock offset='variable' adjustment='3600' basis='utc'/>",
)
_ENDS = "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>restart</on_crash>"


def machine(draft: Draft) -> None:
    """The board, the CPU, memory and clock: ordinary, for the most part."""
    rng = draft.rng
    draft.machine = rng.choices(("q35", "pc"), (7, 3))[0]
    cpu = rng.choices(list(_CPUS), [weight for weight, _ in _CPUS.values()])[0]
    draft.cpu = _CPUS[cpu][1]
    draft.details += [draft.machine, cpu]
    draft.vcpu = rng.choices(
        ("<vcpu>1</vcpu>", "<vcpu>2</vcpu>", "<vcpu current='1'>4</vcpu>", "<vcpu cpuset='0-1'>1</vcpu>"),
        (6, 3, 1, 1),
    )[0]
    draft.clock = rng.choice(_CLOCKS)
    draft.features += rng.choice(([], ["<apic/>"], ["<apic/>", "<pae/>"], ["<apic/>", "<vmport state='off'/>"]))
    if rng.random() < 0.3:
        draft.head.append("<title>a title</title><description>written by a person</description>")
    if rng.random() < 0.3:
        draft.head.append("<metadata><o:os xmlns:o='http://example.org/os'><o:id>debian</o:id></o:os></metadata>")
    if rng.random() < 0.3:
        draft.tail.append(
            "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>restart</on_crash>"
        )


def nics(draft: Draft) -> None:
    """None to two NICs."""
    for _ in range(draft.rng.choices((0, 1, 2), (2, 5, 2))[0]):
        number = draft.next("nic")
        mac = f"52:54:00:{draft.seed % 256:02x}:{draft.number % 256:02x}:{number:02x}"
        name = draft.rng.choices(list(_SOURCES), [weight for _, _, weight in _SOURCES.values()])[0]
        kind, source, _ = _SOURCES[name]
        if name != "Linux bridge":
            draft.traits.append(f"NIC {name}")
        if kind == "network":
            _network(draft, name)
        if name == "of a bridge here only" and not draft.next(name):
            draft.here.append("ip link add br-mine type bridge && ip link set br-mine up")
            draft.clean.append("ip link del br-mine")
        model = draft.rng.choice(ORDINARY)
        more = "".join(part for part in _NIC_PARTS if draft.rng.random() < 0.12 and kind != "user")
        draft.devices.append(
            f"<interface type='{kind}'><mac address='{mac}'/>{source.format(n=draft.number)}<model type='{model}'/>"
            f"{more}</interface>"
        )


_OVS = "<source bridge='br-int'/><virtualport type='openvswitch'/>"
_SOURCES = {
    "Linux bridge": ("bridge", "<source bridge='br-lan'/>", 6),
    "on Open vSwitch": ("bridge", _OVS, 3),
    "on Open vSwitch with a VLAN": ("bridge", f"<vlan><tag id='101'/></vlan>{_OVS}", 2),
    "of user networking": ("user", "", 1),
    "of a network on both hosts": ("network", "<source network='both{n}'/>", 1.5),
    "of a network here only": ("network", "<source network='here{n}'/>", 0.7),
    "of a bridge here only": ("bridge", "<source bridge='br-mine'/>", 0.7),
    "macvtap": ("direct", "<source dev='phys0' mode='bridge'/>", 0.7),
    "of no network": ("ethernet", "", 0.5),
}
_NIC_PARTS = (
    "<link state='down'/>",
    "<driver name='qemu'/>",
    "<alias name='ua-mine'/>",
)


def _network(draft: Draft, name: str) -> None:
    net = f"{'both' if 'both' in name else 'here'}{draft.number}"
    if draft.next(net):
        return
    xml = f"<network><name>{net}</name><forward mode='bridge'/><bridge name='br-lan'/></network>"
    make = f'echo "{xml}" >/run/n.xml && virsh -q net-define /run/n.xml && virsh -q net-start {net}'
    draft.here.append(make)
    if "both" in name:
        draft.there.append(make)
    draft.clean.append(f"virsh -q net-destroy {net}; virsh -q net-undefine {net}")


def consoles(draft: Draft) -> None:
    """Serial ports, channels and screens, with what they name of the host."""
    for part, chance in ((serial, 0.6), (channel, 0.4), (screen, 0.5)):
        if draft.rng.random() < chance:
            part(draft)


_LOGS = "/var/log/libvirt/qemu"
_TCP = "<serial type='tcp'><source mode='bind' host='{host}' service='PORT'/></serial>"
_SERIALS = {
    "pty": (4, "<serial type='pty'/>"),
    "null": (1, "<serial type='null'/>"),
    "file in a folder here only": (1, "<serial type='file'><source path='OWN/tty/serial.log'/></serial>"),
    "file in a folder on both": (1, f"<serial type='file'><source path='{_LOGS}/NAME-serial.log'/></serial>"),
    "socket in a folder here only": (1, "<serial type='unix'><source mode='bind' path='OWN/tty/s'/></serial>"),
    "TCP on all addresses": (1, _TCP.format(host="0.0.0.0")),
    "TCP on the host's address": (1, _TCP.format(host=FREE)),
    "TCP on an address here only": (1, _TCP.format(host=HERE_ONLY)),
    "pty with a log": (1, f"<serial type='pty'><log file='{_LOGS}/NAME-pty.log'/></serial>"),
    "console": (1, "<console type='pty'><target type='virtio'/></console>"),
    "parallel": (1, "<parallel type='null'/>"),
}
_AGENT = "<target type='virtio' name='org.qemu.guest_agent.0'/>"
_CHANNELS = {
    "unix": (5, f"<channel type='unix'>{_AGENT}</channel>"),
    "with a path here only": (
        1,
        f"<channel type='unix'><source mode='bind' path='OWN/ga/s'/>{_AGENT}</channel>",
    ),
    "null": (1, "<channel type='null'><target type='virtio' name='org.example.0'/></channel>"),
}
_SCREENS = {
    "VNC": (4, "<graphics type='vnc' autoport='yes'/>"),
    "VNC everywhere": (2, "<graphics type='vnc' autoport='yes' listen='0.0.0.0'/>"),
    "VNC on the host's address": (1, f"<graphics type='vnc' autoport='yes' listen='{FREE}'/>"),
    "VNC at a fixed port": (1, "<graphics type='vnc' port='PORT'/>"),
    "VNC at a port taken there": (0.7, "<graphics type='vnc' port='PORT'/>"),
    "VNC with a password": (1, "<graphics type='vnc' autoport='yes' passwd='secret12'/>"),
    "VNC on a socket": (1, "<graphics type='vnc'><listen type='socket'/></graphics>"),
    "VNC without listening": (0.5, "<graphics type='vnc'><listen type='none'/></graphics>"),
    "VNC with a websocket": (0.5, "<graphics type='vnc' autoport='yes' websocket='-1'/>"),
}
_VIDEOS = ("", *(f"<video><model type='{model}'/></video>" for model in ("vga", "cirrus", "bochs")))


def _chosen(draft: Draft, what: str, kinds: Mapping[str, tuple[float, str]], ordinary: tuple[str, ...]) -> str:
    name = draft.rng.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
    if name not in ordinary:
        draft.traits.append(f"{what} {name}")
    return name


def serial(draft: Draft) -> None:
    """A serial port, console or parallel port."""
    name = _chosen(draft, "serial", _SERIALS, ("pty",))
    xml = _SERIALS[name][1]
    if "OWN/" in xml:
        draft.here.append(f"mkdir -p {draft.beside}/tty")
    if HERE_ONLY in xml:
        draft.here.append(f"ip address add {HERE_ONLY}/32 dev lo")
        draft.clean.append(f"ip address del {HERE_ONLY}/32 dev lo")
    port = str(7800 + draft.number % 100)
    draft.devices.append(xml.replace("NAME", draft.name).replace("PORT", port).replace("OWN", draft.beside))


def channel(draft: Draft) -> None:
    """A channel to a program of the host."""
    xml = _CHANNELS[_chosen(draft, "channel", _CHANNELS, ("unix",))][1]
    if "OWN/" in xml:
        draft.here.append(f"mkdir -p {draft.beside}/ga")
    draft.devices.append(xml.replace("OWN", draft.beside))


def screen(draft: Draft) -> None:
    """A screen, with the card it is drawn by."""
    port = str(5980 + draft.number % 20)
    name = _chosen(draft, "screen", _SCREENS, ("VNC", "VNC everywhere"))
    screen = _SCREENS[name][1].replace("PORT", port)
    if name == "VNC at a port taken there":
        other = f"{draft.name}-screen"
        xml = f"<domain type='qemu'><name>{other}</name><memory>32768</memory><os><type>hvm</type></os><devices>"
        draft.there.append(f'echo "{xml}{screen}</devices></domain>" >/run/s.xml && virsh -q create /run/s.xml')
        draft.clean.append(f"virsh -q destroy {other}")
    draft.devices += [screen, draft.rng.choice(_VIDEOS)]


def others(draft: Draft) -> None:
    """Any of the further devices, each now and then."""
    for name, (chance, _) in OTHERS.items():
        if draft.rng.random() < chance:
            other(draft, name)
            if chance < 0.1:
                draft.traits.append(name)
    if draft.rng.random() < 0.5:
        draft.devices.append("<memballoon model='none'/>")


def other(draft: Draft, name: str) -> None:
    """One of them."""
    draft.devices.append(OTHERS[name][1])


OTHERS = {
    "input": (0.3, "<input type='tablet' bus='usb'/>"),
    "rng": (0.3, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"),
    "watchdog": (0.1, "<watchdog model='i6300esb' action='none'/>"),
    "panic": (0.1, "<panic model='isa'/>"),
    "TPM": (0.08, "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"),
    "sound": (0.08, "<sound model='ac97'/>"),
    "shared memory": (0.03, "<shmem name='mine'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"),
    "9p folder": (
        0.03,
        "<filesystem type='mount'><source dir='/srv/sterna/shared'/><target dir='t'/></filesystem>",
    ),
    "random daemon": (0.03, "<rng model='virtio'><backend model='builtin'/></rng>"),
    "USB redirection": (
        0.03,
        "<redirdev bus='usb' type='tcp'><source mode='bind' host='127.0.0.1' service='7790'/></redirdev>",
    ),
    "USB controller": (0.1, "<controller type='usb' model='qemu-xhci'/>"),
    "hub": (0.03, "<hub type='usb'/>"),
    "smart card": (0.03, "<smartcard mode='passthrough' type='null'/>"),
}


def boot(draft: Draft) -> None:
    """What the firmware, the kernel's loader and QEMU read of the host's files."""
    name = draft.rng.choices(("", *_BOOTS), (10, *[0.5] * len(_BOOTS)))[0]
    if not name:
        return
    draft.traits.append(name)
    _BOOTS[name](draft, f"{draft.beside}/boot")


def _made(draft: Draft, path: str, there: str) -> None:
    """A file here, and on the other host `there`: "", "same" or "other"."""
    make = f"mkdir -p $(dirname {path}) && yes {draft.name} | head -c 4096 > {path}"
    draft.here.append(make)
    if there:
        draft.there.append(make if there == "same" else make.replace("yes ", "yes other "))


def _kernel(draft: Draft, folder: str) -> None:
    draft.os.append("<kernel>/srv/sterna/guest/vmlinuz</kernel><cmdline>quiet</cmdline>")


def _kernel_here_only(draft: Draft, folder: str) -> None:
    draft.here.append(f"mkdir -p {folder} && cp /srv/sterna/guest/vmlinuz {folder}/k")
    draft.os.append(f"<kernel>{folder}/k</kernel>")


def _fw_cfg(draft: Draft, folder: str) -> None:
    there = draft.rng.choice(("", "same", "other"))
    _made(draft, f"{folder}/f", there)
    draft.details.append({"": "file here only", "same": "same file there", "other": "other file there"}[there])
    draft.head.append(f"<sysinfo type='fwcfg'><entry name='opt/org.test/a' file='{folder}/f'/></sysinfo>")


def _arguments(draft: Draft, folder: str) -> None:
    value = draft.rng.choice(("-no-user-config", "-msg|timestamp=on", f"-fw_cfg|name=opt/a,file={folder}/g"))
    draft.details.append(value.partition("|")[0])
    if folder in value:
        _made(draft, f"{folder}/g", "")
    arguments = "".join(f"<qemu:arg value='{part}'/>" for part in value.split("|"))
    draft.tail.append(f"<qemu:commandline>{arguments}</qemu:commandline>")


def _smbios(draft: Draft, folder: str) -> None:
    draft.head.append("<sysinfo type='smbios'><system><entry name='serial'>abc</entry></system></sysinfo>")
    draft.os.append("<smbios mode='sysinfo'/>")


def _order(draft: Draft, folder: str) -> None:
    draft.os.append("<boot dev='hd'/><boot dev='network'/><bootmenu enable='yes'/>")


_BOOTS: dict[str, Callable[[Draft, str], None]] = {
    "kernel on both hosts": _kernel,
    "kernel here only": _kernel_here_only,
    "fw_cfg": _fw_cfg,
    "QEMU arguments": _arguments,
    "SMBIOS": _smbios,
    "boot order": _order,
}


def memory(draft: Draft) -> None:
    """How its memory is backed, and what limits it."""
    name = draft.rng.choices(("", *_MEMORY), (12, *[0.5] * len(_MEMORY)))[0]
    if name:
        draft.traits.append(f"memory {name}")
        _MEMORY[name](draft)


def _shared_memfd(draft: Draft) -> None:
    draft.memory_backing += ["<source type='memfd'/>", "<access mode='shared'/>"]


def _file_memory(draft: Draft) -> None:
    draft.memory_backing += ["<source type='file'/>", "<access mode='shared'/>"]


def _unmerged(draft: Draft) -> None:
    draft.memory_backing.append("<nosharepages/>")


def _numa(draft: Draft) -> None:
    draft.head.append("<numatune><memory mode='strict' nodeset='0'/></numatune>")


def _cells(draft: Draft) -> None:
    draft.vcpu = "<vcpu>2</vcpu>"
    cells = "".join(f"<cell id='{n}' cpus='{n}' memory='16' unit='MiB'/>" for n in range(2))
    draft.cpu = f"<cpu mode='custom'><model>qemu64</model><numa>{cells}</numa></cpu>"


def _tuned(draft: Draft) -> None:
    draft.head.append("<memtune><swap_hard_limit unit='MiB'>2000</swap_hard_limit></memtune>")


_MEMORY: dict[str, Callable[[Draft], None]] = {
    "shared": _shared_memfd,
    "in a file": _file_memory,
    "not merged": _unmerged,
    "bound to a node": _numa,
    "in two cells": _cells,
    "limited": _tuned,
}


def state(draft: Draft) -> None:
    """What somebody did with it since it started."""
    name = draft.rng.choices(("", *_STATES), (14, *[0.5] * len(_STATES)))[0]
    if name:
        draft.traits.append(name)
        draft.started.append(_STATES[name].format(name=draft.name))


_AGAIN = "virsh -q dumpxml {name} --inactive | sed '{change}' >/run/i.xml && virsh -q define /run/i.xml"
_STATES = {
    "paused": "virsh -q suspend {name}",
    "autostart": "virsh -q autostart {name}",
    "a description of its next start": "virsh -q desc {name} --config 'for the next start'",
    "more vCPUs at its next start": _AGAIN.replace("{change}", "s|<vcpu.*</vcpu>|<vcpu>2</vcpu>|"),
    "a kernel at its next start": _AGAIN.replace("{change}", "s|</type>|&<kernel>/srv/no/kernel</kernel>|"),
    "another title while it runs": "virsh -q desc {name} --live --title 'for now'",
    "a limit of memory": "virsh -q setmaxmem {name} 65536 --config",
    "no persistent definition": "virsh -q undefine {name}",
    "another boot order at its next start": _AGAIN.replace("{change}", "s|<boot dev='hd'/>|<boot dev='cdrom'/>|"),
}
"""By a `sed` on the persistent definition, or by virsh."""
