"""`RemoteModel`: the model of a running `imagebind serve`, for whatever takes a `Model`. It needs no torch, and starts at once."""

from __future__ import annotations

import base64
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from imagebind_cli import registry
from imagebind_cli.embedding import Embedded, Embedding
from imagebind_cli.errors import UserError
from imagebind_cli.events import log_note
from imagebind_cli.media.decoding import check_file
from imagebind_cli.options import ReadingOptions
from imagebind_cli.prepared import Prepared
from imagebind_cli.server_connection import ServerConnection
from imagebind_cli.sources import Failure, Item, Regions, Stretch, reason

TOGETHER = 32  # inputs of a request, at most
CONNECTIONS = 4  # requests under way
OVERHEAD = 4096  # bytes of a request besides its files

Result = Embedded | Failure
_Arrived = Item | Failure | BaseException | None
_Sent = tuple[list[Item | Failure], "Future[list[Result]]"] | BaseException | None


class RemoteModel:
    """The model of a server. It is asked for the first time when something of it is needed.

    Args:
        address: `http://127.0.0.1:8000`. token: that the server wants. note: called with a line of text, as where the model is untrained.
    Raises:
        UsageError: it is not such an address.
    """

    def __init__(self, address: str, token: str | None = None, note: Callable[[str], None] = log_note) -> None:
        self._connection, self._note = ServerConnection(address, token), note
        self.address = self._connection.address

    @cached_property
    def _described(self) -> Mapping[str, Any]:
        (described,) = self._connection.ask("GET", "/v1/models")["data"]
        if described.get("untrained"):
            self._note(f"model {described['id']} of {self.address} is untrained, so nearness means little")
        return described  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """The name in its config."""
        return str(self._described["id"])

    @property
    def family(self) -> str:
        """The family of its weights."""
        return str(self._described["family"])

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return int(self._described["dim"])

    @property
    def rounded(self) -> str | None:
        """The number type that its weights were rounded to, if any."""
        return self._described.get("rounded")

    @property
    def trained_on(self) -> Mapping[str, Mapping[str, str]]:
        """Return what its encoders have seen of published suites."""
        return self._described["trained_on"]  # type: ignore[no-any-return]

    def fingerprint(self, modality: str) -> str:
        """Return the identity of a modality's weights, as stores record it.

        Raises:
            UserError: the model has no encoder for it.
        """
        weights = self._described["weights"]
        if modality not in weights:
            raise UserError(f"model {self.name} of {self.address} has no {modality}; it has {', '.join(weights)}")
        return str(weights[modality])

    def config(self, modality: str) -> None:
        """Check that the model takes a modality; the shape of its inputs is the server's affair.

        Raises:
            UserError: it does not.
        """
        self.fingerprint(modality)

    def record(self, modality: str, options: ReadingOptions | None = None, pool: str = "mean") -> dict[str, Any]:
        """Describe how the model makes embeddings of a modality; see `Model.record`."""
        chosen = {} if options is None else options.choices()
        record: dict[str, Any] = self._connection.ask("POST", "/provenance", {"modality": modality, "options": chosen, "pool": pool})
        return record

    def embed_items(
        self,
        modality: str,
        items: Iterable[Item | Failure],
        *,
        options: ReadingOptions | None = None,
        pool: str = "mean",
        batch_size: int | None = None,
        workers: int | None = None,
        processes: object = None,
        item_timeout: float | None = None,
        lengths: bool = False,
    ) -> Iterator[tuple[Item, Result]]:
        """Embed a stream of items in order: yield each with its embeddings or its failure, as `Model.embed_items` does.

        Args:
            workers: requests under way at a time. batch_size, processes, item_timeout: of a model in this process, without effect on a server.
        Raises:
            UserError: no server answers, or not to this client; lengths are wanted, which are not sent.
        """
        if lengths:
            raise UserError(
                f"{self.address}: a server sends unit vectors; the lengths that this needs come from a model here: leave --server out"
            )
        self.config(modality)
        chosen = {} if options is None else options.choices()
        return self._embed(modality, items, {"pool": pool, "options": chosen}, workers or CONNECTIONS)

    def _embed(
        self, modality: str, items: Iterable[Item | Failure], settings: dict[str, Any], connections: int
    ) -> Iterator[tuple[Item, Result]]:
        arrived: queue.Queue[_Arrived] = queue.Queue(TOGETHER)
        sent: queue.Queue[_Sent] = queue.Queue(connections)
        stop, pool = threading.Event(), ThreadPoolExecutor(connections, "request")

        def send(batch: list[Item | Failure]) -> Future[list[Result]]:
            return pool.submit(self._request, modality, batch, settings)

        with self._connection.kept_open():
            threading.Thread(target=_take_all, args=(items, arrived, stop), name="items", daemon=True).start()
            threading.Thread(target=_send_all, args=(arrived, sent, send, stop), name="batches", daemon=True).start()
            try:
                while (entry := sent.get()) is not None:
                    if isinstance(entry, BaseException):
                        raise entry
                    batch, results = entry
                    for item, result in zip(batch, results.result(), strict=True):
                        yield (item, result) if isinstance(item, Item) else (Item(item.id, None), result)
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _request(self, modality: str, batch: Sequence[Item | Failure], settings: Mapping[str, Any]) -> list[Result]:
        """Embed a batch in as many requests as its size needs."""
        results: list[Result | None] = [item if isinstance(item, Failure) else None for item in batch]
        limit, most = self._described["limits"]["body"] - OVERHEAD, self._described["limits"]["items"]
        entries: list[tuple[int, dict[str, Any]]] = []
        size = 0
        for number, item in enumerate(batch):
            if isinstance(item, Failure):
                continue
            try:
                entry = _entry(modality, item.payload)
                length = len(entry[modality]) if not registry.face(modality).text else len(json.dumps(entry[modality]))
                if length > limit:
                    raise ValueError(f"{length:,} bytes in base64; the server takes at most {limit:,}")
            except (OSError, ValueError) as error:
                results[number] = Failure(item.id, reason(error))
                continue
            if entries and (size + length + OVERHEAD > limit or len(entries) == most):
                self._fill(results, batch, entries, settings)
                entries, size = [], 0
            entries.append((number, entry))
            size += length + 256
        self._fill(results, batch, entries, settings)
        return [result for result in results if result is not None]

    def _fill(
        self,
        results: list[Result | None],
        batch: Sequence[Item | Failure],
        entries: Sequence[tuple[int, dict[str, Any]]],
        settings: Mapping[str, Any],
    ) -> None:
        """Send one request, and put what comes back in its places."""
        if not entries:
            return
        body = {"input": [entry for _, entry in entries], "encoding_format": "base64", **settings}
        data = self._connection.ask("POST", "/v1/embeddings", body)["data"]
        of_index: dict[int, list[dict[str, Any]]] = {}
        for entry in data:
            of_index.setdefault(entry["index"], []).append(entry)
        for index, (number, _) in enumerate(entries):
            results[number] = _result(batch[number].id, of_index[index])


def _take_all(items: Iterable[Item | Failure], arrived: queue.Queue[_Arrived], stop: threading.Event) -> None:
    """Queue every item as it comes, and at the end None, or the error that ended the input."""
    try:
        for item in items:
            if not _put(arrived, item, stop):
                return
        _put(arrived, None, stop)
    except BaseException as error:
        _put(arrived, error, stop)


def _send_all(
    arrived: queue.Queue[_Arrived],
    sent: queue.Queue[_Sent],
    send: Callable[[list[Item | Failure]], Future[list[Result]]],
    stop: threading.Event,
) -> None:
    """Send what has arrived in batches, and queue each with its results to come."""
    last: _Arrived = Failure("", "")
    while isinstance(last, Item | Failure):
        batch: list[Item | Failure] = []
        last = arrived.get()
        while isinstance(last, Item | Failure):
            batch.append(last)
            if len(batch) == TOGETHER or arrived.empty():
                break
            last = arrived.get()
        if stop.is_set():
            return
        try:
            entry = (batch, send(batch)) if batch else None
        except RuntimeError:  # the results are not wanted any more
            return
        if entry is not None and not _put(sent, entry, stop):
            return
    _put(sent, last, stop)


def _put(place: queue.Queue[Any], entry: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            place.put(entry, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


def _entry(modality: str, payload: Any) -> dict[str, Any]:
    """Return an input as a request holds it.

    Raises:
        OSError, ValueError: it cannot be read, or not be sent.
    """
    if isinstance(payload, Stretch):
        times = {"start": payload.start, "end": payload.end}
        return _entry(modality, payload.source) | {name: time for name, time in times.items() if time is not None}
    if callable(payload):
        return _entry(modality, payload())
    if registry.face(modality).text and isinstance(payload, str):
        return {modality: payload}
    if isinstance(payload, str):
        check_file(payload)
        with open(payload, "rb") as file:
            return {modality: base64.b64encode(file.read()).decode()}
    if isinstance(payload, Prepared) or not hasattr(payload, "read"):
        kinds = {Prepared: "prepared samples are", Regions: "regions are"}
        raise ValueError(f"{kinds.get(type(payload), 'an array is')} not sent to a server; leave --server out")
    payload.seek(0)
    return {modality: base64.b64encode(payload.read()).decode()}


def _result(id: str, entries: Sequence[Mapping[str, Any]]) -> Result:
    """Return what became of one input, from its entries in the answer."""
    first = entries[0]
    if "error" in first:
        return Failure(id, str(first["error"]["message"]))
    embeddings = [
        Embedding(
            np.frombuffer(base64.b64decode(entry["embedding"]), "<f4").astype(np.float32),
            (entry["start"], entry["end"]) if "start" in entry else None,
            entry.get("clock"),
        )
        for entry in entries
    ]
    return Embedded(embeddings, tuple(first.get("notes", ())), tuple(first.get("warnings", ())))
