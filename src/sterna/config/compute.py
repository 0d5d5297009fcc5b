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
    """True: it is served."""
    url: str = Field(default="", pattern=r"^(https?://[^\s?#]+[^/\s?#])?$")
    """What its clients reach it by, with `/compute`: links in answers begin with it. '': what each client has
    called it. Set it behind a proxy that ends TLS."""
    zone: str = Field(default="nova", min_length=1, max_length=255)
    """The name of the one availability zone. The default is Nova's."""
    project: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,64}$")
    """Keystone's ID of the project of VMs whose project cannot be determined from Nova's metadata, Neutron or
    Cinder. '': only administrators see those."""
    region: str | None = None
    """Region of Neutron and Cinder in the catalog. Not set: the catalog has one region."""
    interface: Interface = "internal"
    """Which endpoints of the catalog are used."""
    neutron: bool = True
    """Ask Neutron for projects and addresses."""
    cinder: bool = True
    """Ask Cinder for projects and attachments. Without it, by which attachment a volume is in use cannot be said:
    then Cinder keeps its users from deleting any."""
    policy: str = DEFAULT
    """The policy of migrations that are asked for here: the API has no words for one."""
    may: tuple[Literal["throttle", "postcopy", "pause"], ...] | None = None
    """What may be done to a guest whose copy does not converge. Not set: as the policy has it. With `postcopy`,
    `force complete` switches to post-copy. Otherwise it pauses the guest until the rest is copied."""


class NovaSettings(Section):
    """A Nova in the same cloud that has VMs of its own, perhaps on Sterna's hosts. What it has is not migrated
    here: it would not notice. Asked with the user of `[access.keystone]`."""

    region: str | None = None
    """Its region in the catalog. Not set: there is none. Never the region of Sterna's own endpoint."""
    interface: Interface = "internal"
    """Which endpoint of the catalog is used."""
