"""What QEMU itself is asked or told, beside libvirt: its monitor, its sockets, its settings."""
