"""Ask a running `imagebind serve` for very much at once, some of it bad, end it in the middle of work, and compare its pace with `embed`.

    python -m reliability.serving [--requests 1000] [--clients 16] [--rounds 3] [--model mini]

1. Mixed requests of many clients in every dialect, 1 in 20 of them bad: every good one must have the vectors that `imagebind embed` prints,
   and every bad one its own error. The same again, round by round: memory must not grow.
2. A sentence alone, a hundred times: the median must be under `SENTENCE` seconds.
3. Pictures, sounds and sentences, each as a job of `embed` and as requests of the clients: the server must do `SHARE` of `embed`'s rate.
4. SIGTERM while all clients wait: each request that was sent must be answered, and the exit code be 143.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = Path(__file__).parent.parent / "imagebind_cli" / "demo" / "samples"
KINDS = {"image": "*.png", "audio": "*.mp3", "video": "*.mp4", "depth": "*.png", "thermal": "*.png", "imu": "*.csv"}
SENTENCES = [f"a photograph of object {number} in place {number * 7919 % 1009}" for number in range(200)]
BAD_SHARE = 0.05
TOLERANCE = 1e-5  # of a vector's numbers: a batch of another size rounds its sums in another order
SENTENCE = 0.05  # seconds
SHARE = 0.8  # of the rate of `embed`
GROWTH = 32.0  # MB by which the memory of the server may differ between the second round and the last
KEYS = {"text": "texts", "image": "images"}  # Weaviate's, where they are not the modality


@dataclass
class Request:
    """A request, what it must give, and what it gave. wanted: the vectors (n, dim); None where an error is right."""

    path: str
    body: bytes
    wanted: np.ndarray | None
    reason: str = ""
    status: int = 0
    answer: Any = None
    seconds: float = 0.0

    def fault(self) -> str | None:
        """Return what is wrong with the answer; None where it is right."""
        if self.wanted is None:
            error = self.answer.get("error") if isinstance(self.answer, dict) else None
            message = error.get("message") if isinstance(error, dict) else error
            right = 400 <= self.status < 500 and isinstance(message, str) and self.reason in message
            return None if right else f"{self.path}: {self.status} {str(self.answer)[:200]}, where {self.reason!r} is right"
        if self.status != 200:
            return f"{self.path}: {self.status} {str(self.answer)[:200]}"
        if errors := [entry["error"]["message"] for entry in self.answer.get("data", ()) if "error" in entry]:
            return f"{self.path}: {errors[0]}, of an input that is good"
        difference = float(np.abs(_vectors(self.answer) - self.wanted).max())
        return None if difference < TOLERANCE else f"{self.path}: vectors differ by {difference:.1e}"


def _vectors(answer: Any) -> np.ndarray:
    if "data" in answer:
        return np.array([entry["embedding"] for entry in answer["data"]], np.float32)
    return np.array(list(itertools.chain.from_iterable(answer.values())), np.float32)


@dataclass
class Inputs:
    """Inputs by modality: as requests hold them, and the vectors that the command gives them."""

    contents: dict[str, list[str]] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def embedded(cls, model: str) -> Inputs:
        """Return the samples of the demo and some sentences with the vectors that `imagebind embed` prints of them."""
        made = cls()
        for modality, pattern in KINDS.items():
            files = sorted((SAMPLES / modality).glob(pattern))
            made.contents[modality] = [base64.b64encode(file.read_bytes()).decode() for file in files]
            made.vectors[modality] = _printed(modality, [str(file) for file in files], model)
        made.contents["text"], made.vectors["text"] = SENTENCES, _printed("text", SENTENCES, model)
        return made


def _printed(modality: str, inputs: Sequence[str], model: str) -> np.ndarray:
    run = subprocess.run(
        [sys.executable, "-m", "imagebind_cli", "-q", "embed", modality, *inputs, "--model", model, "--device", "cpu"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return np.array([json.loads(line)["embedding"] for line in run.stdout.splitlines()], np.float32)


def mixed_requests(count: int, inputs: Inputs, seed: int = 0) -> list[Request]:
    """Make requests of all modalities in all dialects, of which `BAD_SHARE` are bad."""
    draw = random.Random(seed)
    bad = {number for number in range(count) if draw.random() < BAD_SHARE} | {0}
    return [_bad(draw, inputs) if number in bad else _good(draw, inputs) for number in range(count)]


def _good(draw: random.Random, inputs: Inputs) -> Request:
    dialect = draw.choice(["openai", "openai", "infinity", "jina", "weaviate"])
    modality = "text" if dialect == "openai" else draw.choice(list(KINDS))
    chosen = [draw.randrange(len(inputs.contents[modality])) for _ in range(draw.randint(1, 4 if modality == "text" else 2))]
    contents, wanted = [inputs.contents[modality][number] for number in chosen], inputs.vectors[modality][chosen]
    if dialect == "weaviate":
        return Request("/vectorize", json.dumps({KEYS.get(modality, modality): contents}).encode(), wanted)
    body: dict[str, Any] = {"input": contents}
    if dialect == "infinity":
        body = {"modality": modality, "input": [f"data:application/octet-stream;base64,{content}" for content in contents]}
    elif dialect == "jina":
        number = draw.randrange(len(SENTENCES))
        body = {"input": [{modality: content} for content in contents] + [{"text": SENTENCES[number]}]}
        wanted = np.concatenate([wanted, inputs.vectors["text"][[number]]])
    return Request("/v1/embeddings", json.dumps(body).encode(), wanted)


def _bad(draw: random.Random, inputs: Inputs) -> Request:
    picture = inputs.contents["image"][0]
    cut = base64.b64encode(base64.b64decode(picture)[:50]).decode()
    bodies: list[tuple[Any, str]] = [
        ({"input": " "}, "no words"),
        ({"input": [{"image": "@@@"}]}, "not base64"),
        ({"input": [{"image": "http://127.0.0.1:9/a.png"}]}, "not fetched"),
        ({"input": [{"image": "file:/etc/passwd"}]}, "--root"),
        ({"input": [{"image": cut}]}, "not a readable picture"),
        ({"input": [{"audio": picture}]}, "sound"),
        ({"input": [{"imu": picture}]}, ""),
        ({"input": [{"smell": picture}]}, "one of"),
        ({"input": ["a"] * 300}, "300 inputs"),
        ({"input": "a", "pool": "max"}, "pool"),
        (b"[" * 10_000, "deep"),
        (b'{"input": ', "not JSON"),
    ]
    body, reason = draw.choice(bodies)
    return Request("/v1/embeddings", body if isinstance(body, bytes) else json.dumps(body).encode(), None, reason)


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int

    def send(self, request: Request, connection: http.client.HTTPConnection | None = None) -> None:
        """Send a request, and keep the answer in it."""
        own = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        began = time.perf_counter()
        own.request("POST", request.path, request.body)
        answer = own.getresponse()
        content = answer.read()
        request.seconds, request.status = time.perf_counter() - began, answer.status
        request.answer = json.loads(content)
        if connection is None:
            own.close()

    def ask_all(self, requests: Sequence[Request], clients: int) -> float:
        """Send requests from several clients at a time, each over one connection, and return the seconds that it took."""
        left = iter(requests)
        lock = threading.Lock()
        faults: list[BaseException] = []

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            try:
                while True:
                    with lock:
                        request = next(left, None)
                    if request is None:
                        return
                    self.send(request, connection)
            except BaseException as error:
                faults.append(error)
            finally:
                connection.close()

        began = time.perf_counter()
        _run_threads([client] * clients)
        if faults:
            raise faults[0]
        return time.perf_counter() - began

    @property
    def memory(self) -> float:
        """Resident memory of the process in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else 0.0


def _run_threads(targets: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def started(model: str) -> Iterator[Server]:
    """Start a server, and kill it at the end if it still runs."""
    command = [sys.executable, "-m", "imagebind_cli", "-q", "serve", "--model", model, "--device", "cpu", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield Server(process, int(process.stdout.readline().rsplit(b":", 1)[1]))
    finally:
        process.kill()
        process.wait()


def judge_answers(requests: Sequence[Request]) -> list[str]:
    """Return what is wrong with the answers."""
    return [fault for fault in (request.fault() for request in requests) if fault is not None]


def judge_memory(rounds: Sequence[float]) -> list[str]:
    """Return whether memory grew. rounds: MB after each of them; the first warms the server up."""
    if len(rounds) < 3 or rounds[-1] - rounds[1] < GROWTH:
        return []
    return [f"memory grew from {rounds[1]:.0f} MB after the second round to {rounds[-1]:.0f}"]


def end_in_the_middle(server: Server, clients: int, sentences: int = 100) -> list[str]:
    """End a server while all clients wait for an answer, and return what is wrong with what came of it."""
    sent, lock = [0], threading.Lock()
    faults: list[str] = []

    def client(number: int) -> None:
        request = Request("/v1/embeddings", json.dumps({"input": [f"{number} {text}" for text in SENTENCES[:sentences]]}).encode(), None)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            connection.request("POST", request.path, request.body)
            with lock:
                sent[0] += 1
            answer = connection.getresponse()
            count = len(json.loads(answer.read()).get("data", ()))
            if (answer.status, count) != (200, sentences):
                faults.append(f"client {number}: {answer.status} with {count} vectors")
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"client {number}: {type(error).__name__} {error}")
        finally:
            connection.close()

    def end() -> None:
        while sent[0] < clients:
            time.sleep(0.001)
        server.process.send_signal(signal.SIGTERM)

    _run_threads([*((lambda number=number: client(number)) for number in range(clients)), end])
    code = server.process.wait(60)
    return faults + ([] if code in (0, 143) else [f"exit code {code}"])


def rate_of_embed(modality: str, inputs: Sequence[str], model: str) -> float:
    """Return the inputs a second of `embed` in a process of its own, from its first result on."""
    code = (
        "import sys, time\n"
        "from imagebind_cli import corpus, load\n"
        "modality, model, *inputs = sys.argv[1:]\n"
        "loaded = load(model, device='cpu')\n"
        "loaded.embed(modality, inputs[:4])\n"
        "began = time.perf_counter()\n"
        "done = corpus.embed(loaded, modality, inputs, lambda rows, notes: None)\n"
        "print(done.done / (time.perf_counter() - began))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, modality, model, *inputs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return float(run.stdout)


def rate_of_server(server: Server, modality: str, contents: Sequence[str], clients: int, together: int) -> float:
    """Return the inputs a second of a server. together: inputs in each request."""
    groups = [contents[start : start + together] for start in range(0, len(contents), together)]
    bodies = [json.dumps({"modality": modality, "input": group, "encoding_format": "base64"}).encode() for group in groups]
    requests = [Request("/v1/embeddings", body, None) for body in bodies]
    server.ask_all(requests[:clients], clients)
    seconds = server.ask_all(requests, clients)
    if bad := next((request for request in requests if request.status != 200), None):
        raise RuntimeError(f"{bad.status}: {str(bad.answer)[:200]}")
    return len(contents) / seconds


def compare_rates(server: Server, model: str, clients: int, count: int, tries: int = 3) -> Iterator[tuple[str, int, float, float]]:
    """Yield a modality, the inputs of each request, and the median rates of `embed` and of the server, measured in turns."""
    for modality, together in (("text", 16), ("image", 1), ("image", 8), ("audio", 8)):
        files = [str(file) for file in sorted((SAMPLES / modality).glob(KINDS.get(modality, "")))] if modality != "text" else SENTENCES
        many = [files[number % len(files)] + (f" {number}" if modality == "text" else "") for number in range(count)]
        contents = many if modality == "text" else [base64.b64encode(Path(file).read_bytes()).decode() for file in many]
        rates = [
            (rate_of_embed(modality, many, model), rate_of_server(server, modality, contents, clients, together)) for _ in range(tries)
        ]
        yield modality, together, statistics.median(one for one, _ in rates), statistics.median(other for _, other in rates)


def main() -> None:
    """Run all four, and exit with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inputs", type=int, default=600, help="inputs of each comparison with embed")
    parser.add_argument("--model", default="mini")
    given = parser.parse_args()
    inputs, faults = Inputs.embedded(given.model), list[str]()
    with started(given.model) as server:
        memory = []
        for number in range(given.rounds):
            requests = mixed_requests(given.requests, inputs, number)
            seconds = server.ask_all(requests, given.clients)
            faults += judge_answers(requests)
            memory.append(server.memory)
            bad = sum(request.wanted is None for request in requests)
            times = sorted(request.seconds for request in requests)
            print(f"round {number + 1}: {len(requests):,} requests, {bad} bad, of {given.clients} clients in {seconds:.1f} s; "
                  f"median {1000 * statistics.median(times):.0f} ms, 95 % {1000 * times[int(0.95 * len(times))]:.0f} ms; "
                  f"{memory[-1]:.0f} MB", flush=True)  # fmt: skip
        faults += judge_memory(memory)
        alone = [Request("/v1/embeddings", json.dumps({"input": f"{text}!"}).encode(), None) for text in SENTENCES[:100]]
        server.ask_all(alone, 1)
        median = statistics.median(request.seconds for request in alone)
        print(f"a sentence alone: median {1000 * median:.1f} ms", flush=True)
        faults += [] if median < SENTENCE else [f"a sentence takes {1000 * median:.0f} ms"]
        for modality, together, embed, serve in compare_rates(server, given.model, given.clients, given.inputs):
            share = serve / embed
            print(f"{modality}, {together} in a request: {embed:.0f} a second by embed, {serve:.0f} by the server: {share:.2f}", flush=True)
            faults += [] if share >= SHARE else [f"{modality}: {share:.2f} of embed's rate with {together} in a request"]
        ended = end_in_the_middle(server, given.clients)
        print(f"SIGTERM with {given.clients} requests under way: {len(ended)} lost", flush=True)
        faults += ended
    for fault in faults:
        print(f"FAULT {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
