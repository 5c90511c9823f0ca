"""docs/methods.md against the catalogue, and its counts against the formulas of the papers."""

from __future__ import annotations

import pytest

from peftmark.catalog.methods import METHODS, all_methods
from peftmark.cli import parser
from peftmark.docgen import methods_page
from places import DOCS

DOC = DOCS / "methods.md"


@pytest.fixture(scope="module")
def counts():
    return methods_page.count_all()


@pytest.fixture
def peftmark(counts, monkeypatch, capsys):
    monkeypatch.setattr(methods_page, "known_counts", lambda: counts)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            parser.main(["methods", *arguments])
        assert left.value.code == 0
        return capsys.readouterr().out

    return run


def test_the_document_is_what_the_command_prints(peftmark):
    assert DOC.read_text(encoding="utf-8") == peftmark("--markdown"), (
        "write it again: peftmark methods --markdown > docs/methods.md"
    )


def test_the_stored_counts_are_those_that_are_counted_now(counts):
    assert methods_page.known_counts() == counts, "python -m peftmark.docgen.methods_page"


def test_counts_of_other_libraries_are_made_anew(counts, monkeypatch):
    monkeypatch.setattr(methods_page, "count_all", lambda: "counted")
    assert methods_page.known_counts() == counts
    monkeypatch.setattr(methods_page, "_made_by", lambda: {"peft": "0.0.1"})
    assert methods_page.known_counts() == "counted"


def test_every_method_and_option_stands_in_it():
    text = DOC.read_text(encoding="utf-8")
    for key, method in all_methods().items():
        assert f"| `{key}` | {method.title} |" in text
    for method in METHODS.values():
        for option in method.options or ():
            assert f"| `{method.key}` | `{option.name}` |" in text


def test_the_terminal_shows_every_method(peftmark):
    first_words = {line.split(" ")[0] for line in peftmark().splitlines()}
    assert set(all_methods()) <= first_words


def test_counts_are_those_of_the_papers_formulas(counts):
    hidden, layers, found = 768, 12, counts.adapters
    rank, width, tokens = (
        methods_page.SIZES["rank"],
        methods_page.SIZES["width"],
        methods_page.SIZES["tokens"],
    )
    pair = layers * 2  # query and value
    assert counts.head == hidden * hidden + hidden + 2 * hidden + 2
    assert found["head"] == (0, 0)
    assert found["full"] == (124_645_632 - hidden * hidden - hidden,) * 2
    assert found["lora"] == (pair * rank * 2 * hidden,) * 2  # 0.3M, table 2 of the LoRA paper
    assert found["dora"] == (pair * (rank * 2 * hidden + hidden),) * 2
    assert found["adalora"] == (pair * rank * (2 * hidden + 1),) * 2
    assert found["adapter"] == (layers * (2 * hidden * width + width + hidden),) * 2
    assert found["p-tuning-v2"] == (layers * 2 * hidden * tokens,) * 2
    assert found["prompt-tuning"] == (hidden * tokens,) * 2
    assert found["ia3"] == (layers * (2 * hidden + 4 * hidden),) * 2
    # Biases of a layer: four in the attention, two in the feed-forward block (the first four times
    # as wide), two norms; and the norm of the embeddings.
    assert found["bitfit"] == (layers * (4 + 4 + 1 + 2) * hidden + hidden,) * 2
    assert found["bitfit-lora"][0] == found["bitfit"][0] + found["lora"][0]
    assert found["sensitive-layers"][0] * 4 == found["lora"][0]  # 3 of 12 layers
    assert found["sensitive-ranks"] == (found["lora"][0] // 4, found["lora"][0] * 2)
