"""Random VMs, as people define them, planned and moved on a real lab."""
