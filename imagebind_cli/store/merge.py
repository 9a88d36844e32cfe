"""Several stores into one: the parts of a job array, of several machines, of several nights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagebind_cli.errors import UserError
from imagebind_cli.store.made import check_alike
from imagebind_cli.store.reader import StoreReader
from imagebind_cli.store.row import key_of
from imagebind_cli.store.writer import Store


@dataclass
class Merged:
    """What a merge did: items added, there already, and in place of one whose input was another; ids that several of the stores have."""

    added: int = 0
    same: int = 0
    replaced: int = 0
    twice: list[str] = field(default_factory=list)


def merge(
    readers: Sequence[StoreReader], path: Path, array: str | None = None, told: Callable[[Merged], None] = lambda so_far: None
) -> Merged:
    """Add the items of some stores to another, which is made if it is not there. The same again adds nothing.

    An id that several of them have counts as the first has it. One that the target has with another input is replaced.

    Args:
        array: number type of a new target; that of the stores if not given. told: called with what was done so far.
    Raises:
        UserError: they were not made alike, the target was not, or it is one of them.
    """
    made = {key: value for key, value in readers[0].made.items() if key not in ("assumptions", "array")}
    for reader in readers:
        check_alike(reader.path, {**reader.made, "array": ""}, readers[0].path, {**made, "array": ""})
        if path.exists() and reader.path.exists() and path.samefile(reader.path):
            raise UserError(f"{path}: is both the target and among the stores to merge; leave it out of these")
    done, came = Merged(), set[int]()
    with Store(path, made | {"array": array or readers[0].made.get("array", "float32")}) as store:
        for reader in readers:
            store.assume(reader.made.get("assumptions", []))
            for rows in reader.items():
                key, before = key_of(rows[0].id), store.stamp(rows[0].id)
                if key in came:
                    done.twice.append(rows[0].id)
                elif before is not None and rows[0].stamp.is_of(before):
                    done.same += 1
                else:
                    store.append(rows)
                    done.added += before is None
                    done.replaced += before is not None
                came.add(key)
                told(done)
    return done
