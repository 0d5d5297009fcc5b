"""Disks and media of random VMs: where they lie, in what form, on what bus, on what they stand. Pure."""

from __future__ import annotations

from collections.abc import Callable

from tests.random_vms.draft import DISK_MIB, Draft

ANOTHER_OWNER = "disk of another owner"
BUSES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd", "usb": "sd"}


def disks(draft: Draft) -> None:
    """None to three disks, one of them now and then a medium."""
    for _ in range(draft.rng.choices((0, 1, 2, 3), (1, 6, 4, 1))[0]):
        kind = draft.rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind not in (local, shared):
            draft.traits.append(f"disk {kind.__name__.replace('_', ' ')}")
        kind(draft)


_FORMS = {
    "raw": ("", "", " -o preallocation=falloc", " -o preallocation=full"),
    "qcow2": (
        "",
        "",
        " -o preallocation=metadata",
        " -o preallocation=full",
        " -o cluster_size=2M",
        " -o lazy_refcounts=on",
        " -o compat=0.10",
        " -o compression_type=zstd",
        " -o extended_l2=on,cluster_size=128k",
    ),
}


def local(draft: Draft) -> None:
    """On this host only, where Sterna may copy it: raw or qcow2, with and without holes."""
    form = draft.rng.choice(("raw", "qcow2"))
    path = f"{draft.folder}/disk{draft.next('file')}.{form}"
    options = draft.rng.choice(_FORMS[form])
    draft.details.append(f"{form}{options}".replace(" -o", ""))
    _create(draft, path, form, options)
    _disk(draft, path, form)


def shared(draft: Draft) -> None:
    """On storage that both hosts see."""
    form = draft.rng.choice(("raw", "qcow2"))
    path = f"{draft.shared}-{draft.next('file')}.{form}"
    draft.details.append(form)
    _create(draft, path, form)
    _disk(draft, path, form)


def overlay_on_shared(draft: Draft) -> None:
    """A local image on a base that both hosts see, now and then two images away."""
    base = f"{draft.shared}-base{draft.next('file')}.qcow2"
    _create(draft, base, "qcow2")
    if draft.rng.random() < 0.3:
        draft.details.append("two images deep")
        base = _overlay(draft, f"{draft.shared}-middle{draft.next('file')}.qcow2", base)
    top = _overlay(draft, f"{draft.folder}/overlay{draft.next('file')}.qcow2", base)
    _disk(draft, top, "qcow2")


def overlay_on_local(draft: Draft) -> None:
    """A local image on a local one: refused."""
    base = f"{draft.folder}/base{draft.next('file')}.qcow2"
    _create(draft, base, "qcow2")
    _disk(draft, _overlay(draft, f"{draft.folder}/top{draft.next('file')}.qcow2", base), "qcow2")


def shared_on_local(draft: Draft) -> None:
    """A shared image on a local one: refused."""
    base = f"{draft.folder}/base{draft.next('file')}.qcow2"
    _create(draft, base, "qcow2")
    _disk(draft, _overlay(draft, f"{draft.shared}-top{draft.next('file')}.qcow2", base), "qcow2")


def elsewhere(draft: Draft) -> None:
    """A local disk outside the instances directory: refused."""
    path = f"{draft.beside}/disk{draft.next('file')}.qcow2"
    _create(draft, path, "qcow2")
    _disk(draft, path, "qcow2")


def behind_a_link(draft: Draft) -> None:
    """A symbolic link to a shared or a local file."""
    number = draft.next("file")
    target = f"{_either(draft)}real{number}.qcow2"
    _create(draft, target, "qcow2")
    link = f"{draft.folder}/link{number}.qcow2"
    draft.here.append(f"ln -s {target} {link}")
    _disk(draft, link, "qcow2")


def of_another_format(draft: Draft) -> None:
    """Local, in a format that QEMU reads from others."""
    form = draft.rng.choice(("vmdk", "vdi", "vpc", "qed"))
    draft.details.append(form)
    path = f"{draft.folder}/disk{draft.next('file')}.{form}"
    _create(draft, path, form)
    _disk(draft, path, form)


def with_a_data_file(draft: Draft) -> None:
    """qcow2 with its data outside."""
    number = draft.next("file")
    where = _either(draft)
    path, data = f"{where}disk{number}.qcow2", f"{where}data{number}.raw"
    _create(draft, path, "qcow2", f" -o data_file={data},data_file_raw=on")
    draft.clean.append(f"rm -f {data}")
    _disk(draft, path, "qcow2")


def used_by_another(draft: Draft) -> None:
    """Local, and another domain of this host names it."""
    path = f"{draft.folder}/disk{draft.next('file')}.raw"
    _create(draft, path, "raw")
    _disk(draft, path, "raw")
    other = f"{draft.name}-other"
    disk = f"<disk type='file' device='disk'><source file='{path}'/><target dev='vda'/></disk>"
    xml = f"<domain type='qemu'><name>{other}</name><memory>32768</memory><os><type>hvm</type></os><devices>{disk}"
    draft.here.append(f'echo "{xml}</devices></domain>" >/run/o.xml && virsh -q define /run/o.xml')
    draft.clean.append(f"virsh -q undefine {other}")


def shareable(draft: Draft) -> None:
    """Marked so, local or shared."""
    path = _either(draft) + f"disk{draft.next('file')}.raw"
    _create(draft, path, "raw")
    _disk(draft, path, "raw", more="<shareable/>", cache="none")


def read_only(draft: Draft) -> None:
    """A disk that nobody writes to."""
    path = _either(draft) + f"disk{draft.next('file')}.raw"
    _create(draft, path, "raw")
    _disk(draft, path, "raw", more="<readonly/>", bus="virtio")


def transient(draft: Draft) -> None:
    """One whose writes are lost when the guest ends."""
    path = f"{draft.shared}-{draft.next('file')}.qcow2"
    _create(draft, path, "qcow2")
    _disk(draft, path, "qcow2", more="<transient/>", bus="virtio")


def cd(draft: Draft) -> None:
    """A CD: none, shared, in the instance folder, in a library here, on both hosts, or another one there."""
    number = draft.next("file")
    where = draft.rng.choice(("empty", "shared", "seed", "library", "same", "other"))
    path = {"shared": f"{draft.shared}-{number}.iso", "seed": f"{draft.folder}/seed{number}.iso"}.get(
        where, f"{draft.beside}/{number}.iso"
    )
    make = f"mkdir -p $(dirname {path}) && yes {draft.name}{number} | head -c 65536 > {path}"
    if where != "empty":
        draft.here.append(make)
    if where in ("same", "other"):
        draft.there.append(make.replace("yes ", "yes other ") if where == "other" else make)
    draft.traits.append(f"disk cd {where}")
    source = "" if where == "empty" else f"<source file='{path}'/>"
    policy = draft.rng.choice(("", "", " startupPolicy='optional'")) if source else ""
    bus = draft.rng.choice(("sata", "scsi") if draft.machine == "q35" else ("ide", "scsi"))
    target = _target(draft, bus)
    draft.devices.append(
        f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>{source.replace('/>', policy + '/>')}"
        f"<target dev='{target}' bus='{bus}'/><readonly/></disk>"
    )


def floppy(draft: Draft) -> None:
    """Empty, read-only or writable."""
    if draft.next("floppy"):
        return
    path = f"{draft.shared}-floppy.img"
    draft.here.append(f"head -c 1474560 /dev/zero > {path}")
    source = draft.rng.choice(("", f"<source file='{path}'/>"))
    lock = draft.rng.choice(("", "<readonly/>"))
    draft.details += [word for word, part in (("empty", not source), ("read-only", lock)) if part]
    draft.devices.append(f"<disk type='file' device='floppy'>{source}<target dev='fda' bus='fdc'/>{lock}</disk>")


def snapshotted(draft: Draft) -> None:
    """A shared disk with an internal snapshot of the guest."""
    path = f"{draft.shared}-{draft.next('file')}.qcow2"
    _create(draft, path, "qcow2")
    _disk(draft, path, "qcow2", bus="virtio")
    draft.started.append(
        f"virsh -q snapshot-create-as {draft.name} before --disk-only --no-metadata --diskspec "
        f"{_last_target(draft)},snapshot=external,file={path}.snap || true"
    )
    draft.clean.append(f"rm -f {path}.snap")


KINDS: dict[Callable[[Draft], None], float] = {
    local: 10,
    shared: 10,
    overlay_on_shared: 3,
    cd: 3,
    overlay_on_local: 0.7,
    shared_on_local: 0.7,
    elsewhere: 0.7,
    behind_a_link: 1,
    of_another_format: 1,
    with_a_data_file: 1,
    used_by_another: 0.7,
    shareable: 1,
    read_only: 1,
    transient: 0.5,
    floppy: 0.7,
    snapshotted: 0.7,
}


def _either(draft: Draft) -> str:
    """The beginning of a name in the instance folder, or in the one both hosts see."""
    where = draft.rng.choice(("local", "shared"))
    draft.details.append(where)
    return f"{draft.folder}/" if where == "local" else f"{draft.shared}-"


def _create(draft: Draft, path: str, form: str, options: str = "") -> None:
    """An image with some content in it."""
    size = f"{DISK_MIB}M"
    lines = [f"mkdir -p $(dirname {path})", f"qemu-img create -q -f {form}{options} {path} {size}"]
    pattern = draft.rng.randrange(1, 256)
    lines.append(f"qemu-io -f {form} -c 'write -q -P {pattern} 1M 128k' {path} >/dev/null")
    if draft.rng.random() < 0.2:
        draft.traits.append(ANOTHER_OWNER)
        lines.append(f"chown 1234:1234 {path} && chmod 640 {path}")
    draft.here.append(" && ".join(lines))
    draft.clean.append(f"rm -f {path}")


def _overlay(draft: Draft, path: str, base: str) -> str:
    """`path`, made on `base`."""
    lines = [f"mkdir -p $(dirname {path})", f"qemu-img create -q -f qcow2 -b {base} -F qcow2 {path}"]
    lines.append(f"qemu-io -f qcow2 -c 'write -q -P 7 2M 64k' {path} >/dev/null")
    draft.here.append(" && ".join(lines))
    draft.clean.append(f"rm -f {path}")
    return path


def _target(draft: Draft, bus: str) -> str:
    return BUSES[bus] + "abcdefgh"[draft.next(BUSES[bus])]


def _last_target(draft: Draft) -> str:
    return draft.devices[-1].partition("<target dev='")[2].partition("'")[0]


def _disk(draft: Draft, path: str, form: str, *, more: str = "", bus: str = "", cache: str = "") -> None:
    rng = draft.rng
    if not bus:
        bus = rng.choices(("virtio", "scsi", "sata" if draft.machine == "q35" else "ide", "usb"), (6, 3, 2, 1))[0]
    if bus == "scsi" and not draft.next("scsi controller"):
        model = rng.choice(("virtio-scsi", "virtio-scsi", "lsilogic"))
        draft.devices.append(f"<controller type='scsi' index='0' model='{model}'/>")
    cache = (
        cache
        or rng.choices(("none", "", "writeback", "directsync", "writethrough", "unsafe"), (6, 3, 1, 1, 1, 1))[0]
    )
    driver = f" cache='{cache}'" if cache else ""
    driver += rng.choice(("", "", " discard='unmap'", " discard='ignore'"))
    driver += rng.choice(("", "", "", " detect_zeroes='unmap'", " detect_zeroes='on'"))
    driver += rng.choice((" io='native'", " io='threads'", "")) if cache in ("none", "directsync") else ""
    driver += rng.choice(("", "", "", " error_policy='stop'", " rerror_policy='report'"))
    more += rng.choice(("", "", f"<serial>S{draft.number}x{draft.next('serial')}</serial>"))
    more += rng.choice(("", "", "", "<iotune><total_iops_sec>5000</total_iops_sec></iotune>"))
    draft.devices.append(
        f"<disk type='file' device='disk'><driver name='qemu' type='{form}'{driver}/><source file='{path}'/>"
        f"<target dev='{_target(draft, bus)}' bus='{bus}'/>{more}</disk>"
    )
