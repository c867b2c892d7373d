"""`as_hf` gives what transformers' fast tokenizer gives for the same file, and what its common tests ask for."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA
from hf_files import METASPACE, added_token, tokenizer_file

from gpu_lattice import Tokenizer

transformers = pytest.importorskip("transformers", minversion="5", reason="transformers is absent")

TEXTS = ["a b", "", "ba ab aab b", "漢 a", "ab " * 9]
PAIRS = ["b", "a", "", "bab", "a"]
NAMES = {"<s>": 7, "</s>": 8, "<pad>": 9, "<mask>": 10}


def template(*parts: tuple[str, int]) -> list[Any]:
    kinds = {True: "Sequence", False: "SpecialToken"}
    return [{kinds[name in "AB"]: {"id": name, "type_id": kind}} for name, kind in parts]


FILE: dict[str, Any] = tokenizer_file(
    pre_tokenizer=METASPACE,
    added_tokens=[added_token(0, "<unk>", special=True), *(added_token(i, n, special=True) for n, i in NAMES.items())],
    post_processor={
        "type": "TemplateProcessing",
        "single": template(("<s>", 0), ("A", 0), ("</s>", 0)),
        "pair": template(("<s>", 0), ("A", 0), ("</s>", 0), ("B", 1), ("</s>", 1)),
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in NAMES.items()},
    },
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    path.write_text(json.dumps(FILE), "utf-8")
    tool = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>",
    )  # fmt: skip
    return Tokenizer.from_file(path, device="cpu").as_hf(), tool


def listed(encoding: Any) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() if hasattr(value, "shape") else value for name, value in encoding.items()}


ALL = {"return_token_type_ids": True, "return_special_tokens_mask": True, "return_offsets_mapping": True}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": True},
        {"padding": "max_length", "max_length": 9, "truncation": True},
        {"padding": True, "truncation": True, "max_length": 8, "pad_to_multiple_of": 4},
        {"truncation": "only_first", "max_length": 10},
        {"truncation": "longest_first", "max_length": 6, "return_attention_mask": False},
        {"padding": True, "return_tensors": "np"},
        {"return_length": True},
    ],
    ids=str,
)
def test_calls_give_what_transformers_gives(both: Any, options: dict[str, Any], special: bool, side: str) -> None:
    ours, tool = both
    for one in both:
        one.padding_side = one.truncation_side = side
    texts = [text for text in TEXTS if text]
    offsets = {} if "return_tensors" in options else {"return_offsets_mapping": True}
    for pair in (None, [*PAIRS[:2], *PAIRS[2:-1]][: len(texts)]):
        given = ALL | {"return_offsets_mapping": bool(offsets), "add_special_tokens": special} | options
        assert listed(ours(texts, pair, **given)) == listed(tool(texts, pair, **given))
        one = {name: value for name, value in given.items() if name != "return_tensors"}
        assert listed(ours(texts[0], pair and "b", **one)) == listed(tool(texts[0], pair and "b", **one))
    for one in both:
        one.padding_side = one.truncation_side = "right"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("padding", [False, True, "max_length"])
def test_what_overflows_makes_rows_as_in_transformers(both: Any, padding: Any, side: str) -> None:
    texts = [text for text in TEXTS if text]
    for one in both:
        one.padding_side = one.truncation_side = side
    for room, stride in itertools.product((5, 7), (0, 1, 2)):
        for special in (True, False):
            options = ALL | {"padding": padding, "truncation": True, "max_length": room + 2 * special, "stride": stride}
            options |= {"add_special_tokens": special, "return_overflowing_tokens": True, "return_length": True}
            for given in (texts, texts[-1], "a"):
                mine, its = (listed(one(given, **options)) for one in both)
                assert mine == its
    for one in both:
        one.padding_side = one.truncation_side = "right"


def test_ids_and_tokens_convert_as_in_transformers(both: Any) -> None:
    ours, tool = both
    assert len(ours) == len(tool)
    assert ours.get_vocab() == tool.get_vocab()
    assert ours.all_special_ids == tool.all_special_ids
    assert ours.all_special_tokens == tool.all_special_tokens
    for which in ("bos", "eos", "pad", "unk", "mask"):
        assert getattr(ours, f"{which}_token") == getattr(tool, f"{which}_token")
        assert getattr(ours, f"{which}_token_id") == getattr(tool, f"{which}_token_id")
    tokens = ["▁a", "ab", "no such token", "<s>"]
    assert ours.convert_tokens_to_ids(tokens) == tool.convert_tokens_to_ids(tokens)
    assert ours.convert_tokens_to_ids("ab") == tool.convert_tokens_to_ids("ab")
    ids = [7, 5, 1, 2, 8]
    for skip in (True, False):
        assert ours.convert_ids_to_tokens(ids, skip_special_tokens=skip) == tool.convert_ids_to_tokens(
            ids, skip_special_tokens=skip
        )
    assert ours.convert_ids_to_tokens(5) == tool.convert_ids_to_tokens(5)
    for text in TEXTS:
        assert ours.tokenize(text) == tool.tokenize(text)
        assert ours.encode(text) == tool.encode(text)
    assert ours.encode("a", "b") == tool.encode("a", "b")
    for pair in (True, False):
        assert ours.num_special_tokens_to_add(pair) == tool.num_special_tokens_to_add(pair)


def test_padding_alone_is_that_of_transformers(both: Any) -> None:
    ours, tool = both
    rows = {"input_ids": [[1, 2, 3], [4]]}
    assert listed(ours.pad(rows, padding="max_length", max_length=5)) == listed(
        tool.pad(rows, padding="max_length", max_length=5)
    )


def test_options_that_are_not_supported_are_refused(both: Any) -> None:
    ours, _ = both
    with pytest.raises(ValueError, match="return_overflowing_tokens is not supported for pairs"):
        ours("a", "b", return_overflowing_tokens=True)
    with pytest.raises(ValueError, match="stride is 4, and a row has room for 4 ids"):
        ours("ab " * 9, return_overflowing_tokens=True, truncation=True, max_length=6, stride=4)
    with pytest.raises(ValueError, match="is_split_into_words is not supported"):
        ours([["a"]], is_split_into_words=True)
    with pytest.raises(ValueError, match="text holds a int: 3; give str"):
        ours([3])
    with pytest.raises(NotImplementedError, match=r"use Tokenizer\.add_tokens"):
        ours.add_tokens(["x"])
    with pytest.raises(ValueError, match="one text cannot be cut so far"):
        ours("a", "ba ab aab b", truncation="only_first", max_length=5)
    with pytest.raises(ValueError, match="does not say how a pair of texts becomes one row"):
        Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu").as_hf()("a", "b")


def test_what_is_saved_is_read_by_both(both: Any, tmp_path: Path) -> None:
    ours, tool = both
    (tmp_path / "other").write_text("of another program")
    (tmp_path / "tokenizer_config.json").symlink_to("other")
    ours.save_pretrained(tmp_path)
    assert (tmp_path / "other").read_text() == "of another program"
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS)["input_ids"] == tool(TEXTS)["input_ids"]
    assert again.pad_token == "<pad>"
    assert Tokenizer.from_file(tmp_path, device="cpu").as_hf()(TEXTS)["input_ids"] == tool(TEXTS)["input_ids"]


def test_a_collator_of_transformers_takes_it(both: Any) -> None:
    pytest.importorskip("torch", reason="torch is absent")
    ours, tool = both
    rows = [{"input_ids": ids} for ids in ours(TEXTS)["input_ids"]]
    batches = [transformers.DataCollatorWithPadding(one)(rows) for one in (ours, tool)]
    assert batches[0]["input_ids"].tolist() == batches[1]["input_ids"].tolist()
    assert batches[0]["attention_mask"].tolist() == batches[1]["attention_mask"].tolist()


def test_samples_are_fresh_in_each_call_and_spell_the_text() -> None:
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    sampler = tok.as_hf(alpha=0.1)
    text = "This is a test for subword regularization."
    drawn = {tuple(sampler(text)["input_ids"]) for _ in range(20)}
    assert len(drawn) > 10
    assert {sampler.decode(list(ids)) for ids in drawn} == {text}
    assert sampler.batch_decode([list(ids) for ids in drawn]) == [text] * len(drawn)


def test_data_sets_are_mapped_and_transformed() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is absent")
    tok = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    data = datasets.Dataset.from_dict({"text": ["the end", "of the world", "a test"] * 4})
    expected = tok.encode(data["text"][:]).tolist()
    rows = data.map(lambda batch: {"ids": tok.encode(batch["text"]).tolist()}, batched=True)
    assert rows["ids"][:] == expected
    arrow = data.with_format("arrow")[:]["text"]
    assert tok.encode(arrow).tolist() == expected
    fresh = data.with_transform(lambda batch: {"ids": tok.sample(batch["text"]).tolist()})
    assert len({tuple(fresh[1]["ids"]) for _ in range(20)}) > 3
    one = data.map(lambda batch: tok.as_hf()(batch["text"]), batched=True)
    assert one["input_ids"][:] == expected
