"""README's table beside the tools: what they can and cannot do, shown by the tools themselves."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bpe_files import trained
from conftest import ROOT
from hf_files import tool as hf_tool

from gpu_lattice import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

TEXT = "To be, or not to be."
DRAWS = 20_000
SAMPLING = {"enable_sampling": True, "nbest_size": -1, "alpha": 0.1}


@pytest.fixture(scope="module")
def processor() -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(ROOT / "gpu_lattice" / "data" / "default.model"))


@pytest.mark.parametrize(("alpha", "right"), [(1.0, True), (0.5, False)])
def test_tokenizers_samples_exactly_for_alpha_1_only(alpha: float, right: bool) -> None:
    tool = tokenizers.Tokenizer(tokenizers.models.Unigram([("<unk>", -20.0), ("a", -3.0), ("aa", -4.0)], 0, False))
    tool.model.alpha = alpha
    found = Counter(len(tool.encode("aaaa").ids) for _ in range(DRAWS))
    weights = {4: math.exp(alpha * -12), 3: 3 * math.exp(alpha * -10), 2: math.exp(alpha * -8)}
    distance = sum(abs(found[n] / DRAWS - weight / sum(weights.values())) for n, weight in weights.items()) / 2
    assert (distance < 0.02) == right


# bytepiece leaves the file of its model open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_bytepiece_samples_exactly(alpha: float, tmp_path: Path) -> None:
    bytepiece = pytest.importorskip("bytepiece", reason="bytepiece is not installed")
    # bytepiece makes frequencies of counts, which keep the odds of "ab" against "a" and "b".
    model = tmp_path / "bytepiece.model"
    model.write_text('{"YQ==": [0, "a", 1], "Yg==": [1, "b", 1], "YWI=": [2, "ab", 1]}', "utf-8")
    tool = bytepiece.Tokenizer(str(model))
    whole = 3**-alpha / (3**-alpha + 9**-alpha)
    found = sum(len(tool.tokenize("ab", alpha=alpha)) == 1 for _ in range(DRAWS))
    assert found / DRAWS == pytest.approx(whole, abs=0.02)


def test_a_bpe_vocabulary_is_drawn_from_by_dropout() -> None:
    tool = hf_tool(trained("gpt2"))
    tool.model.dropout = 0.5
    assert len({tuple(tool.encode(TEXT).ids) for _ in range(50)}) > 1


def test_sentencepiece_repeats_draws_by_a_seed_for_calls_in_one_order(processor: Any) -> None:
    def drawn(texts: list[str]) -> list[list[int]]:
        sentencepiece.set_random_generator_seed(5)
        return [processor.encode(text, **SAMPLING) for text in texts]

    rows = drawn([TEXT] * 8)
    assert drawn([TEXT] * 8) == rows
    assert drawn(["A new dawn.", *[TEXT] * 7])[1:] != rows[1:]
    tok = Tokenizer.default(device="cpu")
    alone = tok.sample([TEXT] * 7, alpha=0.1, seed=5, doc_ids=range(1, 8)).tolist()
    assert tok.sample(["A new dawn.", *[TEXT] * 7], alpha=0.1, seed=5).tolist()[1:] == alone


def test_tokenizers_takes_no_seed() -> None:
    owners = (tokenizers, tokenizers.Tokenizer, tokenizers.models.Unigram, tokenizers.models.BPE)
    assert not [name for owner in owners for name in dir(owner) if "seed" in name.lower()]


def test_bytepiece_repeats_draws_by_a_seed() -> None:
    bytepiece = pytest.importorskip("bytepiece", reason="bytepiece is not installed")
    assert callable(bytepiece.Tokenizer.set_seed)


def test_sentencepiece_gives_no_log_probability_of_a_draw(processor: Any) -> None:
    pytest.importorskip("google.protobuf", reason="protobuf is not installed")
    assert processor.sample_encode_as_proto(TEXT, -1, 0.1).score == 0
    assert processor.nbest_encode_as_proto(TEXT, 2).nbests[0].score < 0


def test_sentencepiece_lists_the_best_segmentations_but_sums_over_none(processor: Any) -> None:
    assert len(processor.nbest_encode(TEXT, nbest_size=5)) == 5
    names = {name.lower().replace("_", "") for name in dir(processor)}
    assert not [name for name in names - {"getscore"} if "entropy" in name or "score" in name]


def test_offsets_are_in_sentencepiece_and_tokenizers(processor: Any) -> None:
    assert processor.encode("a new", return_type="offset_mapping")["offsets"]
    assert hf_tool(trained("gpt2")).encode("a new").offsets
