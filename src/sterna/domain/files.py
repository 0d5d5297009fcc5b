"""Files that a migration makes on a host, and what became of those that it removed."""

from __future__ import annotations

from sterna.domain.model import Value


class Created(Value):
    """What `create_disk` and `make_directory` are about to make, written to the journal before they act."""

    directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Removed(Value):
    """What became of the files."""

    removed: tuple[str, ...] = ()
    kept: dict[str, str] = {}
    """Path -> why it was left alone."""

    def words(self, host: str) -> str:
        """For a status: what was kept on that host, and why; '' where nothing was."""
        return "; ".join(f"{path} is kept on {host}: {why}" for path, why in self.kept.items())


def same_file(known: str, found: str) -> bool:
    """Do these identities (`device:inode:ID of the file system`) belong to one file?

    A device may have another number after a reboot; the inode and the ID stay. A file system without an ID has 0.
    Identities of earlier versions have none: then the inode must do.
    """
    was, now = known.split(":"), found.split(":")
    if was[1] != now[1]:
        return False
    if len(was) < 3 or len(now) < 3:
        return True
    return was[2] == now[2] and (was[2] != "0" or was[0] == now[0])
