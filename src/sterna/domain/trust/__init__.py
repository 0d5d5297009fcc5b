"""Identities, the certificates that prove them, and the rights of each on the bus. Pure."""
