"""The simulated hosts themselves: guests, files, switches, links, time."""
