"""A simulated libvirt and QEMU on one host of the simulated world."""
