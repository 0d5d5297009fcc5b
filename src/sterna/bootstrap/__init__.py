"""The composition root: the only place that chooses adapters. Called by `__main__`.

Each process has a module of its own: an agent loads nothing of the API, nor a controller anything of libvirt.
"""
