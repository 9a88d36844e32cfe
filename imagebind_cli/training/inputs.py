"""How to read and augment each modality of a pair, checked against its encoder before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from imagebind_cli import libraries, registry
from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import OptionError, UserError
from imagebind_cli.options import ReadingOptions
from imagebind_cli.readers import check_options, reader_of
from imagebind_cli.store import is_store
from imagebind_cli.training.recipe import MOVES_PIXELS, STUDENT_ALONE, AugmentRecipe, PairRecipe, RecipeError
from imagebind_cli.weights.find import shape_of

FACES = tuple(map(registry.face, registry.MODALITIES))
CROPPABLE = tuple(dict.fromkeys(face.encoder for face in FACES if face.drawn))  # encoders whose inputs can be cropped
TIMED = tuple(face.name for face in FACES if face.windowed)  # modalities of which one window is read


@dataclass(frozen=True)
class PairInput:
    """The reading of one modality of a pair.

    config: of its encoder. options: of its reader. augment: None to change nothing.
    """

    modality: str
    config: EncoderConfig
    options: ReadingOptions
    augment: AugmentRecipe | None

    @property
    def face(self) -> registry.Face:
        """Its modality."""
        return registry.face(self.modality)

    @property
    def encoder(self) -> str:
        """The name of its encoder."""
        return self.face.encoder


def pair_inputs(pair: PairRecipe, configs: Mapping[str, EncoderConfig]) -> tuple[PairInput, PairInput]:
    """Return the anchor's and the other modality's input of a pair.

    Args:
        configs: by encoder name.
    Raises:
        UserError: no such encoder, an option or augmentation that does not fit, or a missing package.
    """
    for key, table in (("augment", pair.augment), ("options", pair.options)):
        for modality in table:
            if modality not in pair.modalities:
                raise RecipeError(
                    f"pairs.{pair.name}.{key}", f"{pair.name}: {key} for {modality!r}; the pair has {' and '.join(pair.modalities)}"
                )
    other = _pair_input(pair, pair.modalities[1], configs)
    anchor = _pair_input(pair, pair.modalities[0], configs) if pair.teacher is None else _teacher_input(pair, other)
    check_blindness(pair, anchor)
    if pair.teacher is None and pair.aligned and anchor.encoder in CROPPABLE and other.encoder in CROPPABLE:
        default = AugmentRecipe()
        for name in AugmentRecipe.marked(MOVES_PIXELS):
            values = [getattr(each.augment or default, name) for each in (anchor, other)]
            if values[0] != values[1]:
                difference = f"{anchor.modality} has {values[0]}, {other.modality} {values[1]}"
                raise RecipeError(f"pairs.{pair.name}", f"{pair.name}: aligned pictures need the same {name}; {difference}")
    for each in (anchor, other):
        if each.augment and each.encoder in CROPPABLE:
            libraries.require("torchvision", "augmentation")
        if each.augment and each.augment.frequency_mask:
            libraries.require("torchaudio", "augmentation")
    return anchor, other


def _teacher_input(pair: PairRecipe, student: PairInput) -> PairInput:
    """Return how a teacher sees the samples: whole, or in the student's views without `STUDENT_ALONE`. Stored vectors see nothing."""
    assert pair.teacher is not None
    if is_vector_file(pair.teacher.model):
        return student
    source = _pair_input(pair, student.modality, shape_of(pair.teacher.model).encoders)
    hidden = {name: getattr(AugmentRecipe(), name) for name in AugmentRecipe.marked(STUDENT_ALONE)}
    seen = None if student.augment is None else student.augment.model_copy(update=hidden)
    return replace(source, augment=seen if pair.teacher.sees == "views" else None)


def is_vector_file(teacher: str) -> bool:
    """Check whether a teacher is a file of vectors, not a model."""
    return teacher.endswith(".npy") or is_store(teacher)


def check_blindness(pair: PairRecipe, anchor: PairInput) -> None:
    """Check that an anchor can be made blind to what its recipe names.

    Raises:
        RecipeError: it has no such changes.
    """
    if not pair.anchor.blind:
        return
    place, face, config = f"pairs.{pair.name}.anchor", anchor.face, anchor.config
    fitting = [
        *(["colour"] if face.drawn and config.shape[0] == 3 else []),
        *(["scale", "mirror"] if face.drawn else []),
        *(["background"] if face.drawn and not face.windowed else []),
    ]
    for name in pair.anchor.blind:
        if name not in fitting:
            known = f"it can be blind to {', '.join(fitting)}" if fitting else "it can be made blind to nothing"
            raise RecipeError(place, f"{pair.name}: {anchor.modality} has no {name} to be blind to; {known}")
    if pair.teacher is not None and is_vector_file(pair.teacher.model):
        raise RecipeError(
            place, f"{pair.name}: {pair.teacher.model} holds vectors, which cannot be made blind; name their model as the teacher"
        )


def _pair_input(pair: PairRecipe, modality: str, configs: Mapping[str, EncoderConfig]) -> PairInput:
    encoder = registry.face(modality).encoder
    if encoder not in configs:
        raise UserError(f"{pair.name}: this model has no encoder for {modality}; it has {', '.join(configs)}")
    place = f"pairs.{pair.name}.options.{modality}"
    given, known = dict(pair.options.get(modality, {})), recipe_options(modality)
    for name in given:
        if name not in known:
            raise RecipeError(place, f"{pair.name}: {modality} has no option {name!r} in training; it has {', '.join(known) or 'none'}")
    if given.get("long_text") == "window":
        raise RecipeError(place, f"{pair.name}: long_text = 'window' averages windows; training takes one: truncate or error")
    try:
        chosen = registry.face(modality).read_options(given)
        check_options(registry.face(modality), configs[encoder], chosen)
    except OptionError as error:
        raise RecipeError(place, f"{pair.name}: {error}") from None
    reader_of(registry.face(modality), configs[encoder])
    augment = pair.augment.get(modality)
    _check_augment(pair, modality, augment or AugmentRecipe())
    if augment and augment.recolour and configs[encoder].shape[0] != 3:
        raise RecipeError(
            f"pairs.{pair.name}.augment.{modality}", f"{pair.name}: recolour is for pictures in colour, and {modality} has none"
        )
    if augment and augment.frequency_mask and len(configs[encoder].shape) != 3:
        raise RecipeError(
            f"pairs.{pair.name}.augment.{modality}",
            f"{pair.name}: frequency_mask is for spectrograms; this model's {encoder} takes waveforms",
        )
    return PairInput(modality, configs[encoder], chosen, augment)


def augment_keys(modality: str) -> list[str]:
    """List the keys of an augmentation that apply to a modality."""
    face, special = registry.face(modality), {name for other in FACES for name in other.options.augmentations}
    fitting = {*face.options.augmentations, *(set(AugmentRecipe.model_fields) - special if face.drawn else ())}
    return [name for name in AugmentRecipe.model_fields if name in fitting]


def recipe_options(modality: str) -> list[str]:
    """List the options of a modality's reader that a recipe may set: all but those that choose windows."""
    return [entry.name for entry in registry.face(modality).options.flags() if not entry.metadata["windows"]]


def _check_augment(pair: PairRecipe, modality: str, augment: AugmentRecipe) -> None:
    fitting = augment_keys(modality)
    for name in sorted(augment.model_fields_set.difference(fitting)):
        raise RecipeError(
            f"pairs.{pair.name}.augment.{modality}",
            f"{pair.name}: {name} does not apply to {modality}; {', '.join(fitting) or 'nothing'} does",
        )
