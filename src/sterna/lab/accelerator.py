"""Decides whether lab guests run under KVM or under software emulation (TCG).

A /dev/kvm that opens proves nothing: on some machines a guest hangs in it right after its firmware. So a probe
guest is booted, with a time limit, and the verdict is kept per boot of the machine and QEMU version.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Literal

from sterna.lab.errors import LabError
from sterna.lab.guest_image import GuestImage

Accelerator = Literal["kvm", "tcg"]
QEMU = "qemu-system-x86_64"
OLDEST_QEMU = (8, 2)
PROBE_SECONDS = 12.0
MARKER = "STERNA-GUEST-READY"


def qemu_version() -> tuple[int, int]:
    """The installed QEMU's (major, minor).

    Raises LabError when it is missing, or older than 8.2: QEMU 7.2 loses pages of migrating TCG guests.
    """
    try:
        text = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise LabError(f"{QEMU} is missing or broken: `make setup` installs it") from None
    found = re.search(r"version (\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST_QEMU:
        raise LabError(
            f"QEMU {version[0]}.{version[1]} is too old: before 8.2 it loses guest pages when a software-emulated "
            "guest migrates; `make setup` installs a newer one from Debian's backports"
        )
    return version


def choose_accelerator(image: GuestImage, cache: Path) -> Accelerator:
    """KVM if a probe guest really boots under it within some seconds, else TCG."""
    version = qemu_version()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{boot_id} {version[0]}.{version[1]}"
    verdicts = cache / "accelerator.json"
    try:
        known = json.loads(verdicts.read_text())
    except (OSError, ValueError):
        known = {}
    if known.get("key") == key and known.get("accelerator") in {"kvm", "tcg"}:
        return "kvm" if known["accelerator"] == "kvm" else "tcg"
    accelerator: Accelerator = "kvm" if Path("/dev/kvm").exists() and _boots_under_kvm(image) else "tcg"
    cache.mkdir(parents=True, exist_ok=True)
    verdicts.write_text(json.dumps({"key": key, "accelerator": accelerator}))
    return accelerator


def _boots_under_kvm(image: GuestImage) -> bool:
    argv = [QEMU, "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none"]
    argv += ["-serial", "stdio", "-no-reboot", "-kernel", str(image.kernel), "-initrd", str(image.initramfs)]
    argv += ["-append", "console=ttyS0 panic=-1 quiet sterna.probe"]
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return MARKER.encode() in done.stdout
