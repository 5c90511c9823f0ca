"""Settings for every test."""

import os

import pytest

# Before torch is loaded anywhere: their number changes bits, and threads that contend slow down.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="module", params=["bert", "deberta-v2", "distilbert", "mpnet", "roberta"])
def folder(request, tmp_path_factory):
    """A tiny model of each architecture in turn, as files."""
    return _made(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT, as files."""
    return _made(tmp_path_factory, "bert")


def _made(tmp_path_factory, architecture):
    import tiny  # which loads torch: most tests do without

    path = tmp_path_factory.mktemp(architecture)
    tiny.make_model(path, architecture)
    return path
