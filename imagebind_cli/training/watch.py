"""What a run says aloud when it does not learn, though its loss may look harmless."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Collection

from imagebind_cli import registry
from imagebind_cli.training.recipe import Pair
from imagebind_cli.training.step import Outcome

WINDOW = 20
"""Steps of a pair that are averaged."""
COLLAPSED = 0.99
"""Mean cosine of different samples from which they count as one."""
CHANCE = 0.99
"""Share of ln(batch) from which a loss counts as that of guessing."""


class Watch:
    """Looks at each step after warm-up; says each thing once, and again when it had passed and comes back."""

    def __init__(self, warmup: int, say: Callable[[str], None], frozen: Collection[str] = ()) -> None:
        """frozen: encoders that do not train, so that nothing that training does shows in how near their embeddings are."""
        self._warmup, self._say, self._frozen = warmup, say, frozen
        self._losses: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._said: set[tuple[str, str]] = set()

    def batch(self, step: int, pair: Pair, negatives: bool) -> None:
        """Before a step: whether anything in it can be told apart."""
        why = f"{pair.name}: step {step}: no sample of the batch has a negative: all are of one group"
        self._tell(pair, "negatives", not negatives and pair.loss != "regression", why)

    def outcome(self, step: int, pair: Pair, outcome: Outcome) -> None:
        """After a step."""
        losses = self._losses[pair.name]
        losses.append(outcome.loss)
        if step <= self._warmup or len(losses) < WINDOW:
            return
        chance, mean = math.log(pair.batch), sum(losses) / len(losses)
        guessing = pair.loss == "infonce" and mean >= CHANCE * chance
        self._tell(
            pair, "chance", guessing, f"{pair.name}: step {step}: the loss stays at {mean:.3f}, ln(batch) = {chance:.3f}: nothing is learnt"
        )
        for modality, spread in zip(pair.modalities, outcome.spread, strict=True):
            why = f"{pair.name}: step {step}: embeddings of {modality} have collapsed: the mean cosine of different ones is {spread:.4f}"
            self._tell(pair, modality, spread > COLLAPSED and registry.encoder_name(modality) not in self._frozen, why)

    def _tell(self, pair: Pair, what: str, is_so: bool, why: str) -> None:
        key = pair.name, what
        if is_so and key not in self._said:
            self._say(why)
        self._said = self._said | {key} if is_so else self._said - {key}
