"""What a command frees stays with it."""

import sys

import pytest

PROGRAM = """
import resource, sys, torch
from imagebind_cli.cli.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(3):
    torch.ones(10_000_000)  # 40 MB, fresh at first
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):  # so that the few blocks for which the heap still grows do not decide
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again(python):
    faults = {name: int(python("-c", PROGRAM, name).stdout) for name in ("kept", "plain")}
    assert 10 * faults["kept"] < faults["plain"]
