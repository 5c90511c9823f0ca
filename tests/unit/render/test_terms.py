"""Names that open a line on what they are: in sentences and tables of a page, and in Markdown."""

import re

from peftmark.render import html, markdown, terms
from peftmark.render.page import Column, Entry, FirstScreen, Grid, Page, Section
from peftmark.render.terms import Term

LORA = Term("method-lora", "LoRA", "a low-rank <update>", "Hu 2021, arXiv 2106.09685", ("LoRA r8",))
TREC = Term("task-trec", "TREC questions", "what is asked for", "", ("trec",))
KEYS = terms.keys_of([LORA, TREC])


def page(rows, columns=("cell", "trec"), answer="LoRA r8 wins"):
    grid = Grid("g", tuple(map(Column, columns)), tuple(tuple(map(Entry, row)) for row in rows))
    first = FirstScreen("", answer, "")
    section = Section("s", "S", "", (grid,), depth="card")
    found = Page("t", (), "", (), "", (), (), (section,), first=first, terms=(LORA, TREC))
    return html.render(found, {})


def buttons(text):
    return re.findall(r'<button class="term" popovertarget="([\w-]+)">([^<]+)</button>', text)


def test_a_sentence_marks_each_name_once_and_the_longest_that_fits():
    text = "LoRA r8 & LoRA r16 beat QLoRA r8, LoRA r8 and LoRA-FA on trec"
    found = terms.in_text(text, KEYS)
    assert buttons(found) == [
        ("what-method-lora", "LoRA r8"),
        ("what-method-lora", "LoRA"),
        ("what-task-trec", "trec"),
    ]
    assert " &amp; " in found and "QLoRA r8" in found and "LoRA-FA" in found


def test_a_page_holds_each_line_once_and_closed_and_links_its_paper():
    text = page([("LoRA r8", "1"), ("AdaLoRA r8", "2")])
    assert text.count("a low-rank &lt;update&gt;") == 1
    assert '<div class="line" id="what-method-lora" popover>' in text
    assert '<a href="https://arxiv.org/abs/2106.09685">arXiv 2106.09685</a>' in text
    opened = {key for key, _ in buttons(text)}
    assert opened == {"what-method-lora", "what-task-trec"}
    assert all(text.count(f'id="{key}"') == 1 for key in opened)


def test_names_open_in_the_answer_in_rows_and_in_heads():
    text = page([("LoRA r8", "1"), ("LoRA r8", "2"), ("AdaLoRA r8", "3")])
    answer = re.search(r'<p class="answer">(.*)</p>', text)[1]
    assert buttons(answer) == [("what-method-lora", "LoRA r8")]
    table = text[text.index("<table") : text.index("</table")]
    assert [name for _, name in buttons(table)] == ["trec", "LoRA r8"]


def test_a_long_table_has_one_button_a_line_so_that_a_keyboard_gets_past_it():
    rows = [(name, str(i)) for i in range(20) for name in ("LoRA r8", "LoRA")]
    table = page(rows).partition("<tbody>")[2].partition("</tbody>")[0]
    assert buttons(table) == [("what-method-lora", "LoRA r8")]


def test_a_page_without_names_has_no_buttons():
    plain = Page("t", (), "", (), "", (), (), first=FirstScreen("", "LoRA r8 wins", ""))
    assert "popover" not in html.render(plain, {}).replace(html.css(), "").partition("<script")[0]
    assert "names mean" not in markdown.render(plain)


def test_many_names_are_folded():
    many = tuple(Term(f"k{i}", f"name {i}", "x", "", ()) for i in range(html.MOST_NAMES + 1))
    first = FirstScreen("", "", "")
    start = '<details class="names"><summary>What the 21 names mean</summary>'
    assert start in html.render(Page("t", (), "", (), "", (), (), first=first, terms=many), {})
    few = Page("t", (), "", (), "", (), (), first=first, terms=many[1:])
    assert '<div class="names">' in html.render(few, {})


def test_markdown_ends_with_the_lines():
    first = FirstScreen("", "", "")
    text = markdown.render(Page("t", (), "", (), "", (), (), first=first, terms=(LORA, TREC)))
    assert text.rstrip().endswith(
        "## What the names mean\n\n"
        "- **LoRA:** a low-rank &lt;update&gt;. Hu 2021, arXiv 2106.09685\n"
        "- **TREC questions:** what is asked for"
    )


def test_no_line_begins_with_what_closes_a_name():
    found = terms.in_text("LoRA r8, trec. LoRA r8, (LoRA) and", KEYS)
    shown = [terms.button(name, KEYS) for name in ("LoRA r8", "trec", "LoRA")]
    assert found == (
        f'<span class="whole">{shown[0]},</span> <span class="whole">{shown[1]}.</span> LoRA r8, '
        f'(<span class="whole">{shown[2]})</span> and'
    )
