"""Reads from the source where it waits without a limit, and where a socket may be given a host's name.

Only the usual kinds are recognised, by their names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.parsing import parse

SOURCE = Path(__file__).parents[2] / "src" / "sterna"
NOT_OURS = ("sim/", "lab/")
"""Only tests and demos run them."""
WITHOUT_ARGUMENTS = {"wait", "get", "join", "acquire", "communicate", "readline", "create_future"}
WITHOUT_ARGUMENTS |= {"disconnect", "drain", "wait_closed"}
"""`event.wait()`, `queue.get()`, `thread.join()`: with arguments they are something else, or have a limit."""
AWAITED = {"put", "read", "readexactly", "readuntil", "recv", "send", "sendall", "sendfile", "start_tls"}
"""Methods of queues, streams and web sockets, whatever their arguments, where their result is awaited."""
BY_LAST_NAME = {
    "shutdown": "",
    "serve": "",
    "getaddrinfo": "",
    "gethostbyname": "",
    "getfqdn": "",
    "create_connection": "timeout",
    "Popen": "",
    "ThreadPoolExecutor": "",
    "to_thread": "",
    "run_in_executor": "",
}
"""Whatever is before it; and the argument that is its limit. A resolver has none, nor has the end of `with Popen`;
what is in an executor, asyncio's own too, is joined when the process ends."""
NEEDS = {
    "asyncio.wait": "timeout",
    "subprocess.run": "",
    "subprocess.check_output": "",
    "subprocess.check_call": "",
    "subprocess.call": "",
    "in_thread": "limit_s",
    "Worker": "limit_s",
    "anext": "",
    "asyncio.shield": "",
    "asyncio.gather": "",
    "all_of": "",
    "both": "",
    "asyncio.open_connection": "",
    "asyncio.open_unix_connection": "",
    "asyncio.start_server": "",
    "socket.socket": "",
}
"""Function, and the argument that is its limit ('': it has none, and needs one around it). `subprocess.run` has
none: at its time-out it kills the command, and then waits for its end, which may not come."""
IN_THREADS = {"in_thread": "limit_s", "on_disk": "", "_ROOM.call": ""}
"""What is written among the arguments of these has their limit, or the one they have without that argument."""
LOOKING = ("adapters/", "kit/")
"""Here a look at a file runs in a thread of libvirt's, or in the event loop: on a dead NFS server it never ends."""
FILES = {
    "stat",
    "lstat",
    "access",
    "statvfs",
    "listdir",
    "scandir",
    "open",
    "readlink",
    "realpath",
    "isdir",
    "unlink",
}
"""Of `os` and `os.path`; and of `Path`, without arguments or with such as need no path:"""
OF_PATHS = {
    "read_text",
    "read_bytes",
    "write_text",
    "exists",
    "is_file",
    "is_dir",
    "iterdir",
    "unlink",
    "open",
    "stat",
}
GROUND = {"thing", "bindable", "reaches", "listening"}
"""Of `adapters/host/resources.py`: paths and names that a guest's definition has."""
OF_SOCKETS = {"bind", "connect", "connect_ex", "sendto"}
"""Of a socket, in a file that imports `socket`: a name in an Internet address is resolved there without a limit."""
OF_OPEN_SOCKETS = {"recv", "recvfrom", "recv_into", "recvmsg", "accept", "sendall", "sendmsg"}
"""Of a socket, in a file that imports `socket`; and `put` in one that imports `queue`."""
OPENING = {"open", "open_regular", "opened", "file_digest"}
"""By name, or with `kit/opening.py` and `kit/contents.py`."""
BLOCKING = {
    "kit/opening.py": "its callers: on_disk",
    "kit/contents.py": "its callers: on_disk; 600 s at most for what they have left alone",
    "adapters/files/file_lock.py": "storage.py: its thread is waited for with a clock beside it",
    "adapters/files/exports.py": "sharing_tokens.py",
    "adapters/files/images.py": "its callers: on_disk",
    "adapters/files/instances_dir.py": "the same",
    "adapters/files/media.py": "the same",
    "adapters/files/targets.py": "the same",
    "adapters/files/usage.py": "the same",
    "adapters/files/sharing_tokens.py": "its callers: on_disk",
    "adapters/host/resources.py": "host/looks.py: a thread for each path and name; the rest is the kernel's memory",
    "adapters/host/open_files.py": "host/looks.py, and look_at in libvirt/replaced.py",
    "adapters/identity/authority.py": "a command's: a signal ends it",
    "adapters/identity/own.py": "a command's, and a renewal's: on the host's own disk",
    "adapters/identity/pki_files.py": "the same",
    "adapters/identity/private_files.py": "the same",
    "adapters/libvirt/private_state.py": "its callers: on_disk",
    "adapters/nats/doctor.py": "bootstrap: in a thread with a limit",
    "adapters/sql/file.py": "an agent's start: SIGTERM ends it",
}
"""File in which nothing runs on an event loop: its looks at files are not listed by place -> who calls it."""
NUMERIC = {"Numeric", "IPv4Address", "IPv6Address"}
"""What the host in `bind((str(host), port))` is annotated as, where it is no name."""
LOCKS = re.compile(r"(?<![a-z])(locks?|gate)(?![a-z])")
"""`with` or `async with` something of such a name waits for whoever holds it; and of a name that its file gives to
one of:"""
MADE_LOCKS = {
    f"{module}.{kind}"
    for module in ("asyncio", "threading")
    for kind in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition")
}
HELD_BRIEFLY = {
    "kit/threads.py",
    "kit/contents.py",
    "kit/daemon_threads.py",
    "kit/bounded.py",
    "adapters/sql/group_commit.py",
    "adapters/libvirt/session/connection.py",
    "adapters/libvirt/session/events.py",
}
"""Files in which a thread holds a lock only while it changes what is in memory."""


def touches_a_file(name: str) -> bool:
    """A call of that name."""
    before, _, last = name.rpartition(".")
    if before in ("os", "os.path"):
        return last in FILES
    if before == "kernel":
        return last in GROUND
    if before == "open_files":
        return True
    return name in OPENING or (
        before not in ("libvirt", "self", "connection") and last in OF_PATHS and bool(before)
    )


def locks_of(module: ast.Module) -> set[str]:
    """Names of variables and attributes that are locks, or have some in them."""
    found = set[str]()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            made = {ast.unparse(n) for n in ast.walk(node.value) if isinstance(n, ast.Attribute)}
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= set().union(*map(last_names, targets)) if made & MADE_LOCKS else set()
    return found


def last_names(target: ast.expr) -> set[str]:
    """`_turn` of `self._turn` and of `_turn`."""
    if isinstance(target, ast.Tuple):
        return set().union(*map(last_names, target.elts))
    return {target.attr} if isinstance(target, ast.Attribute) else {ast.unparse(target)}


def words_of(expression: ast.expr) -> set[str]:
    """All names in it."""
    names = {n.attr for n in ast.walk(expression) if isinstance(n, ast.Attribute)}
    return names | {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)}


def may_be_none(limit: ast.expr) -> bool:
    """A limit that is written as None, always or in some case."""
    if isinstance(limit, ast.IfExp):
        return may_be_none(limit.body) or may_be_none(limit.orelse)
    return isinstance(limit, ast.Constant) and limit.value is None


def is_limit(entered: ast.expr) -> bool:
    """`asyncio.timeout(seconds)`, where the seconds cannot be None."""
    if not isinstance(entered, ast.Call) or ast.unparse(entered.func) != "asyncio.timeout":
        return False
    return not any(may_be_none(limit) for limit in [*entered.args, *(k.value for k in entered.keywords)])


def is_taken_back(node: ast.AsyncWith) -> bool:
    """What is entered has the limit, and what is inside none."""
    calls = (n for n in ast.walk(node) if isinstance(n, ast.Call) and len(n.args) == 1)
    return any(ast.unparse(n.func).endswith(".reschedule") and may_be_none(n.args[0]) for n in calls)


class Waits(ast.NodeVisitor):
    """The places of one file that wait without a limit."""

    def __init__(self, file: str) -> None:
        self.file, self.place, self.limited, self.found = file, list[str](), 0, set[str]()
        self.cancels = [False]
        """Of each function around: does it cancel something?"""
        self.locks = set[str]()
        """By name, those that this file makes."""
        self.imported = set[str]()
        self.held = 0
        """Of the function: thread's locks that are held here."""
        self.held_over = set[str]()
        """The places that wait while they hold one."""

    def _inside(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        outside = self.limited, self.held
        self.limited = self.held = 0  # a function does not run where it is written
        self.place.append(node.name)
        self.cancels.append(any(isinstance(n, ast.Attribute) and n.attr == "cancel" for n in ast.walk(node)))
        self.generic_visit(node)
        self.cancels.pop()
        self.place.pop()
        self.limited, self.held = outside

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _inside

    def visit_Module(self, node: ast.Module) -> None:
        self.locks |= locks_of(node)
        imports = (n for n in ast.walk(node) if isinstance(n, ast.Import))
        self.imported |= {name.name for n in imports for name in n.names}
        self.generic_visit(node)

    def _waits(self) -> None:
        """Here, without a limit."""
        if not self.limited:
            place = f"{self.file}:{'.'.join(self.place)}"
            self.found.add(place)
            self.held_over |= {place} if self.held else set()

    def visit_With(self, node: ast.With) -> None:
        locks = any(self._is_lock(item.context_expr) for item in node.items)
        if locks and self.file not in HELD_BRIEFLY:
            self._waits()
        self.held += locks
        self.generic_visit(node)
        self.held -= locks

    def visit_Await(self, node: ast.Await) -> None:
        act = node.value
        if isinstance(act, ast.Name | ast.Attribute | ast.Subscript):  # a task, or a future
            self._waits()
        if isinstance(act, ast.Call) and isinstance(act.func, ast.Attribute) and act.func.attr in AWAITED:
            self._waits()
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._waits()
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        entered = [item.context_expr for item in node.items]
        limits = any(map(is_limit, entered))
        self.limited += limits
        if any(map(self._is_lock, entered)):
            self._waits()
        self.limited -= limits
        limits = limits and not is_taken_back(node)
        self.limited += limits
        self.generic_visit(node)
        self.limited -= limits

    def _is_lock(self, entered: ast.expr) -> bool:
        named = LOCKS.search(ast.unparse(entered).lower()) is not None
        return named or bool(words_of(entered) & self.locks)

    def _of_import(self, method: str) -> bool:
        return ("socket" in self.imported and method in OF_OPEN_SOCKETS) or (
            "queue" in self.imported and method == "put"
        )

    def visit_Call(self, node: ast.Call) -> None:
        named = {k.arg for k in node.keywords if not may_be_none(k.value)}
        name = ast.unparse(node.func)
        bare = isinstance(node.func, ast.Attribute) and node.func.attr in WITHOUT_ARGUMENTS
        waits = bare and not node.args and not named
        limit = NEEDS.get(name, BY_LAST_NAME.get(name.split(".")[-1]))
        waits |= limit is not None and limit not in named
        if name == "asyncio.gather" and "return_exceptions" in named and self.cancels[-1]:
            waits = False  # of tasks that were cancelled: they end, or who stops the process leaves them
        waits |= isinstance(node.func, ast.Attribute) and self._of_import(node.func.attr)
        waits |= self.file.startswith(LOOKING) and self.file not in BLOCKING and touches_a_file(name)
        if waits:
            self._waits()
        limits = name in IN_THREADS and (not IN_THREADS[name] or IN_THREADS[name] in named)
        self.limited += limits
        self.generic_visit(node)
        self.limited -= limits


class Names(ast.NodeVisitor):
    """The places of one file where a socket may be given a host's name."""

    def __init__(self, file: str) -> None:
        self.file, self.place, self.found = file, list[str](), set[str]()
        self.numeric = [set[str]()]
        """Of each function around: its variables that are addresses by their type."""

    def _inside(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.place.append(node.name)
        annotated: list[tuple[str | ast.expr, ast.expr | None]] = [
            (a.arg, a.annotation) for a in ast.walk(node) if isinstance(a, ast.arg)
        ]
        annotated += [(n.target, n.annotation) for n in ast.walk(node) if isinstance(n, ast.AnnAssign)]
        typed = {ast.unparse(name) if isinstance(name, ast.AST) else name for name, a in annotated if is_numeric(a)}
        self.numeric.append(typed)
        self.generic_visit(node)
        self.numeric.pop()
        self.place.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _inside

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr in OF_SOCKETS and node.args:
            where = node.args[-1]
            host = where.elts[0] if isinstance(where, ast.Tuple) else where
            if not (isinstance(host, ast.Call) and ast.unparse(host)[4:-1] in self.numeric[-1]):
                self.found.add(f"{self.file}:{'.'.join(self.place)}")
        self.generic_visit(node)


def is_numeric(annotation: ast.AST | None) -> bool:
    return annotation is not None and {n.strip() for n in ast.unparse(annotation).split("|")} <= NUMERIC


def read() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCE.rglob("*.py"):
        file = path.relative_to(SOURCE).as_posix()
        if not file.startswith(NOT_OURS):
            yield file, parse(path.read_text())


def unbounded() -> Iterator[str]:
    for file, module in read():
        seen = Waits(file)
        seen.visit(module)
        yield from seen.found


def held_over_a_wait() -> Iterator[str]:
    """Places in which a thread waits without a limit while it holds a lock."""
    for file, module in read():
        seen = Waits(file)
        seen.visit(module)
        yield from seen.held_over


def may_be_names() -> Iterator[str]:
    for file, module in read():
        imported = (name.name for n in ast.walk(module) if isinstance(n, ast.Import) for name in n.names)
        if "socket" in imported:
            seen = Names(file)
            seen.visit(module)
            yield from seen.found
