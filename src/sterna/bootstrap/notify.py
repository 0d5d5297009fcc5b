"""Joins a controller's notifications with the endpoints of its settings."""

from __future__ import annotations

import ssl

from sterna.adapters.hooks.notify import SignedWebhooks, Target
from sterna.config import ControllerSettings
from sterna.controller.notifications.endpoint import Chosen
from sterna.controller.notifications.notifications import Notifications
from sterna.domain.errors import BadRequest
from sterna.domain.notifications.addresses import server_of
from sterna.ports.clock import Clock


def notify_from(settings: ControllerSettings, notifications: Notifications, clock: Clock) -> None:
    """Use the endpoints of the settings."""
    endpoints = settings.endpoints
    targets = {one.name: Target(one.url, one.keys, str(one.ca_file or "") or None) for one in endpoints}
    chosen = [
        Chosen(one.name, server_of(one.url), one.chosen_events, one.give_up_after_hours * 3600) for one in endpoints
    ]
    notifications.use(chosen, SignedWebhooks(targets, clock))


def check_ca_files(settings: ControllerSettings) -> None:
    """Raises BadRequest for one that cannot be read, or that holds no certificate."""
    for one in settings.notify:
        if one.ca_file is None:
            continue
        try:
            ssl.create_default_context(cafile=one.ca_file)
        except OSError as error:  # ssl.SSLError is one
            why = error.strerror or type(error).__name__
            raise BadRequest(
                f"ca_file {one.ca_file} of endpoint {one.name} in [[notify]] cannot be used: {why}",
                fix="name a file with CA certificates in PEM, or leave it out to use the system's",
            ) from error
