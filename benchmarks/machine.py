"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

SHOWN = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx2")
"""Instructions that decide which type is fast."""


def machine(*packages: str) -> str:
    """The processor, what it can do, its cores, and the versions of these packages, in one line."""
    listed = Path("/proc/cpuinfo")
    facts: dict[str, str] = {}
    if listed.exists():
        pairs = (line.partition(":") for line in listed.read_text().splitlines())
        facts = {name.strip(): value.strip() for name, _, value in pairs}
    name = facts.get("model name") or platform.processor() or platform.machine()
    flags = facts.get("flags", "").split()
    able = " ".join(flag for flag in SHOWN if flag in flags)
    versions = (f"{package} {metadata.version(package)}" for package in packages)
    return ", ".join([f"{name} ({able})" if able else name, f"{os.cpu_count()} cores", *versions])
