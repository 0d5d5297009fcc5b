"""What a VM's definition says of the cloud it was made in: Nova writes it into the domain's metadata."""

from __future__ import annotations

from sterna.domain.model import Value


class Flavor(Value):
    """The flavor that a VM was created with."""

    id: str = ""
    """Empty if written by an older Nova."""
    name: str = ""
    memory_mib: int = 0
    disk_gib: int = 0
    ephemeral_gib: int = 0
    swap_mib: int = 0
    vcpus: int = 0
    extra_specs: dict[str, str] = {}


class NovaFacts(Value):
    """Nova's metadata in the domain. Empty: not in it."""

    name: str = ""
    """Display name of the VM; its name in libvirt is `instance-0000002a`."""
    created_at: str = ""
    """ISO 8601 UTC."""
    user_id: str = ""
    project_id: str = ""
    image: str = ""
    """UUID of the image that it was created from; empty if it boots from a volume."""
    flavor: Flavor | None = None
