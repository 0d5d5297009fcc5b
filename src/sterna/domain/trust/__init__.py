"""Who takes part, what proves it, and what each may do on the bus. Pure."""
