"""`[compute]` and `[nova]` of a controller's settings: the Compute API, and a Nova beside Sterna."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sterna.config.section import Section
from sterna.domain.policies import DEFAULT

Interface = Literal["internal", "public", "admin"]


class ComputeSettings(Section):
    """The Compute API of OpenStack at `/compute`. Needs `[access.keystone]`, whose user needs the role `admin` to
    read ports and volumes of every project."""

    enabled: bool = False
    """True: serve it."""
    url: str = Field(default="", pattern=r"^(https?://[^\s?#]+[^/\s?#])?$")
    """URL for clients, including `/compute`: links in responses begin with it. '': the URL of the request. Set it
    behind a proxy that terminates TLS."""
    zone: str = Field(default="nova", min_length=1, max_length=255)
    """The name of the one availability zone. The default is Nova's."""
    project: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,64}$")
    """Keystone's ID of the project of VMs whose project cannot be determined from Nova's metadata, Neutron or
    Cinder. '': only administrators see these VMs."""
    region: str | None = None
    """Region of Neutron and Cinder in the catalog. Not set: the catalog has one region."""
    interface: Interface = "internal"
    """Which endpoints of the catalog are used."""
    neutron: bool = True
    """Ask Neutron for projects and addresses."""
    cinder: bool = True
    """Ask Cinder for projects and attachments. Without it, Sterna cannot say which attachment of a volume is in
    use, and Cinder then lets users delete none."""
    policy: str = DEFAULT
    """Policy of migrations that are requested through this API, which has no parameter for it."""
    may: tuple[Literal["throttle", "postcopy", "pause"], ...] | None = None
    """Allowed if a copy does not converge. Not set: as defined by the policy. With `postcopy`, `force complete`
    switches to post-copy. Otherwise it pauses the guest until the rest is copied."""


class NovaSettings(Section):
    """A Nova in the same cloud that manages VMs, perhaps on Sterna's hosts. Sterna does not migrate its VMs,
    because Nova would not notice. The controller asks it as the user in `[access.keystone]`."""

    region: str | None = None
    """Its region in the catalog. Not set: there is no such Nova. Never the region of Sterna's own endpoint."""
    interface: Interface = "internal"
    """Which endpoint of the catalog is used."""
