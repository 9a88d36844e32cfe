"""Name the input being read when a native library crashes this process: Python's report of the crash ends in the names of the functions that ran.

Such a report cannot hold values, but a function may be called anything.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")
FILE = "<input>"  # where the report has the name: `File "<input>", line 1 in photos/a.jpg`
_CODE = (lambda function, *arguments: function(*arguments)).__code__.replace(co_filename=FILE, co_firstlineno=1)


def report_crashes() -> None:
    """Print what the crashing thread was doing on stderr before a fatal signal ends this process, unless something else reports crashes."""
    if not faulthandler.is_enabled() and sys.stderr is not None:
        with suppress(OSError, ValueError):  # stderr is not a file
            faulthandler.enable(all_threads=False)


def call_for(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on behalf of an input, whose name stands in the report if this crashes the process."""
    result: T = FunctionType(_CODE.replace(co_name=name, co_qualname=name), {})(function, *arguments)
    return result
