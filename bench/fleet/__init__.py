"""The planner of fleet operations, measured in a simulated fleet."""
