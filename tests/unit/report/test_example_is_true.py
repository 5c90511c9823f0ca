"""The example report's top says what its rows say, by a reader that shares no code with it."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import pytest

import read_one_seed
import read_report
from factory import ADALORA, FULL, HEAD, LORA, QLORA, make_matrix
from places import ROOT
from shown import write

EXAMPLE = ROOT / "docs" / "example"


def test_every_sentence_at_the_top_of_the_example_is_borne_out_by_its_rows():
    assert read_report.faults(EXAMPLE) == []


def test_the_reader_shares_no_code_with_the_report():
    tree = ast.parse(Path(read_report.__file__).read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    own = {n for n in names if n.partition(".")[0] not in sys.stdlib_module_names}
    assert own == {"pyarrow.parquet", "scipy"}


@pytest.mark.parametrize(
    ("said", "instead", "fault"),
    [
        ("and 3 seeds, LoRA", "and 5 seeds, LoRA", "of the rows (4, 3, '0.837', '0.028')"),
        ("scored 0.837 ± 0.028", "scored 0.847 ± 0.028", "of the rows (4, 3, '0.837', '0.028')"),
        (" (sts-b and sts-pairs share evaluation rows)", "", "two of the tasks share rows"),
        ("(−0.419 ± 0.033)", "(−0.319 ± 0.033)", "head only is −0.419 ± 0.033"),
        ("scored lower; undecided: QLoRA", "scored lower; QLoRA", "of the rows {"),
        ("QLoRA r8 at 0.98× LoRA", "QLoRA r8 at 0.88× LoRA", "Least peak memory: QLoRA r8 at"),
        ("memory: QLoRA r8 at 0.98×", "memory: head only at 0.26×", "Least peak memory: QLoRA r8"),
        ("next AdaLoRA r8 at 0.75×", "next AdaLoRA r8 at 0.85×", "next AdaLoRA r8 at 0.75×"),
        ("8: 3 seeds show no difference to full", "8: 3 seeds show it as good as full", "for 2 %"),
        ("for 2 % of its trained", "for 1 % of its trained", "for 2 % of its trained"),
        ("(60 to 140 steps) and only 3", "(600 steps) and only 3", "Reduced scale (60 to 140"),
        ("On the front: QLoRA", "On the front: head only, QLoRA", "on the front are {"),
        ("6 methods × 4 tasks", "6 methods × 5 tasks", "of the rows: 6 methods × 4 tasks"),
        ("apart:** QLoRA r8, AdaLoRA r8", "apart:** AdaLoRA r8", "undecided are {"),
        (
            "memory and is 0.3 points",
            "memory and is 1.3 points",
            "LoRA r8 is 0.3 points below full",
        ),
        ("costs:** 526 MiB", "costs:** 426 MiB", "peak memory is {'LoRA r8': '526 MiB'"),
        ("all 72 runs finished", "all 70 runs finished", "72 runs finished"),
        (", 60 to 140 optimizer", ", 600 optimizer", "steps are 60 to 140"),
        (
            "full fine-tuning (+0.003 ± 0.035)",
            "full fine-tuning (+0.003 ± 0.035; saw 2.00× the rows of LoRA r8)",
            "full fine-tuning saw 1.00 times the rows",
        ),
        ("- **learning rates:**", "- **rates:**", "where the learning rates come from is not said"),
        ("**2 runs predicted", "**3 runs predicted", "of the rows: 2 runs predicted the same"),
        ("scores may flatter", "scores may; the evaluation rows only report", "no trial picked a"),
        (
            "\n\nOver 4 tasks",
            "\n\nNo cell is shown to beat a constant guess on trec (best X). Over 4 tasks",
            "of the rows it holds for set()",
        ),
        ("\n\nOver 4 tasks", "\n\nLoRA is the best. Over 4 tasks", "no check for it"),
        ("steps) and only", "steps). Quantised cells are slow. Only", "no check for it"),
    ],
)
def test_the_reader_finds_what_the_rows_do_not_bear_out(tmp_path, said, instead, fault):
    shutil.copy(EXAMPLE / "rows.parquet", tmp_path)
    text = (EXAMPLE / "report.md").read_text("utf-8")
    assert said in text
    (tmp_path / "report.md").write_text(text.replace(said, instead, 1), "utf-8")
    assert any(fault in found for found in read_report.faults(tmp_path))


@pytest.fixture(scope="module")
def of_one_seed(tmp_path_factory):
    """A report of one seed of five cells."""
    folder = tmp_path_factory.mktemp("one-seed")
    write(folder, make_matrix(cells=[LORA, QLORA, ADALORA, FULL, HEAD], tasks=["sst2"], seeds=[0]))
    return folder


@pytest.mark.slow
@pytest.mark.heavy
def test_every_sentence_at_the_top_of_a_report_of_one_seed_is_borne_out_too(of_one_seed):
    assert [*read_one_seed.faults(of_one_seed)] == []


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("said", "instead", "fault"),
    [
        ("5 methods ×", "6 methods ×", "of the rows 5 methods"),
        (
            "highest mean is that of full",
            "highest mean is that of QLoRA r8 and full",
            "of the rows",
        ),
        ("and only 1 seed", "and only 2 seeds", "of the rows Reduced scale"),
        ("On the front: ", "On the front: AdaLoRA r8, ", "on the front are {"),
        ("all 5 runs finished", "1 of 5 runs failed", "0 of 5 failed"),
        ("r8 at 0.", "r8 at 1.", "Least peak memory is"),
    ],
)
def test_a_planted_falsehood_on_one_seed_is_found(of_one_seed, tmp_path, said, instead, fault):
    shutil.copytree(of_one_seed, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert said in text
    (tmp_path / "report.md").write_text(text.replace(said, instead), "utf-8")
    assert any(fault in found for found in read_one_seed.faults(tmp_path))
