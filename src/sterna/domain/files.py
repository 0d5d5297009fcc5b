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
