"""Providers that need no other service: the VM's own definition is the truth."""
