"""CLIP (arXiv 2103.00020): pictures and text, as OpenCLIP and transformers publish their weights. Its preprocessing is ImageBind's.

If the long side is an odd number of pixels longer, transformers' own crop takes the lower of the two middle pixels, where OpenAI's,
OpenCLIP's and ours round half to even: they may differ by one pixel. The towers were trained with the latter.
"""

from imagebind_cli.encoder import IMAGEBIND
from imagebind_cli.families.clip.openclip import OPENCLIP_LAYOUT, packaged_openclip_config
from imagebind_cli.families.clip.transformers import TRANSFORMERS_LAYOUT
from imagebind_cli.weights.family import Family

FAMILY = Family(
    "clip", "pictures and text", (OPENCLIP_LAYOUT, TRANSFORMERS_LAYOUT), named_config=packaged_openclip_config, prepares_as=IMAGEBIND
)
