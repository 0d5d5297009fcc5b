from __future__ import annotations

import pytest

from sterna.adapters.images.glance import GlanceImages
from sterna.adapters.openstack import session
from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.domain.errors import Temporary
from tests.scripted_cloud import Answer, Asked, ScriptedCloud

IMAGE = "2b5f1c9e-0000-4000-8000-000000000001"


def script(asked: Asked) -> Answer | None:
    if asked.path == f"/v2/images/{IMAGE}":
        return Answer(200, {"id": IMAGE, "size": 5, "tags": [], "hw_disk_bus": "virtio", "img_hv_type": "kvm"})
    return Answer(503, {}) if asked.path == "/v2/images/busy" else None


async def test_properties_are_what_glance_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CHECK_S", 2.0)  # the library tries a busy service again and again
    with ScriptedCloud(script) as cloud:
        images = GlanceImages(Cloud(CloudAccess(auth_url=cloud.auth_url, username="sterna", password="pw")))
        assert await images.properties(IMAGE) == {"id": IMAGE, "hw_disk_bus": "virtio", "img_hv_type": "kvm"}
        assert await images.properties("gone") is None
        with pytest.raises(Temporary):
            await images.properties("busy")


@pytest.mark.parametrize("image", ["../servers", f"{IMAGE}/file", f"{IMAGE}?x=1", "", "a b", "%2e%2e", "x" * 65])
async def test_what_is_no_id_is_asked_of_nobody(image: str) -> None:
    """It is in the metadata of a domain, which another host may have sent."""
    with ScriptedCloud(script) as cloud:
        images = GlanceImages(Cloud(CloudAccess(auth_url=cloud.auth_url, username="sterna", password="pw")))
        assert await images.properties(image) is None
        assert not [asked for asked in cloud.asked if "images" in asked.path or "servers" in asked.path]
