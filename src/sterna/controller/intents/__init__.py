"""One file per intent of an operator."""
