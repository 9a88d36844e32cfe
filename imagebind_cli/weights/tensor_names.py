"""Tensors' names in foreign weight files: the published model's names and OpenCLIP's, as two tables.

A name that a table does not have is an error; the first row that matches wins, in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from torch import Tensor

from imagebind_cli import registry

# Published name -> ours; the first row that fits wins, in both directions. {m} modality, {i} digits, {p} weight or bias, {kv} k or v.
PUBLISHED = """
modality_preprocessors.text.mask                            -
modality_preprocessors.text.token_embedding.weight          text.stem.tokens.weight
modality_preprocessors.text.pos_embed                       text.stem.pos
modality_preprocessors.imu.pos_embed                        imu.stem.pos
modality_preprocessors.imu.imu_stem.proj.weight             imu.stem.proj.weight
modality_preprocessors.imu.imu_stem.norm_layer.{p}          imu.stem.norm.{p}
modality_preprocessors.depth.depth_stem.proj.weight         depth.stem.proj.weight
modality_preprocessors.depth.depth_stem.norm_layer.{p}      depth.stem.norm.{p}
modality_preprocessors.vision.rgbt_stem.proj.1.weight       vision.stem.proj.weight
modality_preprocessors.{m}.rgbt_stem.proj.weight            {m}.stem.proj.weight
modality_preprocessors.{m}.rgbt_stem.norm_layer.{p}         {m}.stem.norm.{p}
modality_preprocessors.{m}.cls_token                        {m}.stem.cls
modality_preprocessors.{m}.pos_embedding_helper.pos_embed   {m}.stem.pos
modality_trunks.{m}.pre_transformer_layer.0.{p}             {m}.trunk.norm.{p}
modality_trunks.{m}.blocks.{i}.attn.in_proj_{p}             {m}.trunk.blocks.{i}.attn.qkv.{p}
modality_trunks.{m}.blocks.{i}.attn.out_proj.{p}            {m}.trunk.blocks.{i}.attn.out.{p}
modality_trunks.{m}.blocks.{i}.attn.bias_{kv}               {m}.trunk.blocks.{i}.attn.bias_{kv}
modality_trunks.{m}.blocks.{i}.norm_1.{p}                   {m}.trunk.blocks.{i}.norm1.{p}
modality_trunks.{m}.blocks.{i}.norm_2.{p}                   {m}.trunk.blocks.{i}.norm2.{p}
modality_trunks.{m}.blocks.{i}.mlp.fc1.{p}                  {m}.trunk.blocks.{i}.mlp.up.{p}
modality_trunks.{m}.blocks.{i}.mlp.fc2.{p}                  {m}.trunk.blocks.{i}.mlp.down.{p}
modality_heads.text.proj.0.{p}                              text.head.norm.{p}
modality_heads.text.proj.1.weight                           text.head.proj.weight
modality_heads.imu.3.weight                                 imu.head.proj.weight
modality_heads.{m}.0.{p}                                    {m}.head.norm.{p}
modality_heads.{m}.2.weight                                 {m}.head.proj.weight
modality_postprocessors.{m}.1.log_logit_scale               {m}.log_scale
"""

# OpenCLIP's name -> ours, and what is done to the tensor on the way.
OPENCLIP = """
visual.conv1.weight                                   vision.stem.proj.weight                two_frames
visual.class_embedding                                vision.stem.cls                        as_sequence
visual.positional_embedding                           vision.stem.pos                        as_sequence
visual.ln_pre.{p}                                     vision.trunk.norm.{p}
visual.transformer.resblocks.{i}.attn.in_proj_{p}     vision.trunk.blocks.{i}.attn.qkv.{p}
visual.transformer.resblocks.{i}.attn.out_proj.{p}    vision.trunk.blocks.{i}.attn.out.{p}
visual.transformer.resblocks.{i}.ln_1.{p}             vision.trunk.blocks.{i}.norm1.{p}
visual.transformer.resblocks.{i}.ln_2.{p}             vision.trunk.blocks.{i}.norm2.{p}
visual.transformer.resblocks.{i}.mlp.c_fc.{p}         vision.trunk.blocks.{i}.mlp.up.{p}
visual.transformer.resblocks.{i}.mlp.c_proj.{p}       vision.trunk.blocks.{i}.mlp.down.{p}
visual.ln_post.{p}                                    vision.head.norm.{p}
visual.proj                                           vision.head.proj.weight                transposed
token_embedding.weight                                text.stem.tokens.weight
positional_embedding                                  text.stem.pos                          as_sequence
transformer.resblocks.{i}.attn.in_proj_{p}            text.trunk.blocks.{i}.attn.qkv.{p}
transformer.resblocks.{i}.attn.out_proj.{p}           text.trunk.blocks.{i}.attn.out.{p}
transformer.resblocks.{i}.ln_1.{p}                    text.trunk.blocks.{i}.norm1.{p}
transformer.resblocks.{i}.ln_2.{p}                    text.trunk.blocks.{i}.norm2.{p}
transformer.resblocks.{i}.mlp.c_fc.{p}                text.trunk.blocks.{i}.mlp.up.{p}
transformer.resblocks.{i}.mlp.c_proj.{p}              text.trunk.blocks.{i}.mlp.down.{p}
ln_final.{p}                                          text.head.norm.{p}
text_projection                                       text.head.proj.weight                  transposed
logit_scale                                           text.log_scale
attn_mask                                             -
"""

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    # Half the kernel on each of two frames: on a still picture, two equal frames, exactly the 2-D convolution.
    "two_frames": lambda kernel: (kernel / 2).unsqueeze(2).repeat(1, 1, 2, 1, 1),
    "as_sequence": lambda tensor: tensor.reshape(1, -1, tensor.shape[-1]),
    "transposed": lambda tensor: tensor.T.contiguous(),
}

PLACES = {
    "{m}": f"(?P<m>{'|'.join(registry.ENCODERS)})",
    "{i}": r"(?P<i>\d+)",
    "{p}": "(?P<p>weight|bias)",
    "{kv}": "(?P<kv>k|v)",
}


def rename(key: str, table: str, backwards: bool = False) -> tuple[str | None, str | None]:
    """Return a tensor's name on the other side of a table, and the name of the change made on the way.

    Returns:
        (None, None) for a name that the table drops.
    Raises:
        KeyError: the table does not have the name.
    """
    for pattern, template, change in _rows(table, backwards):
        if match := pattern.fullmatch(key):
            return (None if template == "-" else template.format_map(match.groupdict())), change
    raise KeyError(key)


@cache
def _rows(table: str, backwards: bool) -> list[tuple[re.Pattern[str], str, str | None]]:
    rows: list[tuple[re.Pattern[str], str, str | None]] = []
    for line in table.strip().splitlines():
        source, target, *rest = line.split()
        if backwards:
            source, target = target, source
        pattern = re.escape(source).replace(r"\{", "{").replace(r"\}", "}")
        for place, expression in PLACES.items():
            pattern = pattern.replace(place, expression)
        rows.append((re.compile(pattern), target, rest[0] if rest else None))
    return rows
