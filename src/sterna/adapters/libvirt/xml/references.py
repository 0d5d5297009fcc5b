"""What a domain's XML names on its host besides disks and NICs (`domain/references.py`). Pure.

Read from the form libvirt would migrate: what libvirt chose by itself (ports, sockets of channels, default listen
addresses) is not in it, and will be chosen again. `tests/unit/schema_rules.py` says for every place of libvirt's
schema which of these functions reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sterna.adapters.libvirt.xml.metadata import Element
from sterna.adapters.libvirt.xml.nic_forms import is_hot_unplugged, mac_of
from sterna.adapters.libvirt.xml.pages import pages
from sterna.adapters.libvirt.xml.paths import paths_in
from sterna.domain.references import Kind, Lan, Reference

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_CHARDEVS = ("serial", "parallel", "console", "channel", "redirdev", "smartcard")
_LABELLED = ("disk", "serial", "parallel", "console", "channel")
"""Devices for whose <source> libvirt demands the driver of each label at a start. It ignores other labels of a
driver that it does not have, such as a backing file's."""
_COLD = frozenset(Kind) - {Kind.PEER, Kind.SERVER, Kind.CID}
"""Kinds that a cold start needs whatever else the host does."""
_DEFAULT_LISTEN = "127.0.0.1"
_VSOCK = "/dev/vhost-vsock"
_APPIDS = "/sys/class/fc/fc_udev_device/appid_store"
"""The kernel's file to which libvirt writes the Fibre Channel application ID, or else does not start the VM."""


def references_of(live: Element, inactive: Element | None = None) -> tuple[Reference, ...]:
    """Each once; those of the persistent definition that the live one does not have are `cold`."""
    found = {_key(ref): ref for ref in _all(live)}
    for ref in _all(inactive) if inactive is not None else ():
        if ref.kind in _COLD and _key(ref) not in found:
            found[_key(ref)] = ref.model_copy(update={"cold": True})
    return tuple(found.values())


def unjudged(domain: Element) -> tuple[str, ...]:
    """What cannot be looked for on another host, in words, for the plan."""
    found = list(_by_hand(domain))
    for device in domain.iterfind("devices/*"):
        if device.tag in _CHARDEVS and any(_again(source) for source in device.findall("source")):
            found.append(f"{device.tag} reconnects by itself: whether a program answers there was not tried")
    found += _of_the_host(domain)
    found += _unjudged_nics(domain)
    return tuple(dict.fromkeys(found))


def _by_hand(domain: Element) -> Iterator[str]:
    """What the definition says to QEMU past libvirt, which compares none of it with the destination's QEMU."""
    if domain.find(f"{{{QEMU}}}commandline/*") is not None:
        yield (
            "QEMU's own arguments and environment (qemu:commandline) go along as they are: of what they name only "
            "absolute paths were looked for on the destination"
        )
    for device in domain.iterfind(f"{{{QEMU}}}override/{{{QEMU}}}device"):
        names = ", ".join(prop.get("name", "") for prop in device.iter(f"{{{QEMU}}}property"))
        if names:
            yield (
                f"properties of device {device.get('alias')} that override libvirt's (qemu:override: {names}) go "
                "along as they are: whether the destination's QEMU takes them was not tried"
            )
    changed = [each.get("capability", "") for each in domain.iterfind(f"{{{QEMU}}}capabilities/*")]
    if changed:
        yield (
            f"what libvirt takes QEMU for capable of is changed by hand (qemu:capabilities: {', '.join(changed)}): "
            "whether the destination's QEMU agrees was not tried"
        )


def _of_the_host(domain: Element) -> Iterator[str]:
    """Values that libvirt takes from whichever host starts the guest."""
    if _attr(domain, "os/smbios", "mode") == "host":
        yield (
            "SMBIOS of the host (<smbios mode='host'/>): from its next reset on the guest sees the vendor, model "
            "and serial numbers of the destination, to which a licence may be bound"
        )
    clock = domain.find("clock")
    if clock is None:
        return
    if zone := clock.get("timezone"):
        yield f"clock in the time zone {zone}: the destination's time zone database was not looked at"
    elif "localtime" in (clock.get("offset"), clock.get("basis")):
        yield "clock in the host's local time: from its next start on it is that of the destination's time zone"


def _unjudged_nics(domain: Element) -> Iterator[str]:
    nics = domain.findall("devices/interface")
    standbys = {mac_of(nic) for nic in nics if not is_hot_unplugged(nic)}
    for nic in nics:
        if name := _attr(nic, "source", "network"):
            yield (
                f"NIC {_attr(nic, 'mac', 'address')} is on libvirt's network {name}: whether it leads to the same "
                "neighbours on the destination, nobody can see"
            )
        teamed = _attr(nic, "teaming", "type") == "transient" or mac_of(nic) in standbys
        if is_hot_unplugged(nic) and not teamed:
            yield (
                f"NIC {mac_of(nic)} is a virtual function without a standby (<teaming>, a second NIC of its MAC): "
                "the guest has no network through it during the copy, because it is removed before the copy, and "
                "added again on the destination"
            )


def _key(ref: Reference) -> tuple[object, ...]:
    return ref.kind, ref.name, ref.port, ref.nodes, ref.portgroup


def _all(domain: Element) -> Iterator[Reference]:
    for read in (_boot, _graphics, _chardevs, _devices, _nics, _disks, _arguments, _tuning, _labels):
        yield from read(domain)
    for count, size_kib, nodes in pages(domain):
        yield Reference(kind=Kind.PAGES, name=str(size_kib), where="its memory", count=count, nodes=nodes)


def _boot(domain: Element) -> Iterator[Reference]:
    for name in ("kernel", "initrd", "dtb", "shim"):
        yield from _file(domain.findtext(f"os/{name}"), Kind.FILE, f"<{name}>")
    for table in domain.iterfind("os/acpi/table"):
        yield from _file(table.text, Kind.FILE, f"ACPI table {table.get('type', '')}")
    for entry in domain.iterfind("sysinfo/entry"):
        yield from _file(entry.get("file"), Kind.FILE, f"fw_cfg entry {entry.get('name', '')}")
    if not flash_of(domain):  # else it is state of the VM (`describe.py`)
        yield from _file(domain.findtext("os/loader"), Kind.FIRMWARE, "firmware")
    nvram = domain.find("os/nvram")
    if nvram is not None:
        store = _attr(nvram, "source", "file") or (nvram.text or "").strip()
        for template in _file(nvram.get("template"), Kind.PRESENT, "NVRAM template"):
            yield template.model_copy(update={"unless": store})
        yield from _file(store, Kind.OUTPUT, "NVRAM")


def flash_of(domain: Element) -> str:
    """The firmware's file, if the guest writes its variables into it; else ''. libvirt takes `pflash` for writable
    unless it is said to be read-only."""
    loader = domain.find("os/loader")
    if loader is None or loader.get("type") != "pflash" or loader.get("readonly") == "yes":
        return ""
    return (loader.text or "").strip()


def _graphics(domain: Element) -> Iterator[Reference]:
    for screen in domain.iterfind("devices/graphics"):
        kind = screen.get("type", "")
        where = {"vnc": "VNC", "spice": "SPICE", "rdp": "RDP"}.get(kind, f"graphics {kind}")
        yield from _file(_attr(screen, "gl", "rendernode"), Kind.DEVICE, where)
        yield from _file(screen.get("xauth"), Kind.PRESENT, where)
        if kind == "dbus":
            yield from _file(
                screen.get("address", "").partition("unix:path=")[2].partition(",")[0], Kind.SERVER, where
            )
        display = screen.get("display", "")
        if kind == "sdl" and re.fullmatch(r":\d+", display):
            yield from _file(f"/tmp/.X11-unix/X{display[1:]}", Kind.SERVER, where)  # noqa: S108 - X's own place
        yield from _file(screen.get("socket"), Kind.SOCKET, where)
        ports = tuple(_ports(screen))
        if screen.get("listen") and screen.find("listen") is None:
            yield from _listens(screen.get("listen"), ports, where)
        for listen in screen.iterfind("listen"):
            yield from _file(listen.get("socket"), Kind.SOCKET, where)
            if name := listen.get("network"):
                yield Reference(kind=Kind.NETWORK, name=name, where=where)
            elif listen.get("type") == "address":
                yield from _listens(listen.get("address"), ports, where)


def _listens(address: str | None, ports: tuple[int, ...], where: str) -> Iterator[Reference]:
    """Without an address each host's qemu.conf says it, which by default is this one."""
    for port in ports or ((None,) if address else ()):
        yield Reference(kind=Kind.ADDRESS, name=address or _DEFAULT_LISTEN, where=where, port=port)


def _ports(screen: Element) -> Iterator[int]:
    """Those that the operator chose."""
    names = ["websocket"] if screen.get("autoport") == "yes" else ["port", "tlsPort", "websocket"]
    for name in names:
        number = screen.get(name, "")
        if number.isdigit() and number != "0":
            yield int(number)


def _chardevs(domain: Element) -> Iterator[Reference]:
    for device in domain.iterfind("devices/*"):
        if device.tag in _CHARDEVS:
            yield from _chardev(device, f"{device.tag} {_attr(device, 'target', 'name') or _port(device)}".rstrip())
    for rng in domain.iterfind("devices/rng/backend[@model='egd']"):
        yield from _chardev(rng, "rng")


def _port(device: Element) -> str:
    return _attr(device, "target", "port")


def _chardev(device: Element, where: str) -> Iterator[Reference]:
    yield from _file(_attr(device, "log", "file"), Kind.OUTPUT, f"{where} log")
    kind = device.get("type", "")
    for source in device.findall("source"):
        binds, path = source.get("mode") == "bind", source.get("path")
        if kind in ("tcp", "udp"):
            yield from _socket(source, where, binds=binds, udp=kind == "udp")
        elif kind == "unix":
            yield from _file(path, Kind.SOCKET if binds else _unless_again(source), where)
        elif kind == "file":
            yield from _file(path, Kind.OUTPUT, where)
        elif kind == "pipe":
            yield from _file(path, Kind.DEVICE, where)


def _unless_again(source: Element) -> Kind:
    """A client that tries again does not keep QEMU from starting, but libvirt looks for the socket nevertheless."""
    return Kind.PRESENT if _again(source) else Kind.SERVER


def _again(source: Element) -> bool:
    return _attr(source, "reconnect", "enabled") == "yes"


def _socket(source: Element, where: str, *, binds: bool, udp: bool) -> Iterator[Reference]:
    service = source.get("service", "")
    port = int(service) if service.isdigit() else None
    if binds:
        yield Reference(kind=Kind.ADDRESS, name=source.get("host", ""), where=where, port=port, udp=udp)
    elif not udp and not _again(source):
        yield Reference(kind=Kind.PEER, name=source.get("host", ""), where=where, port=port)


def _devices(domain: Element) -> Iterator[Reference]:
    for rng in domain.iterfind("devices/rng/backend[@model='random']"):
        yield from _file(rng.text or "/dev/urandom", Kind.DEVICE, "rng")
    for node in domain.iterfind("devices/video/model/acceleration"):
        yield from _file(node.get("rendernode"), Kind.DEVICE, "video")
    for audio in domain.iterfind("devices/audio"):
        where = f"audio {audio.get('type', '')}"
        yield from _file(audio.get("runtimeDir"), Kind.PRESENT, where)
        yield from _file(audio.get("serverName", "").removeprefix("unix:"), Kind.SERVER, where)
        for way in (*audio.findall("input"), *audio.findall("output")):
            yield from _file(way.get("dev"), Kind.DEVICE, where)
    for tpm in domain.iterfind("devices/tpm/backend"):
        if tpm.get("type") == "external":
            yield from _file(_attr(tpm, "source", "path"), Kind.SERVER, "TPM")
        elif secret := _attr(tpm, "encryption", "secret"):
            yield Reference(kind=Kind.SECRET, name=secret, where="TPM")
        if _attr(tpm, "source", "type") == "file":
            yield from _file(_attr(tpm, "source", "path"), Kind.OUTPUT, "TPM")
    yield from _file(domain.findtext("devices/pstore/path"), Kind.OUTPUT, "pstore")
    for vsock in domain.iterfind("devices/vsock"):
        yield Reference(kind=Kind.DEVICE, name=_VSOCK, where="vsock")
        if _attr(vsock, "cid", "auto") != "yes" and (cid := _attr(vsock, "cid", "address")):
            yield Reference(kind=Kind.CID, name=cid, where="vsock")


def _nics(domain: Element) -> Iterator[Reference]:
    for nic in domain.iterfind("devices/interface"):
        where = f"NIC {_attr(nic, 'mac', 'address')}"
        for found in nic.iterfind("filterref"):
            yield Reference(kind=Kind.FILTER, name=found.get("filter", ""), where=where)
        if nic.get("type") == "network":
            group = _attr(nic, "source", "portgroup")
            name = _attr(nic, "source", "network")
            yield Reference(kind=Kind.NETWORK, name=name, where=where, portgroup=group, lan=Lan())
        for name in ("tap", "vhost"):
            yield from _file(_attr(nic, "backend", name), Kind.DEVICE, where)
        for name in ("script", "downscript"):
            yield from _file(_attr(nic, name, "path"), Kind.PRESENT, where)
        yield from _file(_attr(nic, "rom", "file"), Kind.FIRMWARE, f"{where} ROM")


def _disks(domain: Element) -> Iterator[Reference]:
    """Only what stands beside a disk: the disk itself is judged by the volume and storage ports."""
    for disk in domain.iterfind("devices/disk"):
        where = f"disk {_attr(disk, 'target', 'dev')}"
        for config in disk.iter("config"):
            yield from _file(config.get("file"), Kind.PRESENT, where)
        for reservations in disk.iter("reservations"):
            if reservations.get("managed") == "no":
                yield from _file(_attr(reservations, "source", "path"), Kind.SERVER, f"{where} reservations")


def _arguments(domain: Element) -> Iterator[Reference]:
    values = [(arg, "qemu:arg") for arg in domain.iterfind(f"{{{QEMU}}}commandline/{{{QEMU}}}arg")]
    values += [(env, "qemu:env") for env in domain.iterfind(f"{{{QEMU}}}commandline/{{{QEMU}}}env")]
    values += [(prop, "qemu:property") for prop in domain.iter(f"{{{QEMU}}}property")]
    for element, where in values:
        for path in paths_in(element.get("value", "")):
            yield Reference(kind=Kind.ARGUMENT, name=path, where=f"{where} {element.get('value', '')[:60]}")


def _tuning(domain: Element) -> Iterator[Reference]:
    vcpu = domain.find("vcpu")
    if vcpu is not None and vcpu.get("placement") != "auto" and vcpu.get("cpuset"):
        yield Reference(kind=Kind.CPUS, name=vcpu.get("cpuset", ""), where="<vcpu>")
    for name in ("vcpupin", "emulatorpin", "iothreadpin"):
        for pin in domain.iterfind(f"cputune/{name}"):
            yield Reference(kind=Kind.CPUS, name=pin.get("cpuset", ""), where=f"<{name}>")
    for name in ("memory", "memnode"):
        for node in domain.iterfind(f"numatune/{name}"):
            if node.get("nodeset"):
                yield Reference(kind=Kind.NODES, name=node.get("nodeset", ""), where="<numatune>")
    for mask in domain.iterfind("devices/memory/source/nodemask"):
        yield Reference(kind=Kind.NODES, name=mask.text or "", where="memory device")
    for device in domain.iterfind("blkiotune/device/path"):
        yield from _file(device.text, Kind.DEVICE, "<blkiotune>")
    if domain.find("resource/fibrechannel[@appid]") is not None:
        yield Reference(kind=Kind.DEVICE, name=_APPIDS, where="<fibrechannel>")
    for name in ("cachetune", "memorytune"):
        if domain.find(f"cputune/{name}") is not None:
            what = "CPU cache" if name == "cachetune" else "memory bandwidth"
            yield Reference(kind=Kind.CACHE, name=what, where=f"<{name}>")


def _labels(domain: Element) -> Iterator[Reference]:
    for label in domain.iterfind("seclabel"):
        if label.get("type") != "none" and label.get("model") not in (None, "none"):
            yield Reference(kind=Kind.SECURITY, name=label.get("model", ""), where="<seclabel>")
    for device in domain.iterfind("devices/*"):
        if device.tag in _LABELLED:
            named = _attr(device, "target", "dev") or _attr(device, "target", "name") or _port(device)
            for label in device.iterfind("source/seclabel"):
                if label.get("model") not in (None, "none"):
                    where = f"<seclabel> of {device.tag} {named}".rstrip()
                    yield Reference(kind=Kind.SECURITY, name=label.get("model", ""), where=where)


def _file(path: str | None, kind: Kind, where: str) -> Iterator[Reference]:
    path = (path or "").strip()
    if path.startswith("/"):
        yield Reference(kind=kind, name=path, where=where)


def _attr(element: Element, child: str, name: str) -> str:
    found = element.find(child)
    return (found.get(name) or "") if found is not None else ""
