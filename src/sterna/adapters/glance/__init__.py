"""The image service of a cloud."""
