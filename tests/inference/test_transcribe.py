"""Transcripts and input modes: what is read into the prompt, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ossicle.cli.app import run
from ossicle.errors import CheckpointError, ConfigError
from ossicle.inference.engine import load
from ossicle.inference.transcribe import CtcTranscriber, Hearing, WhisperTranscriber, hearing, open_transcriber
from ossicle.types import Waveform


@pytest.fixture(scope="module")
def digit():
    """The bundled scene in which a woman says nine."""
    from pathlib import Path

    import ossicle

    return Path(ossicle.__file__).parent / "world" / "demo" / "2_beeps_siren_digit.ogg"


def test_nano_reads_the_digit(digit):
    from ossicle.audio.io import load_audio

    read = CtcTranscriber()
    assert "nine" in read(load_audio(digit)).split()
    assert read(Waveform(samples=np.zeros(16000, dtype=np.float32))) == ""


def tiny_whisper(folder):
    """Write a Whisper of random weights."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from ossicle.training.tokenizer import train_bpe

    config = WhisperConfig(
        vocab_size=330, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=24, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    train_bpe(["rain"] * 3, 330).save_pretrained(folder)


def test_a_whisper_decoder_reads_windows(tmp_path):
    """A tiny one of random weights: every window is decoded, phrases of silence are taken out."""
    tiny_whisper(tmp_path)
    read = WhisperTranscriber(str(tmp_path))
    asked = []
    original = read.model.generate
    read.model.generate = lambda **inputs: asked.append(inputs["input_features"].shape) or original(**inputs)
    wave = Waveform(samples=np.random.default_rng(0).normal(size=31 * 16000).astype(np.float32))
    assert read(wave) == read(wave)
    assert asked == [(1, 80, 3000)] * 2  # two windows, once
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_transcriber(str(tmp_path / "nothing"))


def test_modes_decide_what_a_question_carries(digit):
    engine = load("nano", device="cpu")
    wave = Waveform(samples=np.zeros(16000, dtype=np.float32))
    joint = engine.answer([(wave, "What do you hear?")], max_new_tokens=2)[0]
    assert (joint.transcript, joint.audio_tokens > 0) == ("", True)
    for mode, read, heard in (("joint", "nine", True), ("audio_only", "", True), ("text_only", "nine", False)):
        engine.hearing = Hearing(mode=mode, given="nine")
        answer = engine.answer([(wave, "What do you hear?")], max_new_tokens=2)[0]
        assert (answer.transcript, answer.audio_tokens > 0) == (read, heard)
        blind = engine.answer([(None, "What do you hear?")], max_new_tokens=2)[0]
        assert (blind.transcript, blind.audio_tokens) == ("", 0)


def test_what_cannot_be_is_refused_in_one_line(digit, capsys):
    with pytest.raises(ConfigError, match="expected joint, audio_only or text_only"):
        hearing("both")
    assert run(["ask", str(digit), "--input-mode", "text_only"]) == 2
    assert "nothing to read" in capsys.readouterr().err
    assert run(["eval", "nano", "--suite", "nano", "--root", str(digit.parent), "--input-mode", "text_only"]) == 2
    assert "nothing to read" in capsys.readouterr().err


def test_ask_shows_what_it_read(digit, capsys):
    assert run(["ask", str(digit), "Which digit is spoken?", "--transcribe", "ctc", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "nine" in result["transcript"]
