"""Commands a person types. Speaks the REST API only."""
