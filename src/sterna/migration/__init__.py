"""The story of one migration: flow.py is its table of contents."""
