"""A smaller encoder from a larger one's weights: some of its blocks, and of their MLPs the hidden units that count most.

Starting a student from its teacher's layers is DistilBERT's way (arXiv 1910.01108, section 3). Width and heads stay those of the larger encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from imagebind_cli.encoder import EncoderConfig

BLOCKS = "trunk.blocks."


def prune_encoder(tensors: Mapping[str, Tensor], source: EncoderConfig, config: EncoderConfig, blocks: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors of a smaller encoder, taken from those of a larger one.

    Args:
        tensors: of the larger encoder by name, as `Checkpoint.read` reads them. source, config: the larger and the smaller encoder.
        blocks: the number, from 1, of the larger one's block that each of the smaller one's starts from.
    Returns:
        The tensors of the chosen blocks under their new numbers, and all others as they are. Of an MLP that `config` makes narrower, the hidden
        units stay whose incoming weights' norm times that of the outgoing ones is largest.
    Raises:
        ValueError: as `check_pruning`.
    """
    check_pruning(source, config, blocks)
    pruned = {key: tensor for key, tensor in tensors.items() if not key.startswith(BLOCKS)}
    for number, chosen in enumerate(blocks):
        place = f"{BLOCKS}{chosen - 1}."
        block = {key.removeprefix(place): tensor for key, tensor in tensors.items() if key.startswith(place)}
        if _hidden(config) < _hidden(source):
            block |= _narrow(block, _hidden(config))
        pruned |= {f"{BLOCKS}{number}.{key}": tensor for key, tensor in block.items()}
    return pruned


def check_pruning(source: EncoderConfig, config: EncoderConfig, blocks: Sequence[int]) -> None:
    """Check that these blocks of a larger encoder can begin a smaller one.

    Raises:
        ValueError: another number of blocks than the smaller encoder has, a block that the larger one does not have, or a gated MLP to narrow.
    """
    if len(blocks) != config.trunk.layers:
        raise ValueError(f"{len(blocks)} given; the encoder has {config.trunk.layers} blocks")
    if beyond := [number for number in blocks if not 1 <= number <= source.trunk.layers]:
        raise ValueError(f"there is no block {beyond[0]}; they are 1 to {source.trunk.layers}")
    if source.trunk.gated and _hidden(config) < _hidden(source):
        raise ValueError("gated MLPs keep their width; choose the mlp of the larger encoder")


def _hidden(config: EncoderConfig) -> int:
    """Return the number of hidden units of an encoder's MLPs."""
    return int(config.trunk.mlp * config.trunk.width)


def _narrow(block: Mapping[str, Tensor], hidden: int) -> dict[str, Tensor]:
    """Return an MLP's tensors with fewer hidden units."""
    mlp = {key: tensor for key, tensor in block.items() if key.startswith("mlp.")}
    importance = mlp["mlp.up.weight"].float().norm(dim=1) * mlp["mlp.down.weight"].float().norm(dim=0)
    kept = importance.topk(hidden).indices.sort().values
    outgoing = {"mlp.down.weight": mlp["mlp.down.weight"][:, kept], "mlp.down.bias": mlp["mlp.down.bias"]}
    return {key: tensor[kept] for key, tensor in mlp.items() if key not in outgoing} | outgoing
