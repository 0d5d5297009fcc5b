"""Sterna: live migration of running KVM virtual machines."""
