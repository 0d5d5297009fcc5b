"""Connections to libvirtd, its events, and what every part of the hypervisor shares."""
