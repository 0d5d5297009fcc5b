"""Calls, casts, hints and presence between hosts, above the bus port and the journal."""
