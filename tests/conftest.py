"""What every test has: a home of its own, the tiny model, and `imagebind` to run in this process or as a real one."""

from __future__ import annotations

import atexit
import functools
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import pytest
import typer

from imagebind_cli.engine import default_workers
from imagebind_cli.engine.processes import Processes
from imagebind_cli.signals import ENDING
from tests.forkserver import Forked, ForkServer, OwnForkServer, write_stand_in

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes of the tests share the cores; each one's threads would wait for the other's
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # where a test asks for two threads, the one that waits leaves its core to others
sys.dont_write_bytecode = False  # else each of many processes compiles the package and rewrites the assertions of all tests anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PROGRAM = Path(sysconfig.get_path("scripts")) / "imagebind"
UNTRAINED = "is untrained"
TIME_LIMIT = 100  # seconds that a program may take
FORKS = hasattr(os, "pidfd_open")  # whether programs can be started as forks of a server
SERVER_ADDRESS = "fork_server"


RUNS_BETWEEN_COLLECTIONS = 200
_runs = itertools.count(1)


@contextmanager
def _garbage_collected() -> Iterator[None]:
    """Collect the garbage of a run, which leaves without closing its files, and of it alone: all that was there before takes 0.1 s and more."""
    if next(_runs) % RUNS_BETWEEN_COLLECTIONS == 0:
        gc.unfreeze()
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()


typer.main.get_params_from_function = functools.cache(typer.main.get_params_from_function)  # every run in this process reads them again
if hasattr(typer.core, "build_runtime_param"):  # of later versions, which build the parser of each parameter again
    typer.core.build_runtime_param = functools.cache(typer.core.build_runtime_param)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and the programs started here would inherit that


@dataclass(frozen=True)
class Finished:
    """A run that came to its end: exit code, and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout; whatever else is there is an error."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]

    @property
    def vectors(self) -> np.ndarray:
        return np.array([row["embedding"] for row in self.rows], np.float32)

    @property
    def notices(self) -> list[str]:
        """The lines on stderr but for the one that says the model is untrained."""
        return [line for line in self.err.splitlines() if UNTRAINED not in line]


Run = Callable[..., Finished]
Start = Callable[..., "subprocess.Popen[bytes]"]
Python = Callable[..., "subprocess.CompletedProcess[Any]"]


def _close(stream: IO[str]) -> None:
    with suppress(OSError):  # a full disk refuses the rest a second time
        stream.close()


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in this process, where a test can change what their readers see."""
    here = threading.Event()
    here.set()
    monkeypatch.setattr("imagebind_cli.media.isolation._in_place", here)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads, which numba changes as UMAP runs, and which would slow every later test of this process."""
    before = _torch_threads()
    yield
    if before and _torch_threads() != before:
        sys.modules["torch"].set_num_threads(before)


def _torch_threads() -> int:
    """Return PyTorch's number of threads, 0 before a test has imported it."""
    return int(sys.modules["torch"].get_num_threads()) if "torch" in sys.modules else 0


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for models, and the one made by rule in place of the default."""
    if "torch" in sys.modules:
        from tests.drawn import draw_once

        draw_once()
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("IMAGEBIND_HOME", str(folder))
    monkeypatch.setenv("IMAGEBIND_MODEL", "tiny")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The model made by rule, on the CPU."""
    from imagebind_cli import load

    return load("tiny", device="cpu")


@pytest.fixture
def imagebind(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `imagebind ARGUMENTS` to its end: the real `run_command_line` on real files as stdin, stdout and stderr, in this process.

    A traceback of the program is one of the test. stdin: its bytes, None for a closed one. stdout: a path in place of a new file.
    """

    class Left(BaseException):
        pass

    def leave(code: int) -> NoReturn:
        raise Left(code)

    def run(*arguments: object, stdin: bytes | None = b"", stdout: str | None = None) -> Finished:
        from imagebind_cli import cli

        folder = tmp_path_factory.mktemp("run")
        out_path, err_path = Path(stdout or folder / "out"), folder / "err"
        (folder / "in").write_bytes(stdin or b"")
        own_stdin, own_handlers = os.dup(0), {number: signal.getsignal(number) for number in ENDING}
        with (
            open(folder / "in", "rb") as file,
            ExitStack() as closing,
            open(err_path, "w", errors="backslashreplace") as err,
            monkeypatch.context() as patch,
            warnings.catch_warnings(),
            _garbage_collected(),
        ):
            os.dup2(file.fileno(), 0)
            out = open(out_path, "w")  # noqa: SIM115 - closed by _close
            closing.callback(_close, out)
            patch.setattr(Processes, "keep_ready", lambda processes: None)  # forks this large process, for servers that few runs need
            patch.setattr(os, "_exit", leave)
            patch.setattr(sys, "argv", ["imagebind", *map(str, arguments)])
            patch.setattr(sys, "stdin", None if stdin is None else sys.stdin)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                cli.run_command_line()
            except Left as left:
                code = left.args[0]
            finally:
                for number, handler in own_handlers.items():
                    signal.signal(number, handler)
                os.dup2(own_stdin, 0)
                os.close(own_stdin)
        return Finished(code, b"" if stdout else out_path.read_bytes(), err_path.read_text())

    return run


@pytest.fixture
def embed(imagebind: Run) -> Run:
    """`imagebind embed MODALITY …` with the tiny model, as the fixture `imagebind` runs it."""

    def run(modality: str, *arguments: object, **options: Any) -> Finished:
        return imagebind("embed", modality, "--model", "tiny", "--device", "cpu", *arguments, **options)

    return run


@pytest.fixture(scope="session")
def fork_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer | None]:
    """A server of processes that have imported PyTorch, one for all processes of the tests; None on systems other than Linux."""
    if not FORKS:
        yield None
        return
    address = getattr(request.config, "workerinput", {}).get(SERVER_ADDRESS)
    server = ForkServer(address) if address else OwnForkServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def _started(command: list[str], server: ForkServer | None, **options: Any) -> subprocess.Popen[Any]:
    return subprocess.Popen(command, **options) if server is None else Forked(command, server=server, **options)


@pytest.fixture(scope="session")
def python(fork_server: ForkServer | None) -> Python:
    """Run `python ARGUMENTS` to its end, as `subprocess.run` does, as a fork of a process that has imported PyTorch."""

    def run(*arguments: object, input: str | bytes | None = None, text: bool = True, **options: Any) -> subprocess.CompletedProcess[Any]:
        command = [sys.executable, *map(str, arguments)]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with _started(command, fork_server, text=text, **streams, **options) as process:
            try:
                out, err = process.communicate(input, timeout=TIME_LIMIT)
            finally:
                process.kill()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer | None) -> Path:
    """An `imagebind` for shells, in a folder of its own, that starts fast."""
    if fork_server is None:
        return PROGRAM
    return write_stand_in(tmp_path_factory.mktemp("bin") / "imagebind", fork_server, PROGRAM)


@pytest.fixture
def start(fork_server: ForkServer | None) -> Iterator[Start]:
    """Start `imagebind ARGUMENTS` as a process of its own, with pipes; it is killed with the test if it still runs."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-m", "imagebind_cli", *map(str, arguments)]
        started.append(_started(command, fork_server, **streams | options))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@functools.cache
def _shared_fork_server() -> OwnForkServer:
    """Start the server of a session with several test processes, in the one that starts those."""
    folder = tempfile.TemporaryDirectory(prefix="forks-")
    atexit.register(folder.cleanup)
    return OwnForkServer(Path(folder.name))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the address of one fork server to each test process that xdist starts."""
    if FORKS:
        node.workerinput[SERVER_ADDRESS] = _shared_fork_server().address


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run two more processes than there are cores, since many tests wait for processes that they started."""
    return default_workers(most=64) + 2
