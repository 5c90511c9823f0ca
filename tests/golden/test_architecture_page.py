"""docs/architecture.md shows the folders as they are."""

from peftmark.docgen.architecture_page import END, PAGE, START, with_folders
from peftmark.docgen.structure import LEVELS
from places import DOCS, ROOT


def test_the_page_is_what_the_code_makes_of_it():
    assert ROOT / PAGE == DOCS / "architecture.md"
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_folders(page) == page, "run: python -m peftmark.docgen.architecture_page"


def test_what_stands_outside_the_marks_stays_and_every_folder_is_shown():
    made = with_folders(f"before\n{START}of before\n{END}after\n")
    assert made.startswith("before\n") and made.endswith("after\n") and "of before" not in made
    for folder in (folder for level in LEVELS for folder in level):
        assert f"| `{folder}` |" in made
