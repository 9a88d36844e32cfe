"""The package inside other tools: each file makes a model known to one of them, and imports that tool's package.

sentence_transformers.py   a module of sentence-transformers: encoding, training, saving
mteb.py                    an encoder of mteb, its registry entries, tasks for depth, thermal and motion
mteb_tasks.py              its tasks on files of one's own
lancedb.py                 an embedding function of LanceDB
"""

from __future__ import annotations

from imagebind_cli.errors import UserError


def not_installed(package: str, extra: str) -> UserError:
    """Return the error for an integration whose package is not installed, with the command that installs it."""
    return UserError(f"{package} is not installed; install it with: pip install 'imagebind-cli[{extra}]'")
