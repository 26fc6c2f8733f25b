"""A query is one text to the model: prompt and completion are cut into tokens together, and what that costs is told."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from gindex.corpus.tokens import tokenize
from gindex.errors import QueryError
from gindex.queries.next_tokens import predicted_texts
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_all, tokenize_query
from gindex.search.query_vectors import EncodedQuery
from tests.support.objectives import first_counted, ids_of

TEXTS = [
    'the compiler is a program that turns (B) x = "y" into 2+2=4\nHello un believable line one\nline two é 日本 😀 ',
    "A race condition is a bug; un believable un likely  two spaces",
] * 40


def sentencepiece_like(scheme: str, *, end: bool = False) -> PreTrainedTokenizerFast:
    """Words begin with a mark, which is put in front of the first one too; bytes stand for rare characters."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if scheme == "legacy" else scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*special, *bytes_], limit_alphabet=50)
    tokenizer.train_from_iterator(TEXTS, trainer)
    if scheme == "legacy":  # the marks are put by the normaliser, and a token may hold several words
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    template = "<s> $A </s>" if end else "<s> $A"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def byte_level(*, trim: bool = False, composed: bool = False) -> PreTrainedTokenizerFast:
    """No beginning is added; with `trim`, offsets leave the space before a word out."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<|im_start|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS = {
    "legacy": sentencepiece_like("legacy"),
    "first": sentencepiece_like("first"),
    "always": sentencepiece_like("always"),
    "ends": sentencepiece_like("first", end=True),
    "bytes": byte_level(),
    "trimmed": byte_level(trim=True),
    "composed": byte_level(composed=True),
}
BEGUN = ("legacy", "first", "always", "ends")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model that predicts the next token, as far as queries are read."""

    tokenizer: Any
    max_tokens: int
    vocabulary: int = 10_000
    query_forms = ("completion",)

    def query_texts(self, query, form, limit):
        return predicted_texts(query, form, self, limit)


def cut(name, prompt, completion=None, *, max_tokens=10_000, **options):
    """Tokens of a query; of a loaded model only these two fields are read."""
    loaded = Reader(tokenizer=TOKENIZERS[name], max_tokens=max_tokens)
    return tokenize_query(Query(prompt=prompt, completion=completion), loaded, **options)


def read(name, ids) -> str:
    return TOKENIZERS[name].decode(ids, clean_up_tokenization_spaces=False)


def counted(name, found) -> str:
    """The text of the tokens that count, as what they add to the text before them."""
    ids = ids_of(found).tolist()
    return read(name, ids)[len(read(name, ids[: first_counted(found)])) :]


def told(found, words) -> bool:
    return any(words in note for note in found.notes)


TEXT = st.text(st.sampled_from('abe un\n=("é日本😀\u0301\u200dxB42.'), max_size=12)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(prompt=TEXT, completion=TEXT)
def test_the_tokens_are_those_of_the_whole_text_and_the_completion_counts(name, prompt, completion):
    """The tokens that count read the completion exactly, unless a note says that the first holds more."""
    ((whole, _),) = tokenize(TOKENIZERS[name], [prompt + completion])
    whole = whole[: len(whole) - (name == "ends")]  # the end that the tokenizer adds is nothing that was said
    try:
        found = cut(name, prompt, completion)
    except QueryError:
        assert len(whole) <= 1 or not completion.strip("\u0301"), "a completion that has tokens is not refused"
        return
    assert ids_of(found).tolist() == whole
    split = told(found, "counts as a whole")
    lost = told(found, "does not count")
    assert not lost or (first_counted(found) == 1 and name not in BEGUN)
    if split or lost or name == "composed" or "�" in read(name, whole[: first_counted(found)]):
        return
    mark = " " if not prompt and name in BEGUN else ""  # the one that such a tokenizer puts before the first word
    assert counted(name, found) in (completion, mark + completion)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_space_comes_between_prompt_and_completion(name):
    for prompt, completion in [
        ("A compiler is", " a program"),
        ("2+2=", "4"),
        ("line one\n", "line two"),
        ("x = ", '"y"'),
    ]:
        found = cut(name, prompt, completion)
        assert ids_of(found).tolist()[-3:] == TOKENIZERS[name](prompt + completion).input_ids[: len(ids_of(found))][-3:]
        assert told(found, "counts as a whole") or counted(name, found) == completion


@pytest.mark.parametrize("name", ["bytes", "trimmed", "first"])
def test_a_space_at_the_end_of_the_prompt_is_told(name):
    """It is in the first token of the completion, whether or not offsets say so."""
    found = cut(name, "A compiler is ", "a program")
    (note,) = found.notes
    assert "the token ' a' holds the end of the prompt, ' '" in note and "move it to the completion" in note
    assert counted(name, found) == " a program"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_completion_without_its_space_is_told(name):
    note = "the completion goes on without a space, as in 'ompiler isa program'"
    assert told(cut(name, "A compiler is", "a program"), note)
    for prompt, completion in [
        ("A compiler is", " a"),
        ("日", "本 a"),
        ("(", "B)"),
        ("is ", "a"),
        ("is\n", "a"),
        ("is", ".a"),
    ]:
        assert not told(cut(name, prompt, completion), "without a space")


def test_a_token_that_ends_in_the_middle_of_a_character():
    """Byte-level tokens may hold parts of two characters."""
    found = cut("bytes", "日", "本")
    assert told(found, "the token '日本' holds the end of the prompt, '日'") or counted("bytes", found) == "本"
    assert counted("bytes", cut("bytes", "a ", "😀")) in ("😀", " 😀")


@pytest.mark.parametrize("name", BEGUN)
def test_one_beginning_and_no_end(name):
    begin, end = TOKENIZERS[name].bos_token_id, TOKENIZERS[name].eos_token_id
    for prompt in ("the compiler", "<s>the compiler", ""):
        found = cut(name, prompt, " is a program")
        assert ids_of(found).tolist().count(begin) == 1 and ids_of(found)[0] == begin and end not in ids_of(found)
        assert counted(name, found).strip() == "is a program" and not found.notes
    found = cut(name, "", "the compiler")
    assert first_counted(found) == 1 and read(name, ids_of(found)[1:]).strip() == "the compiler"


def test_documents_get_one_beginning_too():
    (plain, begun, twice) = tokenize(TOKENIZERS["always"], ["the stack", "<s>the stack", "<s><s>the stack"])
    assert plain[0] == begun[0] and twice[0] == [1, *plain[0]]
    assert begun[1][0] == (0, 3) and plain[1][0] == (0, 0)


@pytest.mark.parametrize("name", ["bytes", "trimmed"])
def test_a_first_token_that_nothing_predicts_is_told(name):
    found = cut(name, "", "the compiler")
    assert first_counted(found) == 1 and told(found, "the token 'the' does not count")
    with pytest.raises(QueryError, match="a token to predict after the first"):
        cut(name, "", "the")
    whole = cut(name, "believ", "able")
    assert told(whole, "without a space") and (first_counted(whole) > 1 or told(whole, "does not count"))
    assert not cut(name, "the compiler").notes  # as of a document: its first token is never predicted


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_too_long_loses_the_beginning_of_its_prompt(name):
    prompt, completion = "un believable " * 30 + "the compiler is", " a program"
    whole, beginning = cut(name, prompt, completion), int(name in BEGUN)
    found = cut(name, prompt, completion, max_tokens=20, long_queries="cut")
    assert len(ids_of(found)) == 20 and ids_of(found)[:beginning].tolist() == ids_of(whole)[:beginning].tolist()
    assert ids_of(found)[beginning:].tolist() == ids_of(whole)[beginning - 20 :].tolist()
    assert ids_of(found)[first_counted(found) :].tolist() == ids_of(whole)[first_counted(whole) :].tolist()
    left_out = len(ids_of(whole)) - 20
    assert told(
        found, f"of {len(ids_of(whole))} tokens the first {left_out} are left out, to keep 20 tokens, which the model"
    )
    limited = cut(name, prompt, completion, max_tokens=20, long_queries="cut")
    assert ids_of(limited).tolist() == ids_of(found).tolist()
    with pytest.raises(
        QueryError, match=f"expected at most 20 tokens, which the model takes, found {len(ids_of(whole))}"
    ):
        cut(name, prompt, completion, max_tokens=20)
    alone = cut(name, prompt, max_tokens=20, long_queries="cut")
    assert len(ids_of(alone)) == 20 and first_counted(alone) == 1 and told(alone, "are left out and do not count")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_completion_is_never_cut(name):
    whole = cut(name, "the", " program" * 30)
    counts = len(ids_of(whole)) - first_counted(whole)
    fits = cut(name, "the compiler is" * 9, " program" * 30, max_tokens=counts + 1, long_queries="cut")
    assert first_counted(fits) == 1 and len(ids_of(fits)) == counts + 1
    with pytest.raises(QueryError, match=f"expected at most {counts} tokens, .* found {counts} in the completion"):
        cut(name, "the", " program" * 30, max_tokens=counts, long_queries="cut")


def test_words_are_those_of_the_whole_text_too():
    query = Query(prompt="un", completion="believable")
    tokens = cut("bytes", query.prompt, query.completion)
    assert EncodedQuery(query=query, vector_D=torch.zeros(1), tokens=tokens).words == query.text == "unbelievable"


def test_many_queries_tell_once_how_many_have_notes(caplog):
    loaded = Reader(tokenizer=TOKENIZERS["bytes"], max_tokens=100)
    queries = [Query(prompt="A compiler is", completion=text) for text in (" a", "a", "the")]
    assert [len(tokens.notes) for tokens in tokenize_all(queries, loaded)] == [0, 1, 1]
    (record,) = caplog.records
    assert record.getMessage().startswith("notes on 2 of 3 queries, the first: the completion goes on without a space")


def test_a_limit_below_the_models():
    found = cut("bytes", "the stack " * 9, "x", max_tokens=100, long_queries="cut")
    assert len(ids_of(found)) > 8
    loaded = Reader(tokenizer=TOKENIZERS["bytes"], max_tokens=100)
    query = Query(prompt="the stack " * 9, completion="x", id="q")
    assert len(tokenize_query(query, loaded, long_queries="cut", max_tokens=8).objective) == 8
    with pytest.raises(QueryError, match="query q: expected at most 8 tokens, which are allowed here"):
        tokenize_query(query, loaded, max_tokens=8)
