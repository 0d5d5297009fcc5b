"""The other ports of a simulated host."""
