"""Processes that start clean, forked from a server that has imported PyTorch once."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from multiprocessing import forkserver, resource_tracker
from typing import Any

import torch


def context() -> Any:
    """How worker processes are started: never forked from this one, which may hold a GPU and threads.

    Ctrl-C and SIGTERM, which go to all processes of a job, are held from them: the one that trains still wants its batch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return torch.multiprocessing.get_context("spawn")
    chosen = torch.multiprocessing.get_context("forkserver")
    # Where pictures are varied the server imports torchvision, too: one import for all workers.
    varied = ["imagebind_cli.media.picture_operations"] if "torchvision" in sys.modules else []
    chosen.set_forkserver_preload(["imagebind_cli.training.samples", *varied])
    resource_tracker.ensure_running()  # which forkserver would do, and unblock them
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # which the server and its workers inherit
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return chosen
