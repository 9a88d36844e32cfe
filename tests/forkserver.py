"""Start `imagebind` as a fork of a process that has imported PyTorch: a tenth of a second in place of two.

What the program gets is what a fresh interpreter gives it: arguments, environment, folder, modules to import, streams, signals and exit
code. It differs in `sys.modules` and memory, which hold PyTorch from the start (torchvision and torchaudio only once it imports them), and
its parent is the server: a test about the import of PyTorch or about memory starts a real interpreter. `Forked` is `subprocess.Popen` for
Python programs; `write_stand_in` writes an `imagebind` for shells.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import json
import multiprocessing.process
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "imagebind_cli.cli",
    "imagebind_cli.model",
    *(f"imagebind_cli.encoders.{name}" for name in ("audio", "depth", "imu", "text", "thermal", "vision")),
    "imagebind_cli.training.run",
    "torch._dynamo",  # which optimizers and torchvision import, 1.5 s
    "h5py",
    "av",
)
READ_ONCE = (  # variables that an interpreter or a library reads as it starts
    *("PYTHONHASHSEED", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONUTF8"),
    *("OMP_", "MKL_", "LD_", "MALLOC_", "TORCH_", "KMP_", "OPENBLAS_"),
)
# Not read at the start; scikit-learn puts those of KMP into the process of the tests that imports it, and so into all of its programs.
READ_LATER = ("TORCH_NCCL_", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
PACKAGE = "imagebind_cli"  # a program that has another one in its folder or its PYTHONPATH, or other packages beside it, imports it anew
HIGH = 200  # descriptors from here on are out of the way of those that a program is given
PROJECT = Path(__file__).parents[1]
SERVE = "import sys; sys.path[:0] = [sys.argv[1]]; from tests.forkserver import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
NUMBER = struct.Struct("i")


class ForkServer:
    """A process that forks a program for each connection to its socket.

    address: of the socket; other processes than the one that started the server may connect to it.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def close(self) -> None:
        """Leave the server to those who use it as well."""


class OwnForkServer(ForkServer):
    """A server that this process starts, and that ends with it."""

    def __init__(self, folder: Path) -> None:
        """folder: for the socket."""
        super().__init__(str(folder / "forks"))
        owned, self._owner = os.pipe()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.address)
            listening.listen(64)
            descriptors = [listening.fileno(), owned]
            command = [sys.executable, "-c", SERVE, str(PROJECT), *map(str, descriptors)]
            self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        os.close(owned)

    def close(self) -> None:
        """End the server and wait for it."""
        os.close(self._owner)
        self._process.wait()


def request(
    address: str, command: list[str], environment: dict[str, str], descriptors: dict[int, int], folder: str, session: bool
) -> tuple[int, socket.socket]:
    """Ask a server for a program.

    Args:
        command: `[python, "-c", code, …]` or `[python, "-m", module, …]`.
        descriptors: the program's number of each descriptor -> its number here.
        folder: the program's working folder. session: whether the program leads a session of its own.
    Returns:
        its process id, 0 if a server with other variables cannot fork it, and a socket: its `waitpid` status comes there, and closing
        it kills the program.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    document = {"command": command, "environment": environment, "folder": folder, "session": session, "numbers": list(descriptors)}
    message = json.dumps(document).encode()
    socket.send_fds(connection, [NUMBER.pack(len(message))], list(descriptors.values()))
    connection.sendall(message)
    return NUMBER.unpack(connection.recv(4))[0], connection


class Forked(subprocess.Popen[Any]):
    """`subprocess.Popen` for `[python, "-c", code, …]` and `[python, "-m", module, …]`, forked by a server where that makes no difference."""

    def __init__(self, command: list[Any], *, server: ForkServer, **options: Any) -> None:
        self._server, self._status = server, None
        super().__init__(command, **options)

    def _execute_child(self, *arguments: Any) -> None:
        given = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments).arguments  # type: ignore[attr-defined]
        streams = {0: given["p2cread"], 1: given["c2pwrite"], 2: given["errwrite"]}
        descriptors = {number: number if descriptor == -1 else descriptor for number, descriptor in streams.items()}
        environment = os.environ if given["env"] is None else given["env"]
        assert given["preexec_fn"] is None
        self.pid, self._status = request(
            self._server.address,
            [os.fsdecode(word) for word in given["args"]],
            {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
            descriptors | {number: number for number in given["pass_fds"]},
            os.fsdecode(given["cwd"] or os.getcwd()),
            given["start_new_session"],
        )
        if not self.pid:
            self._status.close()
            self._status = None
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))  # type: ignore[attr-defined]

    def _internal_poll(self, *arguments: Any, **options: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(*arguments, **options)  # type: ignore[misc,no-any-return]
        if self.returncode is None and (ended := self._try_wait(os.WNOHANG))[0]:
            self._handle_exitstatus(ended[1])  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._status is None:
            return super()._try_wait(flags)  # type: ignore[misc,no-any-return]
        if flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        return self.pid, _status(self._status)


def _status(connection: socket.socket) -> int:
    with connection:
        answer = connection.recv(4)
    return NUMBER.unpack(answer)[0] if answer else signal.SIGKILL  # the server was killed


def write_stand_in(path: Path, server: ForkServer, program: Path) -> Path:
    """Write a program for shells that runs `imagebind` on a server; signals, SIGKILL too, reach it through this one.

    Args:
        program: the real `imagebind`, for what the server cannot fork.
    Returns:
        `path`
    """
    call = f"from tests.forkserver import stand_in; stand_in({server.address!r}, {str(program)!r})"
    path.write_text(f"#!{sys.executable} -S\nimport sys; sys.path[:0] = [{str(PROJECT)!r}]; {call}\n")
    path.chmod(0o755)
    return path


def stand_in(address: str, program: str) -> NoReturn:
    """Be the process of a program that a server forks: pass signals on, and end as it ends."""
    open_descriptors = {}
    for number in range(3):
        with suppress(OSError):
            os.fstat(number)
            open_descriptors[number] = number
    passed_on = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    command = [sys.executable, "-m", "imagebind_cli", *sys.argv[1:]]
    process, connection = request(address, command, dict(os.environ), open_descriptors, os.getcwd(), session=False)
    if not process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        os.execv(program, [program, *sys.argv[1:]])
    for number in passed_on:
        signal.signal(number, lambda number, frame: os.kill(process, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    for number in open_descriptors:
        os.close(number)  # a pipe is closed when the program closes it
    code = os.waitstatus_to_exitcode(_status(connection))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(listening: int, owner: int) -> NoReturn:
    """Import what programs need, and fork one for each connection, until the owner's end of a pipe is closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the tests, and for programs as soon as they can take it
    for name in PRELOADED:
        __import__(name)
    _draw_weights()
    gc.collect()
    gc.freeze()
    connections = socket.socket(fileno=listening)
    ends: dict[int, int] = {}  # pidfd -> process id
    answers: dict[int, socket.socket] = {}  # process id -> its connection
    events = select.poll()
    for descriptor in (listening, owner):
        events.register(descriptor, select.POLLIN)
    while True:
        for descriptor, event in events.poll():
            if descriptor == owner:
                os._exit(0)
            elif descriptor == listening:
                connection, _ = connections.accept()
                process = _fork(connection)
                if process:
                    pidfd = os.pidfd_open(process)
                    ends[pidfd], answers[process] = process, connection
                    events.register(pidfd, select.POLLIN)
                    events.register(connection, 0)  # a hang-up is reported in any case
            elif descriptor in ends:
                process = ends.pop(descriptor)
                events.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(process, 0)
                with answers.pop(process) as connection:
                    with suppress(KeyError):
                        events.unregister(connection)
                    with suppress(OSError):  # nobody may wait for it
                        connection.sendall(NUMBER.pack(status))
            elif event & select.POLLHUP:
                events.unregister(descriptor)
                for process, connection in answers.items():
                    if connection.fileno() == descriptor:
                        os.kill(process, signal.SIGKILL)


def _draw_weights() -> None:
    """Draw the weights of the tiny model, which most programs load."""
    from imagebind_cli.weights import find
    from tests.drawn import draw_once

    draw_once()
    checkpoint = find.find_checkpoint("tiny")
    for name in checkpoint.config.encoders:
        checkpoint.read(name)


def _fork(connection: socket.socket) -> int:
    """Return the process id of the program that a connection asks for, 0 if it must have an interpreter of its own."""
    header, descriptors, *_ = socket.recv_fds(connection, NUMBER.size, 64)
    asked = json.loads(connection.recv(NUMBER.unpack(header)[0], socket.MSG_WAITALL))
    possible = read_once(os.environ) == read_once(asked["environment"]) and _shadowed(
        [asked["folder"], *_places(asked["environment"])]
    ) <= {PACKAGE}
    process = os.fork() if possible else 0
    if process == 0 and possible:
        _run(asked, dict(zip(asked["numbers"], descriptors, strict=True)))
    for descriptor in descriptors:
        os.close(descriptor)
    with suppress(OSError):
        connection.sendall(NUMBER.pack(process))
    return process


def read_once(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that must be the server's own for a program to be forked."""
    return {name: value for name, value in environment.items() if name.startswith(READ_ONCE) and not name.startswith(READ_LATER)}


def _places(environment: Mapping[str, str]) -> list[str]:
    """Return the folders of PYTHONPATH."""
    return [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]


def _shadowed(places: list[str]) -> set[str]:
    """Return the names of imported modules of which one of these folders has others."""
    names = set()
    for place in places:
        with suppress(OSError):
            for entry in os.scandir(os.path.realpath(place)):
                name = entry.name.removesuffix(".py")
                source = entry.path if entry.name.endswith(".py") else os.path.join(entry.path, "__init__.py")
                if (imported := getattr(sys.modules.get(name), "__file__", None)) and os.path.isfile(source) and imported != source:
                    names.add(name)
    return names


def _search_as(asked: dict[str, Any]) -> None:
    """Find modules where a fresh interpreter would: in the program's folder and its PYTHONPATH first."""
    ours, theirs = _places(os.environ), _places(asked["environment"])
    if ours != theirs or _shadowed([asked["folder"]]):
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
    sys.path[:] = ["", *theirs, *(place for place in sys.path if place not in ("", *ours))]


def _run(asked: dict[str, Any], descriptors: dict[int, int]) -> NoReturn:
    """Make this fork what a fresh interpreter would be, run the program, and leave as the interpreter does, but without its slow clean-up."""
    code = 1
    try:
        _become(asked, descriptors)
        _, kind, program, *arguments = asked["command"]
        sys.argv = [kind, *arguments]
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(program, "<string>", "exec"), main.__dict__)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _become(asked: dict[str, Any], descriptors: dict[int, int]) -> None:
    import fcntl  # which Windows lacks

    if asked["session"]:
        os.setsid()
    high = {number: fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for number, descriptor in descriptors.items()}
    os.closerange(0, HIGH)
    for number, descriptor in high.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _search_as(asked)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    multiprocessing.process.ORIGINAL_DIR = asked["folder"]  # for what it starts
    for name, number, mode, errors in (("stdin", 0, "r", "strict"), ("stdout", 1, "w", "strict"), ("stderr", 2, "w", "backslashreplace")):
        stream = None
        if number in descriptors:
            stream = open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - the program's, to its end
            stream.reconfigure(line_buffering=name == "stderr" or stream.isatty())
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
