"""Notifications: which changes are reported to webhooks of the settings, and how a webhook is signed. Pure."""
