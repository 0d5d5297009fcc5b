"""A Cinder driver for tests: sparse files served by tgt, one target per volume, admission by initiator name.

Runs inside cinder-volume, which imports it from the checkout. tgt's control socket is in TGT_IPC_SOCKET. With
`use_chap_auth` each volume has a user and a password of its own, as Cinder's LVM driver has.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import Any

from cinder import interface
from cinder.volume import configuration, driver
from oslo_config import cfg

OPTIONS = [cfg.StrOpt("tgt_folder"), cfg.StrOpt("tgt_iqn_prefix")]
cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)


@interface.volumedriver
class TgtDriver(driver.BaseVD):  # type: ignore[misc]
    """Volumes of one back end."""

    VERSION = "1"
    CI_WIKI_NAME = "none"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    def do_setup(self, context: object) -> None:
        os.makedirs(self.configuration.tgt_folder, exist_ok=True)

    def check_for_setup_error(self) -> None:
        self._targets()

    def _update_volume_stats(self) -> None:
        self._stats = {
            "volume_backend_name": self.configuration.volume_backend_name,
            "vendor_name": "sterna",
            "driver_version": self.VERSION,
            "storage_protocol": "iSCSI",
            "total_capacity_gb": 100,
            "free_capacity_gb": 100,
            "reserved_percentage": 0,
            "multiattach": True,
            "thin_provisioning_support": True,
            "max_over_subscription_ratio": "20.0",
            "provisioned_capacity_gb": 0,
        }

    def create_volume(self, volume: Any) -> dict[str, str]:
        with open(self._path(volume), "wb") as file:
            file.truncate(volume["size"] << 30)
        return self.create_export(context=None, volume=volume)  # a guest may be started before Cinder knows of it

    def delete_volume(self, volume: Any) -> None:
        self.remove_export(None, volume)
        if os.path.exists(self._path(volume)):
            os.unlink(self._path(volume))

    def extend_volume(self, volume: Any, size: int) -> None:
        os.truncate(self._path(volume), size << 30)

    def create_export(self, context: object, volume: Any, connector: object = None) -> dict[str, str]:
        made = {"provider_location": self._portal()}
        if self._iqn(volume) in self._targets():
            return made
        number = str(1 + max(map(int, self._targets().values()), default=0))
        self._tgtadm("target", "new", "--tid", number, "--targetname", self._iqn(volume))
        self._tgtadm("logicalunit", "new", "--tid", number, "--lun", "1", "--backing-store", self._path(volume))
        if self.configuration.use_chap_auth:
            user, password = f"user-{secrets.token_hex(4)}", secrets.token_hex(8)
            self._tgtadm("account", "new", "--user", user, "--password", password)
            self._tgtadm("account", "bind", "--tid", number, "--user", user)
            made["provider_auth"] = f"CHAP {user} {password}"
        return made

    def ensure_export(self, context: object, volume: Any) -> dict[str, str]:
        return self.create_export(context, volume)

    def remove_export(self, context: object, volume: Any) -> None:
        number = self._targets().get(self._iqn(volume))
        if number is not None:
            self._tgtadm("target", "delete", "--force", "--tid", number)

    def initialize_connection(self, volume: Any, connector: Any, **_: object) -> dict[str, object]:
        number = self._targets()[self._iqn(volume)]
        self._tgtadm("target", "bind", "--tid", number, "--initiator-name", connector["initiator"], check=False)
        data = {
            "target_discovered": False,
            "target_iqn": self._iqn(volume),
            "target_lun": 1,
            "target_portal": self._portal(),
            "volume_id": volume["id"],
            "discard": False,
        }
        if volume["provider_auth"]:
            data["auth_method"], data["auth_username"], data["auth_password"] = volume["provider_auth"].split()
        return {"driver_volume_type": "iscsi", "data": data}

    def terminate_connection(self, volume: Any, connector: Any, **_: object) -> bool:
        number = self._targets().get(self._iqn(volume))
        if number is not None and connector:
            initiator = connector["initiator"]
            self._tgtadm("target", "unbind", "--tid", number, "--initiator-name", initiator, check=False)
        return len(volume.volume_attachment) > 1  # others are attached: the manager keeps the export

    def get_pool(self, volume: object) -> None:
        return None

    def _path(self, volume: Any) -> str:
        return str(os.path.join(self.configuration.tgt_folder, volume["name"]))

    def _iqn(self, volume: Any) -> str:
        return f"{self.configuration.tgt_iqn_prefix}:{volume['id']}"

    def _portal(self) -> str:
        return f"{self.configuration.target_ip_address}:{self.configuration.target_port}"

    def _targets(self) -> dict[str, str]:
        found = {}
        for line in self._tgtadm("target", "show").splitlines():
            if line.startswith("Target "):
                number, name = line.removeprefix("Target ").split(": ")
                found[name] = number
        return found

    def _tgtadm(self, mode: str, operation: str, *more: str, check: bool = True) -> str:
        argv = ["tgtadm", "--lld", "iscsi", "--mode", mode, "--op", operation, *more]
        return subprocess.run(argv, check=check, capture_output=True, text=True).stdout
