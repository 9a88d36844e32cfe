"""The names of modalities, encoders and families: looking one up imports that file and no other.

A new modality is one file in `encoders/` and one line in `ENCODERS`; one line in `PAGE_PICTURES` shows its files on pages. A new family is
one file in `families/` and one line in `FAMILIES`, or an entry point of another package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.options import OPTIONS, NoOptions, ReadingOptions, read_options

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from imagebind_cli.encoder import InputConfig, Modality
    from imagebind_cli.weights.family import Family

ENCODERS = {
    "vision": "imagebind_cli.encoders.vision",
    "text": "imagebind_cli.encoders.text",
    "audio": "imagebind_cli.encoders.audio",
    "depth": "imagebind_cli.encoders.depth",
    "thermal": "imagebind_cli.encoders.thermal",
    "imu": "imagebind_cli.encoders.imu",
}

# The function that draws a file of a modality on a page; without one, the page shows the name. Strings, because a page needs no torch.
PAGE_PICTURES = {
    "image": "imagebind_cli.pages.pictures:photo",
    "video": "imagebind_cli.pages.pictures:film",
    "vision": "imagebind_cli.pages.pictures:photo_or_film",
    "audio": "imagebind_cli.pages.pictures:sound",
    "depth": "imagebind_cli.pages.pictures:depth_map",
    "thermal": "imagebind_cli.pages.pictures:thermal_map",
    "imu": "imagebind_cli.pages.pictures:motion",
}

# Published systems of encoders: the file that knows its tensors' names, configs and preprocessing.
FAMILIES = {
    "imagebind": "imagebind_cli.families.imagebind",
    "clip": "imagebind_cli.families.clip",
    "onepeace": "imagebind_cli.families.onepeace",
}
ENTRY_POINTS = "imagebind.families"  # the group under which another package names its families

TEXT = "text"  # the modality of sentences: of class names, captions and queries in words


@dataclass(frozen=True)
class Face:
    """A modality under one of the names a user may give: everything that shared code needs to know about it. Get one from `face`.

    name: as the user says it. encoder: whose input it is; a picture and a clip are two faces of `vision`.
    still: an input never has a duration, though others of its encoder do. mixed: whether it has one is seen when it is read.
    text: an input is a sentence, and not a file. scaled: its encoder has a logit scale.
    probe: settings of `evaluation.probe.ProbeTraining` that the paper states for it, where they differ from those for sounds.
    """

    name: str
    encoder: str
    still: bool = False
    mixed: bool = False
    text: bool = False
    scaled: bool = True
    probe: tuple[tuple[str, float], ...] = ()

    @cached_property
    def options(self) -> type[ReadingOptions]:
        """What may be chosen about reading it."""
        return OPTIONS.get(self.encoder, NoOptions)

    @cached_property
    def timed(self) -> bool:
        """Whether an input may have seconds, of which a row's `start` and `end` choose some. Elsewhere these are columns like any."""
        return self.options.has("stretch") and not self.still

    @cached_property
    def windowed(self) -> bool:
        """Whether every input has seconds, so that training takes a window at a random moment."""
        return self.options.has("moment") and not (self.still or self.mixed)

    @cached_property
    def drawn(self) -> bool:
        """Whether an input is a picture or a map, which can be cropped and mirrored."""
        return self.options.has("view")

    @property
    def module(self) -> str:
        """The module of its encoder's file."""
        return ENCODERS[self.encoder]

    def read_options(self, chosen: Mapping[str, Any]) -> ReadingOptions:
        """Check the options that a user or a record names, once per command or call, and return them with the others at their defaults.

        Raises:
            OptionError: an option that it does not have, or a value that is not one of the choices or too small.
        """
        return read_options(self.options, self.name, chosen, self.still)


# How a face differs from its encoder's name and options. An encoder without an entry here has one face of its own name.
_FACES = {
    face.name: face
    for face in (
        Face("image", "vision", still=True, scaled=False),
        Face("video", "vision", scaled=False),
        Face("vision", "vision", mixed=True, scaled=False),
        Face(TEXT, "text", text=True),
        Face("depth", "depth", probe=(("learning_rate", 1e-2), ("weight_decay", 0.0), ("epochs", 60))),
    )
}

MODALITIES = tuple(dict.fromkeys((*_FACES, *ENCODERS)))  # every name a user may give, e.g. to `imagebind embed`


def face(name: str) -> Face:
    """Look up a modality.

    Raises:
        UsageError: for an unknown name, with the known ones.
    """
    if name not in MODALITIES:
        raise UsageError(f"unknown modality {name!r}; choose from {', '.join(MODALITIES)}")
    if name not in _FACES:
        _FACES[name] = Face(name, name)
    return _FACES[name]


def family(name: str) -> Family:
    """Look up a family, importing its file.

    Raises:
        UserError: for an unknown name.
    """
    others = _families_elsewhere() if name not in FAMILIES else {}
    if name in FAMILIES or name in others:
        found: Family = others[name].load() if name in others else import_module(FAMILIES[name]).FAMILY
        return found
    known = ", ".join((*FAMILIES, *others))
    raise UserError(f"unknown family {name!r} of models; known are {known}, and the package of another one must be installed")


def families() -> list[Family]:
    """Return all families, those of other packages last."""
    return [family(name) for name in (*FAMILIES, *_families_elsewhere())]


@cache
def _families_elsewhere() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in FAMILIES}


def modality(encoder: str, config: InputConfig) -> Modality:
    """Return how the inputs of an encoder are read and its stem is built: as its family does, else as the encoder's own file does.

    Raises:
        UserError: the family is not known.
    """
    of_family = family(config.family).modality(encoder, config)
    own: Modality = of_family or import_module(ENCODERS[encoder]).MODALITY
    return own


def with_default_options(modality: str, record: Any) -> Any:
    """Complete a record of options with the defaults of those it lacks, so that it compares with one made before or after they existed.

    A record of an unknown modality, or a value that is not a record, is returned unchanged.
    """
    if modality not in MODALITIES or not isinstance(record, Mapping):
        return record
    return face(modality).options.with_defaults(record)
