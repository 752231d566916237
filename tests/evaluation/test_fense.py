"""FENSE with tiny models in the layout of the published ones, against values worked out by hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ossicle.evaluation import fense
from ossicle.evaluation.caption_metrics import caption_metrics

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "barks", "rain", "a"]
MEANINGS = {"dog": [1, -1, 1, -1], "barks": [1, 1, -1, -1], "rain": [1, -1, -1, 1]}
"""Orthogonal, with mean 0 and variance 1, so that a layer norm leaves them as they are."""
CAPTIONS = ["dog", "dog rain", "Rain!"]
REFERENCES = [["dog barks", "dog"], ["rain"], ["barks"]]
BY_HAND = [(math.sqrt(0.5) + 1) / 2, math.sqrt(0.5), 0.0]
"""Cosines: dog with dog + barks is 1/√2, with itself 1; dog + rain with rain 1/√2; rain with barks 0."""


def tokenizer(*, lower: bool = False) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if lower:
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("!", "")])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def bert(layers: int) -> BertModel:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=4,
        num_hidden_layers=layers,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=80,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape))
    return model


@pytest.fixture
def folder(tmp_path):
    """A sentence encoder of no layers, whose words are the vectors above, and a detector that finds nothing broken."""
    model = bert(0)
    with torch.no_grad():
        for parameters in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
            parameters.weight.zero_()
        model.embeddings.word_embeddings.weight.zero_()
        for word, vector in MEANINGS.items():
            model.embeddings.word_embeddings.weight[WORDS.index(word)] = torch.tensor(vector, dtype=torch.float32)
    place = tmp_path / "paraphrase-TinyBERT-L6-v2"
    model.save_pretrained(place)
    tokenizer(lower=True).save_pretrained(place)
    write_detector(tmp_path, bert(1), weight=0.0, bias=-5.0)
    return tmp_path


def write_detector(folder, encoder: BertModel, *, weight: float, bias: float) -> torch.nn.Linear:
    judge = torch.nn.Linear(4, 6)
    with torch.no_grad():
        judge.weight.mul_(weight)
        judge.bias.fill_(bias)
        judge.bias[:5] = 5.0  # the other five kinds of error are not asked
    encoder.save_pretrained(folder / "tiny-bert")
    tokenizer().save_pretrained(folder / "tiny-bert")
    states = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    states |= {f"clf.{name}": value for name, value in judge.state_dict().items()}
    states["encoder.embeddings.position_ids"] = torch.arange(80)[None]  # as the published file has it
    torch.save({"model_type": "tiny-bert", "num_classes": 6, "state_dict": states}, folder / fense.DETECTOR)
    return judge


def test_fense_by_hand(folder):
    assert fense.fense(CAPTIONS, REFERENCES, folder) == pytest.approx(BY_HAND, abs=1e-6)


def test_a_broken_caption_keeps_a_tenth(folder):
    write_detector(folder, bert(1), weight=0.0, bias=math.log(0.91 / 0.09))  # sigmoid 0.91
    assert fense.fense(CAPTIONS, REFERENCES, folder) == pytest.approx([value / 10 for value in BY_HAND], abs=1e-6)
    write_detector(folder, bert(1), weight=0.0, bias=math.log(0.89 / 0.11))
    assert fense.fense(CAPTIONS, REFERENCES, folder) == pytest.approx(BY_HAND, abs=1e-6)


def test_the_detector_reads_plain_words_and_padding_changes_nothing(folder):
    encoder = bert(1)
    judge = write_detector(folder, encoder, weight=4.0, bias=0.0)
    captions = ["dog", "A dog barks, a dog barks.", "rain"] * 20
    found = fense.error_probabilities(captions, folder / fense.DETECTOR)
    alone = []
    for words in (["dog"], ["a", "dog", "barks", "a", "dog", "barks"], ["rain"]):
        ids = torch.tensor([[2, *map(WORDS.index, words), 3]])
        with torch.inference_mode():
            alone.append(judge(encoder(ids).last_hidden_state[:, 0])[0, -1].sigmoid().item())
    assert found == pytest.approx(np.tile(alone, 20), abs=1e-5)
    assert np.ptp(alone) > 0.01, "the detector does hear the words"


@pytest.mark.usefixtures("no_java")
def test_captions_are_measured_where_the_models_lie(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "aac_metrics.functional.fense", None)
    monkeypatch.setenv("FENSE_DATA", str(folder))
    found = caption_metrics(CAPTIONS, REFERENCES)
    assert found["fense"] == pytest.approx(sum(BY_HAND) / 3, abs=1e-6)
    assert "fense" not in found["not_measured"]
    monkeypatch.setenv("FENSE_DATA", str(folder / "nowhere"))
    reason = caption_metrics(CAPTIONS, REFERENCES)["not_measured"]["fense"]
    assert "nowhere/echecker_clotho_audiocaps_base.ckpt" in reason
    assert "FENSE_DATA" in reason


def test_what_is_missing_or_does_not_fit_is_named(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stored = torch.load(folder / fense.DETECTOR, weights_only=True)
    stored["model_type"] = "not-there-bert"
    torch.save(stored, folder / fense.DETECTOR)
    monkeypatch.setenv("FENSE_DATA", str(folder))
    value, reason = fense.measure(CAPTIONS, REFERENCES)
    assert value is None
    assert "FENSE needs not-there-bert" in reason
    write_detector(folder, bert(1), weight=0.0, bias=0.0)
    stored = torch.load(folder / fense.DETECTOR, weights_only=True)
    del stored["state_dict"]["clf.weight"]
    torch.save(stored, folder / fense.DETECTOR)
    value, reason = fense.measure(CAPTIONS, REFERENCES)
    assert value is None
    assert "loading state_dict" in reason
