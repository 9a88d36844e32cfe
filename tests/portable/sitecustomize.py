"""Take from `imagebind_cli` what Windows and macOS lack, in every interpreter that has this folder on PYTHONPATH.

Only the package is deprived: `os`, `signal`, `select`, `socket`, `subprocess` and `multiprocessing` reach its modules as stand-ins without those
names, while libraries, which have builds for Windows, keep theirs. Beyond the names it does as Windows does: no folder can be opened, no file
removed or renamed that this process has open or mapped, and there is neither /proc nor /dev/shm.
"""

from __future__ import annotations

import builtins
import errno
import os
import subprocess  # before there is an `msvcrt`, by which it would take this system for Windows
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

PACKAGE = "imagebind_cli"
MODULES = {"fcntl", "resource", "termios", "pwd", "grp"}
NAMES = {
    "os": {
        *(
            "fork",
            "pread",
            "pwrite",
            "readv",
            "writev",
            "sched_getaffinity",
            "getuid",
            "geteuid",
            "sysconf",
            "sysconf_names",
            "mkfifo",
            "killpg",
        ),
        *("O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "O_NONBLOCK", "WNOHANG", "setsid", "statvfs", "posix_fadvise", "fchmod", "uname"),
    },
    "signal": {
        "SIGHUP",
        "SIGPIPE",
        "SIGKILL",
        "SIGALRM",
        "SIGUSR1",
        "SIGUSR2",
        "SIGSTOP",
        "setitimer",
        "pthread_sigmask",
        "SIG_BLOCK",
        "SIG_SETMASK",
    },
    "select": {"poll", "epoll"},
    "socket": {"AF_UNIX", "send_fds", "recv_fds"},
}
HIDDEN = ("/proc", "/dev/shm")
LK_NBLCK = 2
real_import, real_open, real_stat = builtins.__import__, os.open, os.stat


def _refused(path: Any) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))


def open_no_folder(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """Open a file; a folder is refused, and what is hidden is not there."""
    if os.path.isdir(path):
        raise _refused(path)
    return real_open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)


def stat_visible(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
    """Look at a file that Windows could have."""
    if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(HIDDEN):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return real_stat(path, *arguments, **options)


def _in_use() -> set[str]:
    """Return the files that this process has open or mapped."""
    paths = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the one by which they are listed
            continue
    with open("/proc/self/maps", errors="surrogateescape") as maps:
        paths |= {line.rstrip("\n").split(None, 5)[5] for line in maps if line.count(" ") > 5 and "/" in line}
    return paths


def unless_in_use(change: Callable[..., None]) -> Callable[..., None]:
    """Refuse to remove or rename what is in use, or a folder in which something is."""

    def careful(*paths: Any, **options: Any) -> None:
        names = [
            os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path)))) + "/" + os.path.basename(os.fsdecode(path))
            for path in paths
        ]
        if not options.get("dir_fd") and any(used == name or used.startswith(f"{name}/") for used in _in_use() for name in names):
            raise _refused(paths[-1])
        change(*paths, **options)

    return careful


def locking(descriptor: int, mode: int, count: int) -> None:
    """Lock as `msvcrt.locking`, here by the whole file."""
    import fcntl

    assert (mode, count) == (LK_NBLCK, 1)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) > 1 << 40, "bytes that are read must not be locked"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


class Popen(subprocess.Popen[Any]):
    """Starts processes that inherit no descriptors."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        assert not options.get("pass_fds"), "pass_fds not supported on Windows."
        super().__init__(*arguments, **options)


class Deprived(types.ModuleType):
    """A module of the standard library without some names, and with others in place of its own."""

    def __init__(self, name: str, replaced: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        if name in NAMES.get(self.__name__, ()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(sys.modules[self.__name__], name)


REPLACED: dict[str, dict[str, Any]] = {
    "os": {"open": open_no_folder},
    "subprocess": {"Popen": Popen},
    "multiprocessing": {"get_all_start_methods": lambda: ["spawn"]},
}
_deprived = {name: Deprived(name, REPLACED.get(name, {})) for name in {*NAMES, *REPLACED}}


def import_deprived(name: str, globals: Mapping[str, Any] | None = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    """Import a module as `__import__`, for the package as Windows would."""
    if level == 0 and (globals or {}).get("__name__", "").partition(".")[0] == PACKAGE:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        top = name.partition(".")[0]
        if top in _deprived and (name == top or not fromlist):
            real_import(name, globals, locals, fromlist, level)
            return _deprived[top]
    return real_import(name, globals, locals, fromlist, level)


sys.modules["msvcrt"] = windows = types.ModuleType("msvcrt")
windows.locking, windows.LK_NBLCK = locking, LK_NBLCK  # type: ignore[attr-defined]
os.stat = stat_visible
for _name in ("unlink", "remove", "rename", "replace"):
    setattr(os, _name, unless_in_use(getattr(os, _name)))
builtins.__import__ = import_deprived
