"""Volume providers, one module or folder per kind of storage."""
