"""Everything that imports torch: one job from seed to outcome."""

import logging

# At import bitsandbytes warns that an optional kernel package is missing; that package would fetch
# code from a hub, which a worker never does.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
