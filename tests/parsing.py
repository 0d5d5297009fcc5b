"""Python source as a tree.

In CPython 3.11 the count of how deep `ast.parse` is nested belongs to the interpreter. When the garbage collector
runs meanwhile, and something it ends is reported with a traceback, that report parses as well, and the outer call
fails ("AST constructor recursion depth mismatch").
"""

from __future__ import annotations

import ast
import gc


def parse(source: str) -> ast.Module:
    """`ast.parse`, in which nothing else parses. Raises SyntaxError."""
    on = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if on:
            gc.enable()
