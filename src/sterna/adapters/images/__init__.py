"""Image services: what an image demands of a host."""
