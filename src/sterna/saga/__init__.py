"""Runs steps, journal first. Knows nothing of virtualisation."""
