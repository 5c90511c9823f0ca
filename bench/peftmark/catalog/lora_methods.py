"""LoRA and its variants, as rows of the catalogue: what each is, reads and can sit on."""

from __future__ import annotations

from peftmark.catalog.method import ANY, LORA, Hook, Method, Option
from peftmark.catalog.quantizations import of_family

STEP_OF = dict.fromkeys(
    (
        *("rslora", "lora-plus", "pissa", "olora", "loftq", "eva", "corda", "lora-ga"),
        *("milora", "init-b", "init-ab"),
    ),
    "lora",
)
"""Method -> another whose training step holds the same tensors: it starts or scales otherwise."""

FROM_WHOLE = ("loftq",)
"""Methods that read the weights as they were before they were quantised."""

BATCHES = Option("batches", 50, (1, 10_000), "training batches looked at before the first step")


def _lora(
    key: str,
    title: str,
    summary: str,
    source: str,
    *options: Option,
    sits_on: tuple[str, ...] = ANY,
    hooks: tuple[Hook, ...] = (),
) -> Method:
    return Method(
        key,
        title,
        "lora",
        "rank",
        summary,
        source,
        LORA,
        False,
        sits_on,
        options,
        hooks,
        budget=True,
    )


LORA_METHODS: tuple[Method, ...] = (
    _lora(
        "lora", "LoRA",
        "a low-rank update BA scaled by alpha/r, beside each frozen weight; on nf4 it is QLoRA",
        "Hu et al. 2021, arXiv 2106.09685; QLoRA: Dettmers et al. 2023, arXiv 2305.14314",
    ),
    _lora(
        "rslora", "rsLoRA", "LoRA scaled by alpha/√r, so that high ranks learn as fast",
        "Kalajdzievski 2023, arXiv 2312.03732",
    ),
    _lora(
        "dora", "DoRA", "LoRA on the direction of each weight column, its magnitude apart",
        "Liu et al. 2024, arXiv 2402.09353",
    ),
    _lora(
        "pissa", "PiSSA", "LoRA that starts as the principal singular triplets of the weight",
        "Meng et al. 2024, arXiv 2404.02948", sits_on=("none",),
    ),
    _lora(
        "olora", "OLoRA", "LoRA that starts from a QR decomposition of the weight",
        "Büyükakyüz 2024, arXiv 2406.01775", sits_on=("none",),
    ),
    _lora(
        "lora-plus", "LoRA+", "LoRA whose B learns faster than A",
        "Hayou et al. 2024, arXiv 2402.12354",
        Option("rate_ratio", 16.0, (1, 1000), "learning rate of B divided by that of A"),
    ),
    _lora(
        "loftq", "LoftQ", "LoRA that starts as what 4-bit quantisation lost",
        "Li et al. 2023, arXiv 2310.08659",
        Option("iterations", 1, (1, 10), "alternations of quantising and decomposing"),
        sits_on=of_family("bitsandbytes-4bit"), hooks=("before initialisation",),
    ),
    _lora(
        "eva", "EVA", "LoRA whose A starts as the principal directions of the activations",
        "Paischer et al. 2024, arXiv 2410.07170",
        BATCHES, Option("rho", 1.0, (1, 8), "how far ranks may be moved between modules"),
        hooks=("before initialisation",),
    ),
    _lora(
        "corda", "CorDA", "LoRA that starts from a context-oriented decomposition",
        "Yang et al. 2024, arXiv 2406.05223",
        BATCHES, Option("kind", "ipm", ("ipm", "kpm"), "task first (ipm) or knowledge (kpm)"),
        sits_on=("none",), hooks=("before initialisation",),
    ),
    _lora(
        "lora-ga", "LoRA-GA", "LoRA that starts along the gradient of the full weights",
        "Wang et al. 2024, arXiv 2407.05000",
        BATCHES, sits_on=("none",), hooks=("before initialisation",),
    ),
    _lora(
        "kasa", "KaSA", "LoRA with trained singular values beside a truncated base",
        "Wang et al. 2024, arXiv 2412.06071",
        Option("beta", 1e-4, (0, 1), "weight of the singular values' penalty"),
        Option("gamma", 1e-3, (0, 1), "weight of the orthogonality penalty"),
        sits_on=("none",), hooks=("extra loss",),
    ),
    _lora(
        "mica", "MiCA", "LoRA whose B stays the smallest left singular vectors; A alone trains",
        "arXiv 2604.01694", sits_on=of_family("none", "quanto"),
    ),
    _lora(
        "milora", "MiLoRA", "LoRA that starts as the smallest singular triplets of the weight",
        "Wang et al. 2024, arXiv 2406.09044", sits_on=("none",),
    ),
    _lora(
        "init-b", "Init[B]", "LoRA whose A starts as zero and whose B is drawn; lora is Init[A]",
        "Hayou et al. 2024, arXiv 2406.08447",
    ),
    _lora(
        "init-ab", "Init[AB]", "LoRA whose factors are both drawn and taken out of the weight",
        "Li et al. 2025, arXiv 2505.23194; as compared in arXiv 2602.04998", sits_on=("none",),
    ),
    _lora(
        "lora-fa", "LoRA-FA", "LoRA whose B alone trains, by gradients corrected for A",
        "Zhang et al. 2023, arXiv 2308.03303", hooks=("before each step",),
    ),
    _lora(
        "riemannian-lora", "Riemannian LoRA",
        "LoRA whose factors' gradients are each preconditioned by the other factor",
        "Zhang and Pilanci 2024, arXiv 2402.02347",
        Option("damping", 1e-2, (1e-8, 1), "added to the diagonal before it is inverted"),
        hooks=("before each step",),
    ),
    _lora(
        "velora", "VeLoRA", "LoRA that keeps one number a group of A's inputs for the gradient",
        "Miles et al. 2024, arXiv 2405.17991",
        Option("groups", 64, (1, 65536), "groups that an input is cut into"),
        Option("scale", 1.0, (1e-6, 1e6), "what the inputs are multiplied by when made again"),
        Option(
            "projection", "first-batch", ("first-batch", "each-batch", "random"),
            "where the direction comes from on which inputs are kept",
        ),
        sits_on=of_family("none", "torchao-8bit", "quanto"),
    ),
    _lora(
        "loft", "LoFT", "LoRA whose optimizer does to the factors what AdamW does to the weight",
        "Tastan et al. 2025, arXiv 2505.21289",
        Option("epsilon", 1e-4, (1e-12, 1), "Adam's epsilon, beside gradients of whole weights"),
        hooks=("own optimizer",),
    ),
    Method(
        "lily", "Lily", "lora", "rank",
        "LoRA whose B matrices are shared by all layers and mixed by a router",
        "Zhong et al. 2024, arXiv 2407.09946", ("targets",),
        options=(
            Option("stride_A", 1, (1, 1000), "neighbouring layers that share an A"),
            Option("num_B", 2, (2, 1000), "B matrices that each kind of module shares"),
            Option("scaling", 1.0, (1e-6, 1e6), "what the update is multiplied by"),
        ),
        budget=True,
    ),
    Method(
        "hira", "HiRA", "lora", "rank",
        "the weight multiplied element by element with a low-rank matrix BA",
        "Huang et al. 2025, openreview.net TwJrTz9cRS", ("targets",),
        sits_on=of_family("none", "bitsandbytes-4bit", "bitsandbytes-8bit", "quanto"),
        options=(Option("hira_dropout", 0.0, (0, 0.9), "dropout on the inputs of the update"),),
        budget=True,
    ),
)  # fmt: skip
