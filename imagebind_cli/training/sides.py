"""One modality of a pair: how its files are read and varied, checked against what its encoder and a random window allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagebind_cli import registry
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.options import ReadingOptions
from imagebind_cli.training.libraries import check_import
from imagebind_cli.training.recipe import Augment, Pair

FACES = tuple(map(registry.face, registry.MODALITIES))

PICTURES = tuple(dict.fromkeys(face.encoder for face in FACES if face.drawn))
"""Encoders of what can be cropped."""

TIMED = tuple(face.name for face in FACES if face.windowed)
"""Modalities of which one window is taken."""

WINDOWS = ("clips", "hop", "centres", "crops")
"""Options that choose windows and crops; in training these are drawn."""

PLACES = ("crop", "flip", "randaugment")
"""What moves pixels, and must be one thing for two aligned pictures."""


@dataclass(frozen=True)
class Side:
    """options: of its reader. augment: None where nothing is varied."""

    modality: str
    config: EncoderConfig
    options: ReadingOptions
    augment: Augment | None

    @property
    def face(self) -> registry.Face:
        """Its modality."""
        return registry.face(self.modality)

    @property
    def encoder(self) -> str:
        """The name of its encoder."""
        return self.face.encoder


def sides_of(pair: Pair, configs: Mapping[str, EncoderConfig]) -> tuple[Side, Side]:
    """The anchor's and the other's.

    Args:
        configs: by encoder name.
    Raises:
        UserError: no such encoder, an option or augmentation that does not fit, or a package that it needs and that cannot be imported.
    """
    for place, given in (("augment", pair.augment), ("options", pair.options)):
        for modality in given:
            if modality not in pair.modalities:
                raise UserError(f"{pair.name}: {place} for {modality!r}; the pair has {' and '.join(pair.modalities)}")
    anchor, other = (_side(pair, modality, configs) for modality in pair.modalities)
    if pair.aligned and anchor.encoder in PICTURES and other.encoder in PICTURES:
        plain = Augment()
        for name in PLACES:
            values = [getattr(side.augment or plain, name) for side in (anchor, other)]
            if values[0] != values[1]:
                told = f"{anchor.modality} has {values[0]}, {other.modality} {values[1]}"
                raise UserError(f"{pair.name}: aligned pictures need the same {name}; {told}")
    for side in (anchor, other):
        if side.augment and side.encoder in PICTURES:
            check_import("torchvision")
        if side.augment and side.augment.frequency_mask:
            check_import("torchaudio")
    return anchor, other


def _side(pair: Pair, modality: str, configs: Mapping[str, EncoderConfig]) -> Side:
    encoder = registry.encoder_name(modality)
    if encoder not in configs:
        raise UserError(f"{pair.name}: this model has no encoder for {modality}; it has {', '.join(configs)}")
    given, known = dict(pair.options.get(modality, {})), options(modality)
    for name in given:
        if name not in known:
            raise UserError(f"{pair.name}: {modality} has no option {name!r} in training; it has {', '.join(known) or 'none'}")
    if given.get("long_text") == "window":
        raise UserError(f"{pair.name}: long_text = 'window' averages windows; training takes one: truncate or error")
    chosen = registry.face(modality).read_options(given)
    augment = pair.augment.get(modality)
    _check_augment(pair, modality, augment or Augment())
    return Side(modality, configs[encoder], chosen, augment)


def augmentations(modality: str) -> list[str]:
    """The keys of an augmentation that fit a modality."""
    face, others = registry.face(modality), {name for other in FACES for name in other.options.augmentations}
    fitting = {*face.options.augmentations, *(set(Augment.model_fields) - others if face.drawn else ())}
    return [name for name in Augment.model_fields if name in fitting]


def options(modality: str) -> list[str]:
    """The options of a modality's reader that training leaves to the user."""
    return [name for name in registry.face(modality).options.names() if name not in WINDOWS]


def _check_augment(pair: Pair, modality: str, augment: Augment) -> None:
    fitting = augmentations(modality)
    for name in sorted(augment.model_fields_set.difference(fitting)):
        raise UserError(f"{pair.name}: {name} does not fit {modality}; {', '.join(fitting) or 'nothing'} does")
