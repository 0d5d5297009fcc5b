"""Why a host cannot give what a VM's definition names (`references.py`). Pure: one function per kind."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator

from sterna.domain.model import Refusal
from sterna.domain.next_start import ONLY_PERSISTENT
from sterna.domain.references import (
    Form,
    HostResources,
    Kind,
    Reference,
    Thing,
    in_words,
    numbers,
    translations,
)
from sterna.domain.refusals import Code

Judge = Callable[[Reference, HostResources], Iterator[Refusal]]


def refusals(references: Iterable[Reference], host: HostResources) -> list[Refusal]:
    """Every reason at once, each once."""
    references = tuple(references)
    moved = translations(references, host)
    found: dict[tuple[str, str], Refusal] = {}
    for ref in references:
        if _is_missing_already(ref):
            continue
        if ref.kind is Kind.ADDRESS and ref.name in moved:
            ref = ref.model_copy(update={"name": moved[ref.name]})  # noqa: PLW2901
        for refusal in _against(ref, host):
            message = refusal.message
            if ref.cold:
                message += f" {ONLY_PERSISTENT}"
            found.setdefault((refusal.code, message), refusal.model_copy(update={"message": message}))
    return list(found.values())


def _against(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if ref.silent:
        message = f"{ref.where} names {ref.name}, whose file system does not answer on the source"
        fix = "see there that the storage it is on can be reached, or remove it from the VM"
        yield Refusal(code="path-silent", message=message, fix=fix)
    else:
        yield from _JUDGES[ref.kind](ref, host)


_FOUND = (Kind.FILE, Kind.FIRMWARE, Kind.PRESENT, Kind.DEVICE)
_MADE = (Kind.SOCKET, Kind.OUTPUT)


def _is_missing_already(ref: Reference) -> bool:
    """The next cold start would fail on the source as well: the move makes nothing worse."""
    if not ref.cold or ref.thing is None:
        return False
    return (ref.kind in _FOUND and ref.thing.form is Form.NOTHING) or (ref.kind in _MADE and not ref.thing.folder)


_CODES: dict[Kind, Code] = {
    Kind.ADDRESS: "port-taken",
    Kind.SOCKET: "path-taken",
    Kind.OUTPUT: "path-taken",
    Kind.CID: "vsock-taken",
}
"""Things that one VM of a host can have, and the reason against another one."""
_EVERY = ("", "0.0.0.0", "::")  # noqa: S104 - compared with


def clashes(references: Iterable[Reference], other: str, promised: Iterable[Reference]) -> list[Refusal]:
    """What is promised to the VM `other`, which is on its way to the same host."""
    theirs, found = tuple(promised), {}
    for ref in references:
        code = _CODES.get(ref.kind)
        if code is not None and not ref.cold and any(_same(ref, each) for each in theirs):
            what = f"port {ref.port} of {ref.name}" if ref.kind is Kind.ADDRESS else ref.name
            message = f"{ref.where} needs {what}, which is promised to {other}, which is migrating there"
            found[message] = Refusal(code=code, message=message, fix="give one of the two VMs another one")
    return list(found.values())


def _same(one: Reference, other: Reference) -> bool:
    if one.kind is not other.kind or other.cold:
        return False
    if one.kind is not Kind.ADDRESS:
        return one.name == other.name
    near = one.name == other.name or one.name in _EVERY or other.name in _EVERY
    return near and one.port is not None and (one.port, one.udp) == (other.port, other.udp)


def _address(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    in_the_way = host.bindable(ref.name, 0 if ref.cold else ref.port or 0, udp=ref.udp)
    if in_the_way == "address":
        fix = (
            f"give {host.name} an address in the same network, or let it listen at 0.0.0.0 or 127.0.0.1 "
            "(virsh edit, then restart it)"
        )
        message = f"{ref.where} listens at {ref.name}, an address that {host.name} does not have"
        yield Refusal(code="listen-address-missing", message=message, fix=fix)
    elif in_the_way:
        message = f"{ref.where} listens at port {ref.port} of {ref.name}, which is in use on {host.name}"
        fix = f"end what has it there (ss -lntup 'sport = :{ref.port}'), or give the VM another port"
        yield Refusal(code="port-taken", message=message, fix=fix)


def _peer(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if ref.port and not ref.cold and not host.reaches(ref.name, ref.port):
        message = f"{ref.where} connects to {ref.name}:{ref.port}, where no program answers {host.name}"
        fix = "start what listens there, or let QEMU try again by itself (<reconnect enabled='yes' timeout='5'/>)"
        yield Refusal(code="remote-unreachable", message=message, fix=fix)


def _without_folder(ref: Reference, host: HostResources, what: str) -> Iterator[Refusal]:
    folder = posixpath.dirname(ref.name)
    seen = host.thing(ref.name)
    if not seen.folder and not host.makes(folder):
        message = f"{ref.where} {what} {ref.name}, but {host.name} has no folder {folder}"
        yield Refusal(code="folder-missing", message=message, fix=f"mkdir -p {folder} there")
    elif seen.form is Form.FOLDER:
        message = f"{ref.where} {what} {ref.name}, which is a folder on {host.name}"
        yield Refusal(code="path-taken", message=message, fix="remove it there, or name another file")
    elif not ref.cold and (user := host.user_of(ref.name)):
        message = f"{ref.where} {what} {ref.name}, which {user} on {host.name} uses"
        yield Refusal(code="path-taken", message=message, fix="give one of the two VMs another path")


def _socket(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    yield from _without_folder(ref, host, "makes the socket")


def _output(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    yield from _without_folder(ref, host, "writes")


def _server(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if not ref.cold and not host.listening(ref.name):
        message = f"{ref.where} connects to the socket {ref.name}, at which no program listens on {host.name}"
        fix = "start the program that makes it there"
        yield Refusal(code="socket-missing", message=message, fix=fix)


def _missing(ref: Reference, host: HostResources) -> Refusal:
    message = f"{ref.where} needs {ref.name}, which {host.name} does not have"
    return Refusal(code="file-missing", message=message, fix=f"copy it to {host.name}, or remove it from the VM")


def _present(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    there = ref.name, *((ref.unless,) if ref.unless else ())
    if all(host.thing(path).form is Form.NOTHING for path in there):
        yield _missing(ref, host)


def _file(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    here = host.thing(ref.name, digest=True)
    was = ref.thing
    if here.form is Form.NOTHING:
        yield _missing(ref, host)
    elif was is None or was.form is not Form.FILE or here.form is not Form.FILE:
        return  # no file at the source either: what it is, QEMU knows
    elif was.digest is not None and was.digest == here.digest:
        return
    elif None in (was.digest, here.digest) and _looks_the_same(was, here):
        return  # one file, on storage that both hosts see
    elif was.digest is not None:
        message = f"{ref.where}: {ref.name} on {host.name} has other content, which the guest would be given"
        yield Refusal(code="file-differs", message=message, fix=f"copy it from the source to {host.name}")
    else:
        message = f"{ref.where}: {ref.name} is too long to be compared with the one on {host.name}"
        yield Refusal(code="file-differs", message=message, fix="put it on storage that both hosts see")


def _looks_the_same(was: Thing, here: Thing) -> bool:
    """Hosts that are clones of one image have such files too: where both could be read, their content counts."""
    return (was.size, was.inode, was.modified_ns) == (here.size, here.inode, here.modified_ns)


def _firmware(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    here, was = host.thing(ref.name), ref.thing
    if here.form is Form.NOTHING:
        yield _missing(ref, host)
    elif was is not None and was.size is not None and here.size != was.size:
        message = f"{ref.where}: {ref.name} has {here.size} bytes on {host.name}, {was.size} on the source"
        yield Refusal(code="firmware-size", message=message, fix="install the same firmware package on both hosts")


def _device(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if host.thing(ref.name).form is Form.NOTHING:
        message = f"{ref.where} uses {ref.name}, which {host.name} does not have"
        fix = f"load its driver or make it on {host.name}, or remove it from the VM"
        yield Refusal(code="device-missing", message=message, fix=fix)


def _argument(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    """Judged by what it is on the source: something that exists is needed, anything else is made."""
    was = ref.thing
    if ref.written:
        yield from _written(ref, host)
    elif was is None or was.form is Form.FILE:
        yield from _file(ref, host)
    elif was.form is Form.BLOCK:
        message = f"{ref.where} gives QEMU {ref.name}, a disk that cannot be proven to be the same on {host.name}"
        yield Refusal(code="argument-disk", message=message, fix="give it to the VM as a <disk>, or take it out")
    elif was.form in (Form.DEVICE, Form.FOLDER, Form.PIPE):
        if host.thing(ref.name).form is not was.form:
            yield _missing(ref, host)
    elif was.folder:
        yield from _without_folder(ref, host, "names")


def _written(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    """A copy of the file, however new, would lack what the guest writes until it leaves."""
    if not ref.shared:
        message = (
            f"{ref.where} lets QEMU write to {ref.name}, which is not proven to be the same file on {host.name}"
        )
        fix = (
            "give it to the VM as a <disk>, put it on storage that both hosts see, or take it out: a copy is stale"
        )
        yield Refusal(code="argument-disk", message=message, fix=fix)


def _network(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    state = host.network(ref.name)
    if not state:
        message = f"{ref.where} is on libvirt's network {ref.name}, which {host.name} does not have"
        yield Refusal(
            code="network-missing", message=message, fix=f"virsh net-define and net-start it on {host.name}"
        )
    elif state != "active" and not ref.cold:
        message = f"{ref.where} is on libvirt's network {ref.name}, which is not started on {host.name}"
        yield Refusal(code="network-inactive", message=message, fix=f"virsh net-start {ref.name} there")
    if state and ref.lan is not None and (here := host.lan(ref.name, ref.portgroup)) not in (None, ref.lan):
        message = (
            f"{ref.where} is on libvirt's network {ref.name}, which is another one on {host.name}: {here} there, "
            f"{ref.lan} on the source"
        )
        fix = "define it there as it is on the source (virsh net-dumpxml), or give one of the two another name"
        yield Refusal(code="network-differs", message=message, fix=fix)


def _filter(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if not host.has_filter(ref.name):
        message = f"{ref.where} has the network filter {ref.name}, which {host.name} does not have"
        fix = f"virsh nwfilter-dumpxml {ref.name} on the source, virsh nwfilter-define on {host.name}"
        yield Refusal(code="filter-missing", message=message, fix=fix)


def _secret(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    """It is brought as a disk's is, which `secrets.py` judges."""
    yield from ()


def _cpus(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    yield from _outside(ref, host, host.cpus(), "cpus-missing", "CPUs")


def _nodes(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    yield from _outside(ref, host, host.nodes(), "nodes-missing", "NUMA nodes")


def _outside(ref: Reference, host: HostResources, here: frozenset[int], code: Code, what: str) -> Iterator[Refusal]:
    wanted = numbers(ref.name)
    if wanted - here:
        message = f"{ref.where} binds the VM to {what} {in_words(wanted)}, {host.name} has {in_words(here)}"
        yield Refusal(
            code=code, message=message, fix="choose a host that has them, or bind it to others (virsh edit)"
        )


def _pages(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    free = host.free_pages(int(ref.name), numbers(ref.nodes) if ref.nodes else frozenset())
    on = f" on NUMA nodes {ref.nodes}" if ref.nodes else ""
    if free is None:
        message = f"{ref.where} needs huge pages of {ref.name} KiB, for which {host.name} has no hugetlbfs mounted"
        fix = f"mount -t hugetlbfs -o pagesize={ref.name}K there, and restart its libvirtd"
        yield Refusal(code="hugepages-short", message=message, fix=fix)
    elif free - ref.promised < ref.count and not ref.cold:
        more = f" ({ref.promised} of them promised to others)" if ref.promised else ""
        message = (
            f"{host.name} has {free} free huge pages of {ref.name} KiB{on}{more}, {ref.where} needs {ref.count}"
        )
        yield Refusal(code="hugepages-short", message=message, fix="reserve more there (sysctl vm.nr_hugepages)")


def _cid(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if not ref.cold and (user := host.cid_user(ref.name)):
        message = f"vsock address {ref.name} is in use on {host.name}, by {user}"
        yield Refusal(code="vsock-taken", message=message, fix="let libvirt choose it (<cid auto='yes'/>)")


def _security(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    here = host.security_models()
    if ref.name not in here:
        message = f"{ref.where} is for the security driver {ref.name}; {host.name} has {', '.join(sorted(here))}"
        fix = "name it as `security_driver` in qemu.conf there, or take the <seclabel> out"
        yield Refusal(code="security-driver-missing", message=message, fix=fix)


def _cache(ref: Reference, host: HostResources) -> Iterator[Refusal]:
    if not host.allocates_cache():
        message = f"{ref.where} allocates {ref.name}, for which {host.name} has no resctrl"
        yield Refusal(code="resctrl-missing", message=message, fix="mount -t resctrl resctrl /sys/fs/resctrl there")


_JUDGES: dict[Kind, Judge] = {
    Kind.ADDRESS: _address,
    Kind.PEER: _peer,
    Kind.SOCKET: _socket,
    Kind.SERVER: _server,
    Kind.OUTPUT: _output,
    Kind.FILE: _file,
    Kind.FIRMWARE: _firmware,
    Kind.PRESENT: _present,
    Kind.DEVICE: _device,
    Kind.ARGUMENT: _argument,
    Kind.NETWORK: _network,
    Kind.FILTER: _filter,
    Kind.SECRET: _secret,
    Kind.CPUS: _cpus,
    Kind.NODES: _nodes,
    Kind.PAGES: _pages,
    Kind.CID: _cid,
    Kind.SECURITY: _security,
    Kind.CACHE: _cache,
}
