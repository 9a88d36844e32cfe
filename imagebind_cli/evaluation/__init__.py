"""Zero-shot and few-shot classification and the suites the field compares by: class names and prompts, prototypes, scores, reports.

options.py      what a user may choose; the flags are made from it
job.py          `classify`, `few_shot` and `run_suite`: a task for one of the three protocols
by_class_vectors.py, by_probe.py, by_captions.py   the protocols
suites/         published suites: their recipes and the layouts of their datasets
truth.py        the true labels of the inputs
vectors.py      the vectors to classify, from stores or from a model
labels.py       the classes and their names
prompts.py      the sentences that name them
prototypes.py   class vectors from names or examples
classifier.py   a vector to its best classes
probe.py        a linear classifier trained on a few examples
captions.py     items and captions that search each other
task.py         one classification, from its vectors to its report
tally.py        the outcome of each item
outcomes.py     what each item adds to the scores, and paired differences of two runs
comparison.py   `compare`: one evaluation with several models
report.py       the scores, with intervals
decoding.py     how far vectors of a user's own pictures move with `--decode fast`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebind_cli.evaluation.comparison import Comparison, compare
    from imagebind_cli.evaluation.job import classify, few_shot, open_classifier, run_suite
    from imagebind_cli.evaluation.options import ClassOptions, ProbeOptions, ReportOptions, TruthOptions
    from imagebind_cli.evaluation.report import Report
    from imagebind_cli.evaluation.suites import open_suite
    from imagebind_cli.evaluation.task import Classification

__all__ = [
    "ClassOptions",
    "Classification",
    "Comparison",
    "ProbeOptions",
    "Report",
    "ReportOptions",
    "TruthOptions",
    "classify",
    "compare",
    "few_shot",
    "open_classifier",
    "open_suite",
    "run_suite",
]

_PUBLIC = {
    **dict.fromkeys(("classify", "few_shot", "open_classifier", "run_suite"), "job"),
    "Classification": "task",
    **dict.fromkeys(("Comparison", "compare"), "comparison"),
    **dict.fromkeys(("ClassOptions", "ProbeOptions", "ReportOptions", "TruthOptions"), "options"),
    "Report": "report",
    "open_suite": "suites",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used (PEP 562), so that the command line's help needs no numpy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"imagebind_cli.evaluation.{_PUBLIC[name]}"), name)
