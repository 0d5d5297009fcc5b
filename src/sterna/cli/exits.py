"""Exit codes, and errors for people: on stderr, each reason with its fix, no tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from sterna.cli.client import ApiAway, ApiError, ApiSlow, Json, NoSuchId
from sterna.cli.console import PlainConsole
from sterna.cli.formatting import with_code
from sterna.domain.errors import BadRequest, Unreachable

err = PlainConsole(stderr=True, markup=False)


class Exit(IntEnum):
    """Exit codes, which scripts may rely on."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    REFUSED = 3
    CONFLICT = 4
    NOT_FOUND = 5
    UNREACHABLE = 6
    FAILED = 7
    CANCELLED = 8
    LEFTOVERS = 9
    DENIED = 10
    WRONG = 11


EPILOG = (
    "Exit codes: 0 ok, 1 unexpected, 2 usage, 3 refused, 4 conflict, 5 not found, 6 unreachable, "
    "7 migration failed, 8 cancelled, 9 leftovers found, 10 not allowed, 11 a requirement is not met."
)

_BY_STATUS = {
    400: Exit.USAGE,
    401: Exit.DENIED,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    422: Exit.REFUSED,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}

_BY_RESULT = {"completed": Exit.OK, "cancelled": Exit.CANCELLED, "failed": Exit.FAILED, "error": Exit.FAILED}


_BY_OPERATION = {"done": Exit.OK, "undone": Exit.OK, "incomplete": Exit.FAILED, "stopped": Exit.CANCELLED}


def exit_of_operation(operation: Json) -> Exit:
    """The exit code of an operation that has ended. An undo that left VMs behind has failed."""
    if operation["status"] == "undone" and operation["left"]:
        return Exit.FAILED
    return _BY_OPERATION.get(str(operation["status"]), Exit.UNEXPECTED)


def exit_for(migration: Json) -> Exit:
    """The exit code of a migration that has ended."""
    return _BY_RESULT.get(str(migration["status"]), Exit.UNEXPECTED)


_NO_CONTROLLER = (
    "start one with `sterna controller --config FILE`, or a whole lab with `sterna lab up`; "
    "or give its address with --api URL or STERNA_API"
)
_DENIED = "use sudo, or ask an administrator to add you to the group (usermod -aG sterna USER) and log in again"


@contextmanager
def plain_errors() -> Iterator[None]:
    """Prints errors on stderr and turns them into exit codes."""
    try:
        yield
    except ApiError as e:
        _print_problem(e.problem)
        raise typer.Exit(_BY_STATUS.get(e.status, Exit.UNEXPECTED)) from None
    except NoSuchId as e:
        err.print(f"sterna: {e}", style="red")
        err.print(f"  fix: `sterna {e.listed_by}` lists them")
        raise typer.Exit(Exit.NOT_FOUND) from None
    except ApiSlow as e:
        err.print(f"sterna: {e}", style="red")
        err.print("  fix: check whether it was carried out (`sterna migrations`, `sterna hosts`); see also its log")
        raise typer.Exit(Exit.UNREACHABLE) from None
    except ApiAway as e:
        err.print(f"sterna: {e}", style="red")
        err.print(f"  fix: {_DENIED if 'Permission denied' in str(e) else _NO_CONTROLLER}")
        raise typer.Exit(Exit.UNREACHABLE) from None
    except BadRequest as e:
        err.print(f"sterna: {e.message}", style="red")
        err.print(f"  fix: {e.fix}")
        raise typer.Exit(Exit.USAGE) from None
    except Unreachable as e:
        err.print(f"sterna: {e.message}", style="red")
        err.print(f"  fix: {e.fix}")
        raise typer.Exit(Exit.UNREACHABLE) from None


def print_more(answer: Json, as_json: bool) -> None:
    """Print on stderr how to get the next page. JSON output contains the cursor."""
    if answer.get("next_cursor") and not as_json:
        err.print(f"more follow: --cursor {answer['next_cursor']}")


def print_silent(what: str, answer: Json) -> None:
    """Print the hosts that could not be asked on stderr, each with the reason."""
    for host in answer["silent_hosts"]:
        why = answer.get("silent_reasons", {}).get(host)
        err.print(f"{what}: {host}" + (f" ({why})" if why else ""), style="yellow")


def print_no_host(bus: Json) -> None:
    """Print on stderr that no host is known, why, and how to fix it."""
    err.print("no host is known: no agent has reached this controller yet", style="yellow")
    if not bus["connected"]:
        since = bus["since"][:19]
        err.print(f"  the controller has not been connected to the message bus since {since} UTC: {bus['why']}")
        err.print("  fix: check that the bus is running, and `[bus] url` in the controller's settings")
    else:
        err.print(
            "  fix: start the Sterna agent on each host, with the same `[bus] url`; if it is running, see its log"
        )


def _print_problem(problem: Json) -> None:
    reasons = problem.get("reasons") or [{"message": problem.get("detail", ""), "fix": ""}]
    kind = str(problem.get("type", "")).rpartition(":")[2] or "error"
    count = f", {len(reasons)} reasons" if len(reasons) > 1 else ""
    err.print(f"sterna: {kind}{count}:", style="red")
    for reason in reasons:
        text = reason["message"] if reason.get("code") == kind else with_code(reason)
        err.print(f"  - {text}")
        if reason.get("fix"):
            err.print(f"    fix: {reason['fix']}")
