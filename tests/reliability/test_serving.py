"""The campaign against a server, small: it passes one that is right, and reports one that is not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from reliability.serving import Inputs, Request, Server, end_in_the_middle, judge_answers, judge_memory, mixed_requests, started


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started("mini") as server:
        yield server


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """A few of the samples, with the vectors of the library: the command's take a process for each modality."""
    from imagebind_cli import load
    from reliability.serving import KINDS, SAMPLES, SENTENCES

    made, mini = Inputs(), load("mini", device="cpu")
    for modality, pattern in KINDS.items():
        files = sorted((SAMPLES / modality).glob(pattern))[:2]
        made.contents[modality] = [base64.b64encode(file.read_bytes()).decode() for file in files]
        made.vectors[modality] = mini.embed(modality, files)
    made.contents["text"], made.vectors["text"] = SENTENCES, mini.embed("text", SENTENCES)
    return made


def test_every_answer_of_mixed_requests_is_right(server: Server, inputs: Inputs) -> None:
    requests = mixed_requests(80, inputs)
    assert 2 <= sum(request.wanted is None for request in requests) <= 12
    server.ask_all(requests, 8)
    assert judge_answers(requests) == []
    assert server.memory > 100


def test_a_signal_loses_nothing(inputs: Inputs) -> None:
    with started("tiny") as server:
        assert end_in_the_middle(server, 8, 50) == []


def test_wrong_answers_are_reported() -> None:
    wanted = np.ones((1, 4), np.float32)
    right = Request("/v1/embeddings", b"", wanted, status=200, answer={"data": [{"embedding": [1.0, 1.0, 1.0, 1.0]}]})
    error = Request("/v1/embeddings", b"", None, "deep", 400, {"error": {"message": "nested too deep"}})
    wrong = [
        replace(right, status=500, answer={}),
        replace(right, answer={"data": [{"embedding": [1.0, 1.0, 1.0, 1.1]}]}),
        replace(right, answer={"data": [{"embedding": None, "error": {"message": "no"}}]}),
        replace(error, status=200),
        replace(error, status=500),
        replace(error, answer={"error": {"message": "something else"}}),
    ]
    assert len(judge_answers([right, error, *wrong])) == len(wrong)
    assert judge_answers([right, error]) == []
    assert judge_memory([500, 600, 610, 620]) == []
    assert judge_memory([500, 600, 610, 650]) == ["memory grew from 600 MB after the second round to 650"]
