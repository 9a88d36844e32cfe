"""`POST /classify`: the classes nearest to inputs, as `imagebind zeroshot` answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, FiniteFloat

from imagebind_cli.embedding import Embedded
from imagebind_cli.evaluation import ClassOptions, open_classifier
from imagebind_cli.evaluation.classifier import Classifier, Prediction, best_classes, join_predictions
from imagebind_cli.evaluation.labels import read_labels
from imagebind_cli.evaluation.prompts import template_sets
from imagebind_cli.server.bodies import Body, JSONRoute, Options, Pooling
from imagebind_cli.server.contents import Content
from imagebind_cli.server.dialects import read_inputs
from imagebind_cli.server.limits import Refusal
from imagebind_cli.server.service import Service
from imagebind_cli.server.spool import Heard
from imagebind_cli.sources import Failure, reason

KEPT = 32  # classifiers, of which each has a vector for every name


class ClassifyRequest(Body):
    """Inputs of one modality, and the classes to tell apart: the options of `imagebind zeroshot`."""

    modality: str
    input: Annotated[
        str | list[str | dict[str, Any]], Field(description='An input, or several, also as objects: {"image": "data:…", "name": "…"}.')
    ]
    labels: Annotated[
        list[str | list[str]] | dict[str, str | list[str]],
        Field(description="Class names; a list is one class by several names; an object has classes as keys and their names as values."),
    ]
    templates: Annotated[str | None, Field(description="A set of prompts: clip, plain, or a modality's.")] = None
    names: Annotated[Literal["max", "mean"] | None, Field(description="Of several names of a class the best counts, or the mean.")] = None
    scale: Annotated[FiniteFloat | None, Field(gt=0, description="Factor before the softmax, in place of the logit scale.")] = None
    top: Annotated[int, Field(ge=1, description="Number of classes shown for each input.")] = 5
    stretches: Annotated[bool, Field(description="Join neighbouring windows of one best class; with `pool` none.")] = False
    pool: Pooling = "mean"
    options: Options = Field(default_factory=dict)

    @property
    def classes(self) -> ClassOptions:
        """The classes, as the library takes them: each of its options that a request has."""
        names = {entry.name for entry in fields(ClassOptions)} & type(self).model_fields.keys()
        return ClassOptions(**{name: getattr(self, name) for name in names})


def class_routes(service: Service) -> APIRouter:
    """Return the routes that classify."""
    routes = APIRouter(route_class=JSONRoute, tags=["Search"])
    classifiers = _Classifiers(service)

    @routes.post("/classify")
    async def classify(request: ClassifyRequest) -> dict[str, Any]:
        """Find the classes nearest to each input, by names in prompts.

        `results` holds the lines of `imagebind zeroshot`; an input that cannot be used has an `error` in place of `top`.
        """
        if request.stretches and request.pool != "none":
            raise Refusal(422, "stretches joins windows; give pool none")
        _check_classes(request, service)
        given = [request.input] if isinstance(request.input, str) else request.input
        contents = await run_in_threadpool(read_inputs, given, request.modality, request.options, service)
        if other := next((one for one in contents if isinstance(one, Content) and one.modality != request.modality), None):
            raise Refusal(422, f"an input of {other.modality}; {request.modality} is classified here")
        outcomes, (classifier, notes) = await asyncio.gather(service.embed(contents, request.pool), classifiers.get(request))
        results = [Failure("", reason(outcome)) if isinstance(outcome, Exception) else outcome for outcome in outcomes]
        failures = [result for result in results if isinstance(result, Failure)]
        if len(failures) == len(results):
            raise Refusal(422, failures[0].reason)
        rows = [row for number, result in enumerate(results) for row in _rows(number, contents[number], result, classifier, request)]
        notes = [*notes, *(note for result in results if isinstance(result, Embedded) for note in (*result.notes, *result.warnings))]
        return {"results": rows, "notes": list(dict.fromkeys(notes))}

    return routes


def _check_classes(request: ClassifyRequest, service: Service) -> None:
    """Refuse classes that would take long to embed, or name a file."""
    labels = read_labels(request.labels)
    if (names := sum(len(label.names) for label in labels)) > service.limits.items:
        raise Refusal(413, f"{names:,} class names; at most {service.limits.items:,}")
    if request.templates is not None and request.templates not in (known := template_sets()):
        raise Refusal(422, f"templates {request.templates!r:.40}: not one of {', '.join(known)}")


def _rows(
    number: int, content: Content | Failure, result: Embedded | Failure, classifier: Classifier, request: ClassifyRequest
) -> Iterator[dict[str, Any]]:
    named = isinstance(content, Content) and content.name != content.modality
    id = content.name if isinstance(content, Content) and named else str(number)
    if isinstance(result, Failure):
        yield {"id": id, "error": result.reason}
        return
    rows: Iterator[Prediction] = (
        Prediction(id, best_classes(classifier, part.vector, request.top), None, part.span, part.clock) for part in result.embeddings
    )
    for row in join_predictions(rows) if request.stretches else rows:
        yield row.as_json()


class _Classifiers:
    """The class vectors that were asked for last, with the notes on them."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, threading.Lock()
        self._kept: OrderedDict[str, tuple[Classifier, list[str]]] = OrderedDict()

    async def get(self, request: ClassifyRequest) -> tuple[Classifier, list[str]]:
        """Return the classifier of a request."""
        key = json.dumps([request.modality, asdict(request.classes)])  # all that `open_classifier` is given
        made: tuple[Classifier, list[str]] = await self._service.answer("classes", self._make, key, request)
        return made

    def _make(self, key: str, requests: list[ClassifyRequest]) -> Iterator[tuple[Classifier, list[str]]]:
        with self._lock:
            made = self._kept.pop(key, None)
        if made is None:
            heard = _Noted()
            made = (
                open_classifier(requests[0].modality, requests[0].classes, model=self._service.own_space(heard.note), listener=heard),
                heard.lines,
            )
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        for _ in requests:
            yield made


class _Noted(Heard):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)
