"""An error that several tasks get: each its own copy."""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def copy_of(error: E) -> E:
    """Another one that says the same, with the same cause: for each task its own.

    An exception that several tasks raise gathers the frames of all of them, and each traceback in the log is longer
    than the last. One of a kind that cannot be copied is returned itself.
    """
    kind = type(error)
    try:
        own = kind.__new__(kind, *error.args)
    except Exception:
        return error
    own.__dict__.update(error.__dict__)
    own.__cause__, own.__suppress_context__ = error.__cause__, error.__suppress_context__
    return own.with_traceback(error.__traceback__)
