from tests.sim_world import a, b, clock, world

__all__ = ["a", "b", "clock", "world"]
