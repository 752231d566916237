"""Words and labels by models stand where the owner says nothing, marked, and are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import ossicle
from ossicle.data import hear
from ossicle.data.clip import Clip
from ossicle.data.describe import describe
from ossicle.data.hear import Hearer, labels_in
from ossicle.data.rows import Tally, read_clips, row_of, write_rows
from ossicle.data.store import Store
from ossicle.errors import CheckpointError

SCENE = Path(ossicle.__file__).parent / "world" / "demo" / "2_beeps_siren_digit.ogg"


def test_an_answer_is_taken_apart_into_labels():
    assert labels_in("Rain, then a sea wave and the rain.") == ["rain", "sea wave"]
    assert labels_in("A voice saying nine.") == labels_in("I cannot hear that.") == []


def test_what_models_hear_is_marked_and_kept_and_an_owner_is_believed(tmp_path, monkeypatch):
    hearer = Hearer(transcribe="ctc", tag="nano")
    clips = [Clip(path=SCENE, source="s"), Clip(path=SCENE, source="t", labels=("bell",), transcript="ten")]
    with Store(tmp_path / "store") as store:
        first = list(describe(clips, Tally(), store=store, hear=hearer))
        monkeypatch.setattr(hear, "_transcriber", None)  # nobody hears twice
        again = list(describe(clips, Tally(), store=store, hear=hearer))
    assert first == again
    heard, owned = first
    assert "nine" in heard.transcript.split()
    assert {"siren", "beeps"} & set(heard.labels)
    assert heard.extra == {"transcript_by": "ctc", "labels_by": "nano"}
    assert heard.facts["words_per_s"] > 0
    assert (owned.labels, owned.transcript, owned.extra) == (("bell",), "ten", {})
    write_rows(tmp_path / "clips.jsonl", map(row_of, first))
    assert next(read_clips(tmp_path / "clips.jsonl")).extra["labels_by"] == "nano"


def test_a_whisper_and_a_classifier_of_transformers(tmp_path):
    """Tiny ones of random weights, from folders."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    from inference.test_transcribe import tiny_whisper

    tiny_whisper(tmp_path / "whisper")
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(16, 20), conv_kernel=(16, 20), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        classifier_proj_size=8, id2label={0: "dog", 1: "rain", 2: "bell"}, label2id={"dog": 0, "rain": 1, "bell": 2},
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path / "tagger")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "tagger")
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    hearer = Hearer(transcribe=str(tmp_path / "whisper"), tag=str(tmp_path / "tagger"))
    (clip,) = describe([Clip(path=tmp_path / "a.wav", source="s")], Tally(), hear=hearer)
    assert len(clip.labels) == 1
    assert set(clip.labels) < {"dog", "rain", "bell"}
    assert clip.extra["labels_by"] == str(tmp_path / "tagger")
    assert clip.transcript is None or clip.extra["transcript_by"] == str(tmp_path / "whisper")
    with pytest.raises(CheckpointError, match="neither an audio LLM nor an audio classifier"):
        Hearer(tag=str(tmp_path / "nothing"))(Clip(path=tmp_path / "a.wav", source="s"), clip.read())
