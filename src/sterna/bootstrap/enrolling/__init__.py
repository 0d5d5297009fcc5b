"""The commands that enrol hosts, controllers and servers of the bus. Joined to those of `cli` by `__main__`."""
