"""What a VM's definition says of the cloud it was made in: Nova writes it into the domain's metadata."""

from __future__ import annotations

from sterna.domain.model import Value


class Flavor(Value):
    """The size a VM was made in."""

    id: str = ""
    """'' where an older Nova did not write it."""
    name: str = ""
    memory_mib: int = 0
    disk_gib: int = 0
    ephemeral_gib: int = 0
    swap_mib: int = 0
    vcpus: int = 0
    extra_specs: dict[str, str] = {}


class NovaFacts(Value):
    """Nova's own element of a domain. '' is what is not in it."""

    name: str = ""
    """What its users call the VM; libvirt's name is `instance-0000002a`."""
    created_at: str = ""
    """ISO 8601 UTC."""
    user_id: str = ""
    project_id: str = ""
    image: str = ""
    """UUID of the image it was made from; '' for a VM that boots from a volume."""
    flavor: Flavor | None = None
