"""Settings for every test."""

import os

# Before torch is loaded anywhere: their number changes bits, and threads that contend slow down.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
