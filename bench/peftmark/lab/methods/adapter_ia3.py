"""IA3 in the lower half of the layers and a bottleneck adapter in the upper half.

A practitioners' guide has it so for BERT-base: layers 1 to 6 scale activations (Liu et al. 2022,
arXiv 2205.05638, `peftmark.lab.methods.ia3`), layers 7 to 12 have an adapter behind their
feed-forward block (Houlsby et al. 2019, arXiv 1902.00751, `peftmark.lab.methods.adapter`):

    l_k ⊙ K, l_v ⊙ V, W_2 (l_ff ⊙ act(W_1 x))  in layers below n / 2
    y + U act(D y + d) + u                     in the others

Of an odd number of layers the one in the middle has an adapter. All vectors start at one and U, u
and d at zero, so the model starts as the base.
"""

from __future__ import annotations

from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.adapter import Shape, blocks_of, insert, prepared_with
from peftmark.lab.methods.ia3 import ia3_config
from peftmark.lab.methods.lora import wrap
from peftmark.lab.models import Unsupported


def adapter_ia3(model: nn.Module, setting: Setting) -> Prepared:
    """Put IA3's vectors and the bottlenecks on a base; head and pooler train beside them.

    Raises:
        Unsupported: if the layers are not recognised, or there is one alone.
    """
    blocks = blocks_of(setting)
    low, high = blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]
    if not low:
        raise Unsupported(
            f"{setting.job.method} needs two layers at least, one for IA3 and one for an adapter; "
            f"{setting.job.model} has {len(blocks)}; use adapter or ia3"
        )
    sizes = setting.sized([block.name for block in high])
    widths = {block.ffn_out: sizes[block.name] for block in high}
    shape = Shape(str(setting.job.recipe.options["activation"]))

    def put(base: nn.Module) -> nn.Module:
        wrapped = wrap(base, ia3_config(low, setting))
        insert(wrapped.get_base_model(), widths, shape)
        whole: nn.Module = wrapped
        return whole

    prepared = prepared_with(model, put)
    prepared.part_of = lambda name: "IA3" if ".ia3_" in name else "adapter"
    return prepared
