"""Protocols of a few verbs each. Adapters implement them; everything above speaks only to them."""
