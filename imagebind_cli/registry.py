"""The names of modalities, encoders and families: looking one up imports that file and no other.

A new modality is one file in `encoders/` and one line in `ENCODERS`. A line in `file_kinds.READ` lets folders skip files of other kinds, and
one in `PAGE_PICTURES` shows its files on pages. A new family is one file in `families/` and one line in `FAMILIES`. Another package brings
either by an entry point; see `additions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

from imagebind_cli import additions
from imagebind_cli.errors import UsageError, UserError
from imagebind_cli.options import ReadingOptions, read_options
from imagebind_cli.options.modalities import options_of

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
    "languagebind": "imagebind_cli.families.languagebind",
    "clip": "imagebind_cli.families.clip",
    "onepeace": "imagebind_cli.families.onepeace",
}
TEXT = "text"  # the modality of sentences: of class names, captions and queries in words


@dataclass(frozen=True)
class Face:
    """A modality under one of the names a user may give: everything that shared code needs to know about it. Get one from `face`.

    name: as the user says it. encoder: whose input it is; a picture and a clip are two faces of `vision`.
    still: an input never has a duration, though others of its encoder do. mixed: whether it has one is seen when it is read.
    text: an input is a sentence, and not a file.
    self_contained: neither a file's name nor files beside it change how it is read, so that with `--verify` a renamed file keeps its vectors.
    probe: settings of `evaluation.probe.ProbeTraining` that the paper states for it, where they differ from those for sounds.
    """

    name: str
    encoder: str
    still: bool = False
    mixed: bool = False
    text: bool = False
    self_contained: bool = False
    probe: tuple[tuple[str, float], ...] = ()

    @cached_property
    def options(self) -> type[ReadingOptions]:
        """What may be chosen about reading it."""
        return options_of(self.encoder)

    def option_names(self) -> list[str]:
        """Return the names of the options that it has: a still picture none of those for inputs with a duration, and a video none of the others."""
        return self.options.names(timed=self.timed)

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
        return ENCODERS[self.encoder] if self.encoder in ENCODERS else _encoders_elsewhere()[self.encoder].module

    def read_options(self, chosen: Mapping[str, Any]) -> ReadingOptions:
        """Check the options that a user or a record names, once per command or call, and return them with the others at their defaults.

        Raises:
            OptionError: an option that it does not have, or a value that is not one of the choices or too small.
        """
        return read_options(self.options, self.name, chosen, self.timed)


# How a face differs from its encoder's name and options. An encoder without an entry here has one face of its own name.
_FACES = {
    face.name: face
    for face in (
        Face("image", "vision", still=True, self_contained=True),
        Face("video", "vision", self_contained=True),
        Face("vision", "vision", mixed=True, self_contained=True),
        Face(TEXT, "text", text=True),
        Face("depth", "depth", probe=(("learning_rate", 1e-2), ("weight_decay", 0.0), ("epochs", 60))),
        Face("audio", "audio", self_contained=True),
        Face("thermal", "thermal", self_contained=True),
    )
}


class _Modalities(Sequence[str]):
    """Names of modalities. Other packages are asked for theirs when one is not known here, or all are listed."""

    here = tuple(dict.fromkeys((*_FACES, *ENCODERS)))

    @cached_property
    def everywhere(self) -> tuple[str, ...]:
        return (*self.here, *_encoders_elsewhere())

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...
    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        return self.everywhere[place]

    def __len__(self) -> int:
        return len(self.everywhere)

    def __contains__(self, name: object) -> bool:
        return name in self.here or name in self.everywhere


MODALITIES = _Modalities()  # every name a user may give, e.g. to `imagebind embed`


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
        UserError: for an unknown name, or one whose package cannot be loaded.
    """
    if name in FAMILIES:
        found: Family = import_module(FAMILIES[name]).FAMILY
        return found
    others = _families_elsewhere()
    if name in others:
        return _named(others[name], "FAMILY")
    known = ", ".join((*FAMILIES, *others))
    raise UserError(f"unknown family {name!r} of models; known are {known}, and the package of another one must be installed")


def families() -> list[Family]:
    """Return all families, those of other packages last. One that cannot be loaded is left out with a warning, since others may do."""
    found = [family(name) for name in FAMILIES]
    for name in _families_elsewhere():
        try:
            found.append(family(name))
        except UserError as error:
            _warn_once(str(error))
    return found


@cache
def _warn_once(text: str) -> None:
    import logging  # takes longer than all else here

    logging.getLogger(__name__).warning("%s", text)


def added() -> dict[str, list[EntryPoint]]:
    """Return what other packages add: under `families` and `modalities`, their entry points."""
    return {"families": list(_families_elsewhere().values()), "modalities": list(_encoders_elsewhere().values())}


def modality(encoder: str, config: InputConfig) -> Modality:
    """Return how the inputs of an encoder are read and its stem is built: as its family does, else as the encoder's own file does.

    Raises:
        UserError: the family or the encoder is not known.
    """
    of_family = family(config.family).modality(encoder, config)
    return of_family or own_modality(encoder)


def own_modality(encoder: str) -> Modality:
    """Return how an encoder's own file reads inputs and builds the stem.

    Raises:
        UserError: there is no such encoder, or its package cannot be loaded.
    """
    if encoder in ENCODERS:
        found: Modality = import_module(ENCODERS[encoder]).MODALITY
        return found
    if encoder in (others := _encoders_elsewhere()):
        return _named(others[encoder], "MODALITY")
    raise UserError(f"no encoder {encoder!r}; known are {', '.join((*ENCODERS, *others))}")


def _families_elsewhere() -> dict[str, EntryPoint]:
    return {name: entry for name, entry in additions.additions(additions.FAMILIES).items() if name not in FAMILIES}


def _encoders_elsewhere() -> dict[str, EntryPoint]:
    return {name: entry for name, entry in additions.additions(additions.ENCODERS).items() if name not in _Modalities.here}


def _named(entry: EntryPoint, attribute: str) -> Any:
    """Load what a package adds, which must call itself as its entry point does, since records hold that name."""
    found = additions.load_addition(entry, attribute)
    if getattr(found, "name", None) != entry.name:
        own = f"is named {found.name!r}" if hasattr(found, "name") else f"is not a {attribute.lower()}"
        raise UserError(f"{entry.name} of the package {additions.package_of(entry)} {own}: {entry.value}")
    return found


def with_default_options(modality: str, record: Any) -> Any:
    """Complete a record of options with the defaults of those it lacks, so that it compares with one made before or after they existed.

    A record of an unknown modality, or a value that is not a record, is returned unchanged.
    """
    if modality not in MODALITIES or not isinstance(record, Mapping):
        return record
    return face(modality).options.with_defaults(record)
