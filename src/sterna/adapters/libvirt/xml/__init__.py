"""libvirt's domain XML, read and written. Pure: no libvirt, no files."""
