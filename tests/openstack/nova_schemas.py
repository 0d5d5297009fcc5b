"""Runs in Nova's own Python environment: validates answers of a Compute API with the schemas Nova has of its own.

`nova_schemas.py FILE`: FILE is a JSON list of `{"method", "path", "version", "body"}`. Prints a JSON object: how
many answers were valid, by route, and what is wrong with the others. Nova's controllers carry their schemas as an
attribute of each method.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

from nova.api.openstack import api_version_request
from nova.api.openstack.compute import (
    aggregates,
    attach_interfaces,
    availability_zone,
    flavors,
    flavors_extraspecs,
    hosts,
    hypervisors,
    instance_actions,
    migrations,
    server_diagnostics,
    server_external_events,
    server_migrations,
    server_tags,
    servers,
    services,
    volume_attachments,
)
from nova.api.validation import validators

ID = "[^/]+"
ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "/servers"): servers.ServersController.index,
    ("GET", "/servers/detail"): servers.ServersController.detail,
    ("GET", f"/servers/{ID}"): servers.ServersController.show,
    ("GET", f"/servers/{ID}/tags"): server_tags.ServerTagsController.index,
    ("GET", f"/servers/{ID}/migrations"): server_migrations.ServerMigrationsController.index,
    ("GET", f"/servers/{ID}/migrations/{ID}"): server_migrations.ServerMigrationsController.show,
    ("GET", f"/servers/{ID}/os-instance-actions"): instance_actions.InstanceActionsController.index,
    ("GET", f"/servers/{ID}/os-instance-actions/{ID}"): instance_actions.InstanceActionsController.show,
    ("GET", f"/servers/{ID}/os-volume_attachments"): volume_attachments.VolumeAttachmentController.index,
    ("GET", f"/servers/{ID}/os-volume_attachments/{ID}"): volume_attachments.VolumeAttachmentController.show,
    ("GET", f"/servers/{ID}/os-interface"): attach_interfaces.InterfaceAttachmentController.index,
    ("GET", f"/servers/{ID}/os-interface/{ID}"): attach_interfaces.InterfaceAttachmentController.show,
    ("GET", f"/servers/{ID}/diagnostics"): server_diagnostics.ServerDiagnosticsController.index,
    ("POST", "/os-server-external-events"): server_external_events.ServerExternalEventsController.create,
    ("GET", f"/flavors/{ID}/os-extra_specs"): flavors_extraspecs.FlavorExtraSpecsController.index,
    ("GET", "/os-migrations"): migrations.MigrationsController.index,
    ("GET", "/os-services"): services.ServiceController.index,
    ("PUT", f"/os-services/{ID}"): services.ServiceController.update,
    ("GET", "/os-hypervisors"): hypervisors.HypervisorsController.index,
    ("GET", "/os-hypervisors/detail"): hypervisors.HypervisorsController.detail,
    ("GET", "/os-hypervisors/statistics"): hypervisors.HypervisorsController.statistics,
    ("GET", f"/os-hypervisors/{ID}"): hypervisors.HypervisorsController.show,
    ("GET", "/os-hosts"): hosts.HostController.index,
    ("GET", f"/os-hosts/{ID}"): hosts.HostController.show,
    ("GET", "/os-availability-zone"): availability_zone.AvailabilityZoneController.index,
    ("GET", "/os-availability-zone/detail"): availability_zone.AvailabilityZoneController.detail,
    ("GET", "/os-aggregates"): aggregates.AggregateController.index,
    ("GET", "/flavors"): flavors.FlavorsController.index,
    ("GET", "/flavors/detail"): flavors.FlavorsController.detail,
    ("GET", f"/flavors/{ID}"): flavors.FlavorsController.show,
}


def schema_of(route: Any, version: str) -> Any:
    """Nova's for that version; None where it has none."""
    asked = api_version_request.APIVersionRequest(version)
    known = getattr(getattr(route, "response_body_schemas", None), "_schemas", ())
    matching = [schema for schema, least, most in known if asked.matches(least, most)]
    return matching[-1] if matching else None


def route_of(method: str, path: str) -> tuple[str, Any]:
    """The one whose pattern has no placeholder for what is named; `` where there is none."""
    found = [(pattern, route) for (verb, pattern), route in ROUTES.items()
             if verb == method and re.fullmatch(pattern, path)]  # fmt: skip
    return min(found, key=lambda one: one[0].count(ID), default=("", None))


def main() -> None:
    """Judge all answers of the file."""
    valid, without, wrong = Counter[str](), Counter[str](), []
    with open(sys.argv[1]) as file:
        answers = json.load(file)
    for answer in answers:
        pattern, route = route_of(answer["method"], answer["path"])
        schema = schema_of(route, answer["version"])
        if schema is None:
            without[pattern or answer["path"]] += 1
            continue
        try:
            validators._SchemaValidator(schema, is_body=True).validate(answer["body"])
            valid[pattern] += 1
        except Exception as error:
            wrong.append({**{k: answer[k] for k in ("method", "path", "version")}, "why": str(error)[-1000:]})
    print(json.dumps({"valid": valid, "without": without, "wrong": wrong}))


if __name__ == "__main__":
    main()
