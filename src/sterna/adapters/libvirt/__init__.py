"""The libvirt hypervisor: `describe` and `render` are pure, the rest talks to one host's libvirtd."""
