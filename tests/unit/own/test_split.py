"""A split that nobody made: by class, by hash, copies on one side, and it stays where it is."""

from __future__ import annotations

import random
from collections import Counter

from own_files import tickets
from peftmark.catalog.task import Example
from peftmark.own.split import content_hash, draw


def rows(count=300):
    names = ("bug", "praise", "refund")
    return [Example(text, None, names.index(label)) for text, label in tickets(count)]


def evaluated(made, share=0.2, by_label=True):
    return {made[n] for n in draw(made, share, by_label)[1]}


def test_each_class_gives_its_share_and_every_row_is_somewhere():
    made = rows()
    train, evaluation = draw(made, 0.2, True)
    assert sorted([*train, *evaluation]) == list(range(300))
    assert train == sorted(train)
    assert Counter(made[n].label for n in evaluation) == {0: 20, 1: 20, 2: 20}


def test_the_order_of_the_file_moves_nothing():
    made = rows()
    mixed = random.Random(0).sample(made, len(made))
    assert evaluated(made) == evaluated(mixed)


def test_rows_that_come_and_go_move_at_most_the_border_of_their_class():
    made = rows()
    before = evaluated(made)
    more = [*made, *(Example(f"new {n}", None, 0) for n in range(10))]
    after = evaluated(more)
    assert {r for r in before if r.label} == {r for r in after if r.label}
    # Ten more rows, two of which evaluate: each can push one out.
    assert len(before - after) <= 10
    fewer = evaluated(made[:-1])
    assert len(before - fewer) <= 1


def test_the_rows_of_smallest_hash_evaluate():
    made = rows(30)
    ranked = sorted(made, key=content_hash)
    assert evaluated(made, by_label=False) == set(ranked[:6])


def test_a_label_does_not_count_for_the_hash_but_texts_do():
    assert content_hash(Example("a", None, 0)) == content_hash(Example("a", None, 1))
    different = [
        Example("a", None, 0),
        Example("a", "b", 0),
        Example("ab", None, 0),
        Example("", None, 0, turns=(("assistant", "a"),)),
        Example("a", None, 0, choices=("b", "c")),
        Example("a", None, 0, choices=("c", "b")),
    ]
    assert len({content_hash(row) for row in different}) == len(different)


def test_copies_stay_together_whatever_their_labels():
    made = [Example(f"text {n % 20}", None, n % 3) for n in range(120)]
    train, evaluation = draw(made, 0.25, True)
    assert not {made[n].text for n in train} & {made[n].text for n in evaluation}
    assert evaluation


def test_a_class_of_one_text_trains():
    made = [*rows(30), Example("alone", None, 3), Example("alone", None, 3)]
    train, _ = draw(made, 0.5, True)
    assert {30, 31} <= set(train)
    assert draw(made[-2:], 0.5, True)[1] == []


def test_a_class_of_two_texts_is_in_both():
    made = [Example("one", None, 0), Example("two", None, 0)]
    assert [len(part) for part in draw(made, 0.01, True)] == [1, 1]
    assert [len(part) for part in draw(made, 0.99, True)] == [1, 1]
