"""The docs on the site: every page has one room, and every link leads somewhere."""

from __future__ import annotations

from collections import Counter

import pytest

from peftmark.core.errors import UserError
from peftmark.site import rooms
from places import DOCS, ROOT

FOUR = ["Tutorials", "How-to", "Reference", "Explanation"]


def test_every_page_of_the_docs_has_exactly_one_room():
    there = {path.relative_to(ROOT).as_posix() for path in DOCS.glob("*.md")}
    there |= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/example/README.md"}
    placed = Counter(page for room in rooms.rooms(ROOT).values() for page in room)
    assert set(placed) == there, "give the page a line in docs/README.md"
    assert set(placed.values()) == {1}


def test_there_are_four_rooms_beside_the_evidence_and_none_is_empty():
    found = rooms.rooms(ROOT)
    assert list(found) == [rooms.EVIDENCE, *FOUR]
    assert all(found.values())


def test_every_link_of_the_docs_leads_to_a_file_and_all_decisions_are_listed():
    found = rooms.docs(ROOT)
    decisions = list((DOCS / "decisions").glob("*.md"))
    listed = found["docs/decisions/index.md"]
    assert len(decisions) > 40 and listed.count("\n- ") == len(decisions)
    assert all(f"]({path.name})" in listed for path in decisions)
    assert "docs/statistics.md" in found and "docs/start.md" in found


def test_places_on_the_site_are_all_different():
    places = list(rooms.pages(ROOT).values())
    assert len(places) == len(set(places))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/a.md", "docs/code.py"):
        (tmp_path / name).write_text("# Title\n")
    return tmp_path


KNOWN = {"README.md": "docs/start.md", "docs/a.md": "docs/a.md"}


def made(text, project, page="docs/a.md", repository=""):
    return rooms.for_site(text, page, project, KNOWN, repository)


def test_a_link_leads_to_where_the_page_is_on_the_site(project):
    assert made("[r](../README.md#x)", project) == "[r](start.md#x)"
    assert made("[a](docs/a.md)", project, "README.md") == "[a](a.md)"


def test_a_link_that_leads_nowhere_is_refused(project):
    with pytest.raises(UserError, match=r"docs/a\.md links to gone\.md, which is not there"):
        made("see [x](gone.md)", project)


def test_a_file_that_is_no_page_is_linked_in_the_repository_or_plain(project):
    assert made("[c](code.py)", project) == "c"
    there = made("[c](code.py)", project, repository="https://host/blob/abc")
    assert there == "[c](https://host/blob/abc/docs/code.py)"


def test_code_and_links_elsewhere_stay_as_they_are(project):
    text = "`[x](gone.md)` [w](https://example.org) [f](#here)\n\n```\n[x](gone.md)\n```\n"
    assert made(text, project) == text


def test_a_page_without_a_title_is_refused():
    with pytest.raises(UserError, match="has no title"):
        rooms.title("text\n## part\n", "docs/a.md")


def test_the_menu_has_made_pages_first_and_the_decisions_last():
    found = rooms.nav(ROOT, lambda room: [("Made", "made.md")] if room == "Explanation" else [])
    by_room = {name: pages for entry in found for name, pages in entry.items()}
    assert by_room["Explanation"][0] == {"Made": "made.md"}
    assert list(by_room["Explanation"][-1]) == ["Decisions"]
    assert {"Getting started": "docs/start.md"} in by_room["Tutorials"]
