"""Builds the lab guest: a Debian cloud kernel and a small initramfs around `guest/workload.c`.

Nothing is installed on the machine: the kernel package is downloaded and unpacked into the cache. Called by
`Lab.up` and by the accelerator probe.
"""

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sterna.lab.errors import LabError
from sterna.lab.places import SOURCE

MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
    "pvpanic",
    "pvpanic-mmio",
)
"""In the order in which they must be loaded."""
META_PACKAGE = "linux-image-cloud-amd64"
COMPILE = ("gcc", "-O2", "-fno-tree-vectorize", "-Wall", "-static", "-pthread")
BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True)
class GuestImage:
    """A bootable guest: the folder, and the two files in it."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The kernel image."""
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The initramfs with drivers and workload."""
        return self.folder / "initramfs"


def build_guest_image(cache: Path) -> GuestImage:
    """The guest in `cache`/guest, built first if it is missing or its sources changed (some seconds).

    Raises LabError when the kernel cannot be downloaded or the workload not compiled.
    """
    folder = cache / "guest"
    folder.mkdir(parents=True, exist_ok=True)
    image = GuestImage(folder)
    stamp = folder / "stamp"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _fingerprint()
        if stamp.exists() and stamp.read_text() == wanted and image.kernel.exists() and image.initramfs.exists():
            return image
        stamp.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _build(image, Path(work))
        stamp.write_text(wanted)
    return image


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for part in (SOURCE / "guest/workload.c", SOURCE / "guest/init", Path(__file__)):
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _build(image: GuestImage, work: Path) -> None:
    tree = _kernel_tree(image.folder, work)
    kernels = sorted(tree.glob("boot/vmlinuz-*"))
    if not kernels:
        raise LabError(f"the kernel package holds no boot/vmlinuz-*; remove {image.folder} and try again")
    files: dict[str, tuple[int, bytes]] = {
        "init": (0o100755, (SOURCE / "guest/init").read_bytes()),
        "workload": (0o100755, _compile(work)),
        "bin/busybox": (0o100755, _busybox()),
    }
    modules = {name: content for name in MODULES if (content := _module(tree, name)) is not None}
    files["modules/order"] = (0o100644, "\n".join(modules).encode())
    for name, content in modules.items():
        files[f"modules/{name}.ko"] = (0o100644, content)
    (work / "initramfs").write_bytes(_cpio(files))
    shutil.copyfile(kernels[-1], work / "vmlinuz")
    os.replace(work / "initramfs", image.initramfs)
    os.replace(work / "vmlinuz", image.kernel)


def _kernel_tree(folder: Path, work: Path) -> Path:
    """The unpacked kernel package, downloaded once and kept as a .deb."""
    kept = sorted(folder.glob("linux-image-*.deb"))
    if not kept:
        listing = _run(["apt-cache", "depends", META_PACKAGE], work)
        found = re.search(r"Depends:\s*(linux-image-\S+-cloud-\S+)", listing)
        if not found:
            raise LabError(f"apt knows no {META_PACKAGE}; run `apt-get update` and try again")
        _run(["apt-get", "-o", "APT::Sandbox::User=root", "download", found[1]], work)
        for downloaded in work.glob("linux-image-*.deb"):
            os.replace(downloaded, folder / downloaded.name)
        kept = sorted(folder.glob("linux-image-*.deb"))
    tree = work / "tree"
    _run(["dpkg", "-x", str(kept[-1]), str(tree)], work)
    return tree


def _module(tree: Path, name: str) -> bytes | None:
    """One kernel module, unpacked; None where this kernel has it built in."""
    for base in ("lib/modules", "usr/lib/modules"):
        for path in tree.glob(f"{base}/*/kernel/**/{name}.ko*"):
            content = path.read_bytes()
            return lzma.decompress(content) if path.suffix == ".xz" else content
    return None


def _compile(work: Path) -> bytes:
    _run([*COMPILE, "-o", "workload", str(SOURCE / "guest/workload.c")], work)
    return (work / "workload").read_bytes()


def _busybox() -> bytes:
    if not BUSYBOX.exists():
        raise LabError(f"{BUSYBOX} is missing: install busybox-static (`make setup` does)")
    return BUSYBOX.read_bytes()


def _run(argv: list[str], work: Path) -> str:
    try:
        done = subprocess.run(argv, cwd=work, capture_output=True, text=True, timeout=300, check=True)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is missing: `make setup` installs what the lab needs") from None
    except subprocess.CalledProcessError as failed:
        raise LabError(f"building the guest: `{' '.join(argv)}` failed: {failed.stderr.strip()}") from None
    return done.stdout


def _cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive in the kernel's `newc` format, with the folders that the files and mounts need."""
    folders = {"proc", "sys", "dev"} | {name.rpartition("/")[0] for name in files if "/" in name}
    entries = [(name, 0o40755, b"") for name in sorted(folders)]
    entries += [(name, mode, content) for name, (mode, content) in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    archive = bytearray()
    for inode, (name, mode, content) in enumerate(entries, start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += name.encode() + b"\0"
        archive += b"\0" * (-len(archive) % 4)
        archive += content
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)
