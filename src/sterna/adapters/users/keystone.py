"""Keystone (`ports.users.UserDirectory`): which user a token of the cloud belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sterna.adapters.openstack.session import Cloud
from sterna.domain.errors import NotFound, SternaError, Unreachable
from sterna.ports.users import ExternalUser

if TYPE_CHECKING:
    from openstack.connection import Connection

_FIX = "check that Keystone answers, and `[access.keystone]` in the controller's settings"


class KeystoneUsers:
    """Users of one cloud."""

    def __init__(self, cloud: Cloud, auth_url: str) -> None:
        """`auth_url`: Keystone, with `/v3`."""
        self._cloud, self._url = cloud, f"{auth_url.rstrip('/')}/auth/tokens"

    async def user(self, token: str) -> ExternalUser | None:
        """None for a token that Keystone does not know, or that has expired. Raises Unreachable."""

        def read(cloud: Connection) -> Any:
            answer = cloud.session.get(f"{self._url}?nocatalog", headers={"X-Subject-Token": token})
            return answer.json()["token"]

        try:
            # not the login's `of`: whoever sends tokens must not use up the threads that may hang there
            async with self._cloud.asking_for_a_check("Keystone"):
                return _user(await self._cloud.ask("check a user's token", read, of="keystone-tokens"))
        except NotFound:
            return None
        except SternaError as error:
            raise Unreachable(f"Keystone does not say whose token it is: {error.message}", fix=_FIX) from error
        except (LookupError, TypeError, ValueError) as error:
            raise Unreachable("Keystone's answer about a token cannot be read", fix=_FIX) from error


def _user(token: Any) -> ExternalUser:
    user, project = token["user"], token.get("project") or {}
    return ExternalUser(
        name=f"{user['name']}@{user['domain']['name']}",
        project=f"{project['name']}@{project['domain']['name']}" if project else "",
        roles=tuple(role["name"] for role in token.get("roles", ())),
        user_id=user["id"],
        project_id=project.get("id") or "",
        expires_at=token["expires_at"],
    )
