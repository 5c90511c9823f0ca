"""Everything that imports torch: one job from seed to outcome."""

import logging

# At import bitsandbytes warns that an optional kernel package is missing; that package would fetch
# code from a hub, which a worker never does. transformers imports torchao wherever it is installed,
# which then names its libraries for other machines and, through torch, an old name that it uses.
for _chatty in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)
