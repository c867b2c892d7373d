"""EM: no step makes the likelihood less, a step is the formula, and what is saved is what was fitted."""

import lzma
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import psi
from strategies import Case, cases

from gpu_lattice import TextBatch, Tokenizer, fitting
from gpu_lattice.cli import main
from gpu_lattice.vocabulary import Kind

DATA = ROOT / "tests" / "data"
RELAXED = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
TEXT = (DATA / "en.txt").read_text("utf-8").split("\n")


def expected_counts(case: Case) -> Any:
    counts = np.zeros(len(case.pieces))
    for text in case.texts:
        truth = brute_force(text, case.pieces)
        for ids, log_prob in zip(truth.ids, truth.log_probs(1.0), strict=True):
            np.add.at(counts, list(ids), math.exp(log_prob))
    return counts


@RELAXED
@given(cases(longest_text=8))
def test_one_step_gives_the_log_of_each_pieces_share(case: Case) -> None:
    if case.unk_piece is not None or not all(brute_force(text, case.pieces).ids for text in case.texts):
        return
    if not any(case.texts) or not any(score for score in case.pieces.values()):
        return
    counts = expected_counts(case)
    out = case.tokenizer().fit(case.texts, iterations=1, tolerance=0)
    if len(out.log_likelihood) < 2:
        return
    np.testing.assert_allclose(out.counts, counts, 1e-11, 1e-11)
    shares = np.exp(out.tokenizer.model.vocabulary.scores)
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)
    is_met = counts > 0.02
    ratios = shares[is_met] / counts[is_met]
    np.testing.assert_allclose(ratios, ratios[0], 1e-11)
    assert (shares[~is_met] <= ratios[0] * 0.021).all()


@RELAXED
@given(cases(longest_text=12, always_spelled=True), st.sampled_from([0.5, 1.0, 2.0]))
def test_no_step_makes_the_likelihood_less(case: Case, alpha: float) -> None:
    # The exps of scores sum to at most 1, so that they are shares.
    total = math.log(sum(math.exp(score or 0.0) for score in case.pieces.values()))
    pieces = {piece: (score or 0.0) - total for piece, score in case.pieces.items()}
    tokenizer = Tokenizer.from_pieces(pieces, unk_piece=case.unk_piece, device="cpu")
    if not any(case.texts) or not np.isfinite(tokenizer.log_partition(case.texts)).all():
        return
    if not any(piece in text for piece in pieces for text in case.texts):
        return
    out = tokenizer.fit(case.texts, iterations=8, alpha=alpha, tolerance=0)
    gains = np.diff(out.log_likelihood)
    assert (gains >= -1e-10 * np.abs(out.log_likelihood[1:])).all()


@pytest.mark.parametrize(
    "name", ["en_nmt_nfkc.model", "ja_bytes.model", "en_bpe.model", "en_split.tokenizer.json", "bytepiece.json"]
)
def test_fitted_models_are_saved_and_read_again(name: str, tmp_path: Path) -> None:
    texts = (DATA / ("ja.txt" if name.startswith("ja") else "en.txt")).read_text("utf-8").split("\n")
    tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
    out = tokenizer.fit(texts, iterations=3)
    assert (np.diff(out.log_likelihood) >= 0).all()
    assert out.log_likelihood[-1] > out.log_likelihood[0]
    path = tmp_path / "fitted"
    out.tokenizer.save(path, as_unigram=True)
    again = Tokenizer.from_file(path, device="cpu")
    for alpha in (0.1, 1.0):
        expected = out.tokenizer.sample(texts, alpha=alpha, seed=1)
        assert again.sample(texts, alpha=alpha, seed=1).tolist() == expected.tolist()
    assert again.digest != tokenizer.digest
    if tokenizer.model.merges is None:
        assert again.encode(texts).tolist() == out.tokenizer.encode(texts).tolist()
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_not_changed_is_saved_as_it_was(tmp_path: Path) -> None:
    for name in ("en_nmt_nfkc.model", "en_bpe.model", "en_split.tokenizer.json", "bytepiece.json"):
        tokenizer = Tokenizer.from_file(DATA / name, device="cpu")
        tokenizer.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_pieces_that_are_gone_are_unused_in_a_sentencepiece_model(tmp_path: Path) -> None:
    import sentencepiece

    tokenizer = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    without = tokenizer.rescored({"▁the": -np.inf, "▁of": -4.0})
    without.save(tmp_path / "m.model")
    again = Tokenizer.from_file(tmp_path / "m.model", device="cpu")
    assert again.is_unused(again.piece_to_id("▁the"))
    assert again.score(again.piece_to_id("▁of")) == -4.0
    assert again.sample(TEXT, alpha=0.2, seed=1).tolist() == without.sample(TEXT, alpha=0.2, seed=1).tolist()
    tool = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    assert tool.encode(TEXT) == again.encode(TEXT).tolist()


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    refused = [
        ("bytepiece.json", {b"a": -3.0}, "sum to 1"),
        ("en_split.tokenizer.json", {"▁the": -np.inf}, "cannot hold"),
    ]
    for name, scores, reason in refused:
        tokenizer = Tokenizer.from_file(DATA / name, device="cpu").rescored(scores)
        with pytest.raises(ValueError, match=reason):
            tokenizer.save(path)
        assert path.read_bytes() == b"before"
    with pytest.raises(ValueError, match="not made from a file"):
        Tokenizer.from_pieces(["a"], device="cpu").save(path)


def test_the_step_of_sentencepieces_trainer_is_its_formula() -> None:
    counts = np.array([0.0, 0.49, 0.5, 1.0, 3.3, 7.0, 1e6])
    total = counts[counts >= 0.5].sum()
    expected = np.where(counts >= 0.5, psi(np.maximum(counts, 0.5)) - psi(total), -np.inf)
    np.testing.assert_allclose(fitting.sentencepiece(counts), expected, 1e-8)
    tokenizer = Tokenizer.from_file(DATA / "en_nmt_nfkc.model", device="cpu")
    vocabulary = tokenizer.model.vocabulary
    out = tokenizer.fit(TEXT, iterations=1, m_step="sentencepiece")
    counts = tokenizer.lattice(TEXT).expected_counts()
    is_fitted = vocabulary.in_lattice & (vocabulary.kinds == Kind.NORMAL)
    is_kept = is_fitted & (counts >= 0.5)
    scores = out.tokenizer.model.vocabulary.scores
    expected = psi(counts[is_kept]) - psi(counts[is_kept].sum())
    np.testing.assert_allclose(scores[is_kept], expected, 1e-6)
    gone = is_fitted & ~is_kept & np.array([len(name) > 1 for name in vocabulary.names])
    assert np.isneginf(scores[gone]).all()


def test_a_step_is_that_of_the_real_trainer(tmp_path: Path) -> None:
    """The trainer with one EM step from given seeds, from which it has nothing to prune."""
    import sentencepiece

    text = "\n".join(line for line in TEXT if line.isascii())[:60_000].lower()
    words = sorted({word for word in text.split() if word.isalpha()})
    characters = sorted({c for word in words for c in word} | {"▁"})
    seeds = characters + [f"▁{word}" for word in words if 2 < len(word) < 6] + [word[:3] for word in words]
    seeds = sorted(set(seeds))
    lines = [" ".join(word for word in line.split() if word.isalpha()) for line in text.split("\n")]
    lines = [line for line in lines if line]
    given_counts = {piece: 1 + len(seeds) - i for i, piece in enumerate(seeds) if len(piece) > 1}
    # The trainer counts single characters itself, and weighs other seeds by their length.
    of_characters = Counter("".join("▁" + word for line in lines for word in line.split()))
    rows = {p: len(p) * given_counts[p] if len(p) > 1 else of_characters[p] for p in seeds}
    (tmp_path / "seeds.tsv").write_text("".join(f"{piece}\t{n}\n" for piece, n in given_counts.items()), "utf-8")
    (tmp_path / "text").write_text("\n".join(lines), "utf-8")
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), model_type="unigram",
            seed_sentencepieces_file=str(tmp_path / "seeds.tsv"), vocab_size=len(seeds) + 3, num_sub_iterations=1,
            hard_vocab_limit=False, normalization_rule_name="identity", character_coverage=1.0, minloglevel=2,
        )  # fmt: skip
    except (OSError, RuntimeError) as error:
        pytest.skip(f"this version takes no seeds: {error}")
    tool = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    theirs = {tool.id_to_piece(i): tool.get_score(i) for i in range(3, len(tool))}
    total = math.log(sum(rows.values()))
    tokenizer = Tokenizer.from_pieces({piece: math.log(n) - total for piece, n in rows.items()}, device="cpu")
    out = tokenizer.fit(["▁" + word for line in lines for word in line.split()], iterations=1, m_step="sentencepiece")
    ours = dict(zip(rows, out.tokenizer.model.vocabulary.scores.tolist(), strict=True))
    shared = [piece for piece in theirs if piece in ours and len(piece) > 1 and np.isfinite(ours[piece])]
    assert len(shared) > 100
    # After the step it leaves out a few more, which others spell as well.
    kept = {piece for piece in ours if len(piece) > 1 and np.isfinite(ours[piece])}
    assert kept >= {piece for piece in theirs if len(piece) > 1}
    assert len(kept) - len(shared) < 10
    np.testing.assert_allclose([ours[p] for p in shared], [theirs[p] for p in shared], atol=2e-5)


def test_texts_come_in_any_form_and_threads_do_not_matter() -> None:
    tokenizer = Tokenizer.default(device="cpu", threads=1)

    def batches() -> Iterator[Any]:
        for start in range(0, len(TEXT), 50):
            yield TEXT[start : start + 50]

    whole = tokenizer.fit(TEXT, iterations=2)
    for texts in (iter(TEXT), TextBatch.from_texts(TEXT)):
        assert tokenizer.fit(texts, iterations=2).log_likelihood == whole.log_likelihood
    assert tokenizer.fit(batches(), iterations=2).log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-12)
    many = Tokenizer.default(device="cpu", threads=4).fit(TEXT, iterations=2)
    assert many.log_likelihood == whole.log_likelihood
    assert np.array_equal(many.tokenizer.model.vocabulary.scores, whole.tokenizer.model.vocabulary.scores)
    assert "in 2 steps" in repr(whole)


def test_the_rarest_are_given_up_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MOST_SEGMENTS", 300)
    out = Tokenizer.default(device="cpu").fit(TEXT, iterations=1)
    assert out.num_pruned > 0
    assert out.num_segments <= 300


def test_it_ends_when_a_step_gains_little() -> None:
    out = Tokenizer.default(device="cpu").fit(TEXT, iterations=200, tolerance=1e-3)
    assert out.has_converged
    assert len(out.log_likelihood) < 50


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"iterations": 0}, "iterations"),
        ({"alpha": 0}, "alpha is 0"),
        ({"m_step": "other"}, "m_step"),
        ({"tolerance": -1}, "tolerance"),
    ],
)
def test_options_are_checked(options: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Tokenizer.default(device="cpu").fit(["a"], **options)


def test_no_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="no text"):
        Tokenizer.default(device="cpu").fit([None, ""])


def test_the_command_writes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress("\n".join(TEXT[:200]).encode()))
    model, output = str(DATA / "en_nmt_nfkc.model"), str(tmp_path / "new.model")
    arguments = ["fit", str(tmp_path / "a.txt.xz"), "--model", model, "-o", output, "--iterations", "2"]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "step 2: log-likelihood" in capsys.readouterr().out
    assert Tokenizer.from_file(output, device="cpu").encode("a new dawn").tolist()
    assert main(["fit", str(tmp_path / "none"), "-o", output]) == 2


def test_byte_level_merges_become_a_unigram_tokenizer_json(tmp_path: Path) -> None:
    import json

    import tokenizers
    from bpe_files import trained

    data = json.dumps(trained("gpt2")).encode()
    fitted = Tokenizer.from_bytes(data, device="cpu").fit(TEXT, iterations=2).tokenizer
    fitted.save(tmp_path / "tokenizer.json", as_unigram=True)
    again = Tokenizer.from_file(tmp_path, device="cpu")
    assert again.model.merges is None
    for operation in ("log_partition", "entropy"):
        np.testing.assert_allclose(getattr(again, operation)(TEXT), getattr(fitted, operation)(TEXT), 1e-11, 1e-11)
    tool = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [row.ids for row in tool.encode_batch(TEXT)] == again.encode(TEXT).tolist()
