"""The two protocols by which evaluations of generated sound and video compute the ImageBind score, as reading options.

`published` is the released code's own preprocessing (`load_and_transform_video_data`, `load_and_transform_audio_data`), as JavisBench and others call
it. `adjacent` is that of av-benchmark, the code of MMAudio (Cheng et al., CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagebind_cli import registry
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.options import both_values
from imagebind_cli.options.vision import ALL_FRAMES
from imagebind_cli.registry import Face, with_default_options
from imagebind_cli.store import StoreReader

PUBLISHED, ADJACENT = PROTOCOLS = ("published", "adjacent")
RATE = "0.5"  # frames that av-benchmark takes in a second
FAMILY = "imagebind"
FREE = ("track", "fps")  # options that name the input, and not how it is read


@dataclass(frozen=True)
class ScoreProtocol:
    """A protocol. name: as it is given, `adjacent:RATE` with its rate. options: the reading options that it names, by encoder.

    All other options, but those of `FREE`, must be at their defaults, so that an option added later cannot change a score.
    """

    name: str
    options: Mapping[str, Mapping[str, Any]]

    def reading(self, face: Face) -> dict[str, Any]:
        """Return the options that the protocol fixes for a modality.

        Raises:
            UserError: it is not one of video, images, sound and text.
        """
        if face.encoder not in self.options:
            raise UserError(f"protocol {self.name} is for video, images, sound and text, not {face.name}")
        defaults = {entry.name: entry.default for entry in face.options.flags() if entry.name not in FREE}
        return {name: value for name, value in {**defaults, **self.options[face.encoder]}.items() if name in face.option_names()}

    def complete(self, face: Face, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options to read files with: the chosen ones and those of the protocol.

        Raises:
            UsageError: a chosen one contradicts the protocol.
        """
        fixed = self.reading(face)
        for name, value in chosen.items():
            if name in fixed and value != fixed[name]:
                given, needed = both_values(name, value, fixed[name])
                raise UsageError(f"{given}: protocol {self.name} has {needed}")
        named = self.options[face.encoder].keys() & fixed.keys()
        return {**chosen, **{name: fixed[name] for name in named if fixed[name] is not None}}

    def check(self, store: StoreReader) -> None:
        """Refuse a store whose vectors were made otherwise.

        Raises:
            UserError: it was made with other reading options or merged tokens, has a row for each window, or is of another family than ImageBind.
        """
        made = store.provenance
        family, face = made.get("family"), registry.face(store.modality)
        if family not in (None, FAMILY):
            raise UserError(f"{store.path}: of the family {family}; protocol {self.name} is ImageBind's")
        options = with_default_options(store.modality, made.get("options", {}))
        for name, value in self.reading(face).items():
            if options.get(name) != value:
                given, needed = both_values(name, options.get(name), value)
                raise UserError(
                    f"{store.path}: made with {given}; protocol {self.name} has {needed}: embed the files so, or give the files"
                )
        if made.get("merge"):
            raise UserError(
                f"{store.path}: made with --merge {made['merge']}; protocol {self.name} merges no tokens: embed without --merge"
            )
        if face.timed and made.get("pool") != "mean":
            raise UserError(
                f"{store.path}: has a row for each window; protocol {self.name} has the mean of all clips: embed without --pool none"
            )


def score_protocol(name: str) -> ScoreProtocol:
    """Return the protocol of a name: `published`, `adjacent`, `adjacent:RATE` with frames a second, or `adjacent:all`.

    Raises:
        UsageError: there is no such protocol.
    """
    word, colon, rate = name.partition(":")
    if word not in PROTOCOLS or (colon and word == PUBLISHED):
        raise UsageError(f"no protocol {name!r}; choose from {PUBLISHED}, {ADJACENT}, {ADJACENT}:RATE, {ADJACENT}:{ALL_FRAMES}")
    windows: dict[str, Any] = {"clips": 5, "adjacent": None} if word == PUBLISHED else {"clips": None, "adjacent": rate if colon else RATE}
    options = {
        "vision": {**windows, "hop": None, "crops": "3"},
        "audio": {"clips": 3, "hop": None, "channels": "first"},
        "text": {"long_text": "truncate"},
    }
    registry.face("video").read_options({name: value for name, value in options["vision"].items() if value is not None})
    return ScoreProtocol(f"{ADJACENT}:{windows['adjacent']}" if word == ADJACENT else PUBLISHED, options)
