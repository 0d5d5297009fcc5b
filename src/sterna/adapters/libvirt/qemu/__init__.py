"""Direct access to QEMU, beside libvirt: its monitor, its sockets, its settings."""
