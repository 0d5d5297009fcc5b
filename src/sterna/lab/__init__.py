"""A lab of hosts made of namespaces on this machine, for demos, tests and benchmarks."""

from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest, GuestStatus, Ping
from sterna.lab.host import LabHost
from sterna.lab.lab import Lab

__all__ = ["Guest", "GuestStatus", "Lab", "LabError", "LabHost", "Ping"]
