"""Notifications: what waits in the records is sent to the endpoints of the settings."""
