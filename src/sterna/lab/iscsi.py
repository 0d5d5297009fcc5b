"""The lab's iSCSI target (tgt, in user space): volumes, who is admitted to them, who is connected."""

import os
import re
from pathlib import Path

from sterna.lab.errors import LabError
from sterna.lab.namespaces import Namespaces
from sterna.lab.places import TGT_SOCKET, target_name


class IscsiTarget:
    """The target daemon in the lab's outer namespaces."""

    def __init__(self, outer: Namespaces, folder: Path) -> None:
        self._outer = outer
        self._folder = folder

    def create(self, name: str, size_mib: int) -> str:
        """Makes a sparse volume and its target, LUN 1, no initiator admitted. Returns the target's name."""
        backing = self._folder / f"{name}.img"
        backing.parent.mkdir(parents=True, exist_ok=True)
        with backing.open("xb") as file:
            os.truncate(file.fileno(), size_mib << 20)
        number = str(1 + max((found[0] for found in self._show().values()), default=0))
        self._tgtadm("target", "new", "--tid", number, "--targetname", target_name(name))
        self._tgtadm("logicalunit", "new", "--tid", number, "--lun", "1", "--backing-store", str(backing))
        return target_name(name)

    def admit(self, name: str, initiator: str) -> None:
        """Lets an initiator log in."""
        self._tgtadm("target", "bind", "--tid", self._number(name), "--initiator-name", initiator)

    def want_login(self, name: str, password: str) -> None:
        """From now on an initiator must log in with CHAP too; the user is called like the volume."""
        self._tgtadm("account", "new", "--user", name, "--password", password)
        self._tgtadm("account", "bind", "--tid", self._number(name), "--user", name)

    def expel(self, name: str, initiator: str) -> None:
        """Takes an admission back; sessions that exist go on."""
        self._tgtadm("target", "unbind", "--tid", self._number(name), "--initiator-name", initiator)

    def remove(self, name: str) -> None:
        """Removes a volume with its target and its file, whoever is connected."""
        self._tgtadm("target", "delete", "--force", "--tid", self._number(name))
        (self._folder / f"{name}.img").unlink(missing_ok=True)
        if name in self._tgtadm("account", "show"):
            self._tgtadm("account", "delete", "--user", name)

    def volumes(self) -> list[str]:
        """The target names of all volumes."""
        return sorted(self._show())

    def admitted(self, target: str) -> list[str]:
        """The initiator names that a target's access list admits."""
        text = self._find(target)[1]
        acl = text.partition("ACL information:")[2]
        return sorted(line.strip() for line in acl.splitlines() if line.strip().startswith("iqn."))

    def sessions(self, target: str) -> list[str]:
        """The initiator names of a target's sessions, one entry per session."""
        return sorted(re.findall(r"^\s+Initiator: (\S+)", self._find(target)[1], re.MULTILINE))

    def _find(self, target: str) -> tuple[int, str]:
        found = self._show().get(target)
        if found is None:
            raise LabError(f"there is no iSCSI target {target}")
        return found

    def _number(self, name: str) -> str:
        return str(self._find(target_name(name))[0])

    def _show(self) -> dict[str, tuple[int, str]]:
        """Target name -> (number, what tgtadm says about it)."""
        text = self._tgtadm("target", "show")
        parts = re.split(r"^Target (\d+): (\S+)$", text, flags=re.MULTILINE)
        return {parts[i + 1]: (int(parts[i]), parts[i + 2]) for i in range(1, len(parts), 3)}

    def _tgtadm(self, mode: str, operation: str, *arguments: str) -> str:
        argv = ["tgtadm", "--lld", "iscsi", "--mode", mode, "--op", operation, *arguments]
        return self._outer.run(argv, extra_environment={"TGT_IPC_SOCKET": TGT_SOCKET}).stdout
