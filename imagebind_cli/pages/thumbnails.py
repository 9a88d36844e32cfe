"""Thumbnails of a store's files as JPEG, for tables that other programs show."""

from __future__ import annotations

import base64
from collections.abc import Callable

from imagebind_cli.events import Listener
from imagebind_cli.pages.pictures import picture, seconds_shown
from imagebind_cli.registry import PAGE_PICTURES
from imagebind_cli.retrieval.stored_items import recorded_exhibit
from imagebind_cli.sources import reason, whole_source
from imagebind_cli.store import Row, StoreReader


def thumbnails(reader: StoreReader, listener: Listener) -> Callable[[Row], bytes | None]:
    """Return a function that draws a row's file as a page shows it: a JPEG of at most 240 pixels a side, of a sound its spectrogram.

    It returns None for a sentence, and for a file that cannot be read, which it reports to `listener` as a warning. Relative paths are read from
    the current folder.
    """
    options = reader.provenance.get("options", {})

    def thumbnail(row: Row) -> bytes | None:
        if reader.modality not in PAGE_PICTURES:
            return None
        exhibit = recorded_exhibit(reader.modality, row.id, row.meta, row.span)
        span = seconds_shown(exhibit.source, exhibit.span)
        try:
            image = picture(reader.modality, whole_source(exhibit.source), span, options).image
        except (OSError, ValueError) as error:
            listener.remarks(row.id, (), [f"no thumbnail: {reason(error)}"])
            return None
        return base64.b64decode(image.partition(",")[2])

    return thumbnail
