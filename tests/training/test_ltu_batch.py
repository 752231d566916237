"""`compat: ltu`: the layout, the cut-off and the loss of the official code, in training from a recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ossicle.data import ltu_batch
from ossicle.data.collate import Collator
from ossicle.data.sample import AudioRef, FeatureFile, Sample, question
from ossicle.data.transcripts import clean
from ossicle.errors import AudioError, ConfigError, DataError
from ossicle.loss import IGNORE
from ossicle.processor import AudioProcessor
from ossicle.training.objectives.base import StageContext
from ossicle.training.recipe import Stage
from ossicle.training.run import build_objective
from ossicle.training.tokenizer import train_bpe
from ossicle.types import Waveform

WHISPER = {"kind": "whisper", "window_s": 10.0, "layers": "all", "pool": 20, "compat": "ltu"}
WHISPER["architecture"] = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
TLTR = {"kind": "tltr", "heads": 2, "time_embedding": False, "output_norm": False}
SECOND = Waveform(samples=np.zeros(16000, dtype=np.float32))


def stream(**prepend):
    return {"name": "audio", "encoder": WHISPER, "connector": TLTR, "integration": {"kind": "prepend", **prepend}}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["What is it? Rain and wind."] * 3, 330, chat_template="alpaca")


def processor(tokenizer, **prepend):
    return AudioProcessor(tokenizer, [stream(**prepend)])


def test_prompts_are_the_official_ones(tokenizer, golden_root):
    import json

    from ossicle.chat import render

    golden = json.loads((golden_root / "ltu" / "ltuas_prompts.json").read_text())
    for case in golden["prompts"]:
        turn = {"role": "user", "content": f"<audio>{case['instruction']}"}
        turn |= {"transcript": case["input"]} if case["input"] else {}
        said = [{"role": "assistant", "content": case["label"]}] if "label" in case else []
        text = render(tokenizer, [turn, *said], prompt=not said)
        assert text.removeprefix("<audio>").removesuffix(tokenizer.eos_token) == case["prompt"]
    for case in golden["transcript_cleaning"]:
        assert clean(case["raw"], "demo") == case["cleaned"]
    assert clean(" Thank you for watching. Bye ") == "Bye "


def test_text_ends_together_after_a_gap(tokenizer):
    hidden = processor(tokenizer, marker="hidden")
    rows = [
        hidden.training_ids(question(q, "Rain.", [SECOND]).messages, [16000], loss_on="all")
        for q in ("a", "What is it?")
    ]
    batch = ltu_batch.lay_out(rows, hidden)
    width = batch["input_ids"].shape[1]
    assert (width - 26) % 8 == 0
    for (ids, labels), row, mask, positions, wanted in zip(
        rows, *(batch[k] for k in ("input_ids", "attention_mask", "position_ids", "labels")), strict=True
    ):
        gap = width - len(ids)
        assert row[:26].tolist() == ids[:26] and row[26 + gap :].tolist() == ids[26:]
        assert mask.tolist() == [1] * 25 + [0] * (1 + gap) + [1] * (len(ids) - 26)
        assert positions.tolist() == [*range(25), 24, *range(25, width - 1)]
        assert wanted[26 + gap :].tolist() == (labels[26:] if gap else [IGNORE, *labels[27:]])


def test_without_a_gap_the_first_word_is_not_predicted(tokenizer):
    hidden = processor(tokenizer, marker="hidden")
    head = [hidden.audio_slot_id] * 25 + [hidden.audio_token_id]
    words = list(range(20, 36))
    batch = ltu_batch.lay_out(
        [(head + words, [IGNORE] * 26 + words), (head + words[:9], [IGNORE] * 26 + words[:9])], hidden
    )
    assert batch["labels"][0, 26:].tolist() == [IGNORE, *words[1:]]
    assert batch["labels"][1, 26:].tolist() == [IGNORE] * 7 + words[:9]


def test_a_clip_inside_the_text_is_refused(tokenizer):
    hidden = processor(tokenizer, marker="hidden")
    with pytest.raises(DataError, match="before the text"):
        ltu_batch.lay_out([([20, hidden.audio_token_id, 21], [IGNORE] * 3)], hidden)


def test_a_long_sample_loses_its_end_and_a_short_one_keeps_it(tokenizer):
    long = question("What is it?", "Rain and wind and rain and wind.", [SECOND])
    end = tokenizer.eos_token_id
    whole = Collator(processor(tokenizer), loss_on="all")([long])
    text = whole.inputs["input_ids"][0, 26:].tolist()
    assert text[-1] == end
    for limit, kept in ((len(text), text), (len(text) - 1, text[:-1]), (10, text[:10])):
        cut = Collator(processor(tokenizer), loss_on="all", cutoff_tokens=limit)([long])
        assert cut.inputs["input_ids"][0, 26:].tolist() == kept
        assert cut.inputs["labels"][0, 26:].tolist() == kept


def test_a_hidden_marker_is_as_if_it_were_not_there():
    from integration.tiny_models import MARKER, SLOT, tiny_model

    model = tiny_model(streams=[stream(marker="hidden")])
    ids = torch.tensor([[SLOT] * 25 + [MARKER, 5, 6, 7]])
    mask = (ids != MARKER).long()
    audio, lengths = torch.randn(1, 16000), torch.tensor([16000])
    with torch.no_grad():
        got = model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits[0, -3:]
        tokens = model.connect(model.encode(audio, lengths))["audio"].values
        rows = torch.cat([tokens, model.get_input_embeddings()(ids[:, -3:])], 1)
        want = model.language_model(inputs_embeds=rows).logits[0, -3:]
    assert (got - want).abs().max() < 1e-5


def objective(tmp_path, tokenizer, samples, **stage):
    """The next-token objective of a stage over given samples."""
    from types import SimpleNamespace

    from ossicle.model import AudioLM, AudioLMConfig
    from ossicle.tiny import tiny_decoder_config

    torch.manual_seed(0)
    built = processor(tokenizer, marker="hidden")
    text = tiny_decoder_config(vocab_size=len(tokenizer))
    config = AudioLMConfig(
        text, [stream(marker="hidden")], audio_token_id=built.audio_token_id, audio_slot_id=built.audio_slot_id
    )
    model = AudioLM.new(config).train()
    model.requires_grad_(False)
    model.streams["audio"].connector.requires_grad_(True)
    source = SimpleNamespace(sample=lambda index: samples[index], config=SimpleNamespace())
    data = SimpleNamespace(batch=lambda number, size: samples[:size], sources=[source], names=["x"], endless=True)
    settings = {"name": "s", "train": ["connector"], "learning_rate": 1e-3, "steps": 1, "batch_size": len(samples)}
    full = Stage(**{**settings, "loss_on": "all", "audio_dropout": 0, "audio_shuffle": 0, **stage})
    recipe = SimpleNamespace(seed=0, model=SimpleNamespace(system=None))
    context = StageContext(model=model, processor=built, recipe=recipe, stage=full, data=data)
    return build_objective(full, context)


def test_each_micro_batch_counts_once(tmp_path, tokenizer):
    samples = [question("a", "Rain.", [SECOND]), question("What is it?", "Rain and wind and rain.", [SECOND])]
    made = objective(tmp_path, tokenizer, samples, compat="ltu", micro_batch_size=1)
    losses = [made.loss(made.batch(micro)) for micro in range(2)]
    assert [loss.count for loss in losses] == [1, 1]
    ours = objective(tmp_path, tokenizer, samples, micro_batch_size=1)
    assert [ours.loss(ours.batch(micro)).count for micro in range(2)] == [ours.batch(micro).count for micro in range(2)]
    for loss in losses:  # a mean over words, not a sum
        assert 0.5 * np.log(330) < float(loss.total.detach()) < 2 * np.log(330)
    sum(loss.total for loss in losses).backward()
    assert made.context.model.streams["audio"].connector.projection[1].weight.grad.abs().sum() > 0
    lost = question("a", "Rain.", [AudioRef(path=tmp_path / "lost.wav")])
    unread = made.loss(made.collator([lost]))
    assert (float(unread.total.detach()), unread.count) == (0, 0)


@pytest.mark.parametrize(
    ("mode", "audio", "spoken"), [("joint", True, True), ("audio_only", True, False), ("text_only", False, True)]
)
def test_input_modes_in_training(tmp_path, tokenizer, mode, audio, spoken):
    turns = ({"role": "user", "content": "<audio>a", "transcript": "hello"}, {"role": "assistant", "content": "b"})
    made = objective(tmp_path, tokenizer, [Sample(messages=turns, audios=(SECOND,))], input_mode=mode)
    batch = made.batch(0)
    text = tokenizer.decode(batch.inputs["input_ids"][0])
    assert ("### Input:\nhello" in text) == spoken
    assert ("audio_values" in batch.inputs) == audio
    assert bool((batch.inputs["input_ids"] == made.context.processor.audio_slot_id).any()) == audio


def test_features_stand_for_audio(tmp_path, tokenizer):
    path = tmp_path / "x.npz"
    values = np.random.default_rng(0).normal(size=(3, 25, 16)).astype(np.float32)
    np.savez_compressed(path, values)
    made = objective(tmp_path, tokenizer, [question("a", "b", [FeatureFile(path=path)])], compat="ltu")
    batch = made.batch(0)
    kept = batch.inputs["audio_tokens"]["audio"]
    assert torch.equal(kept.values[0], torch.from_numpy(values).transpose(0, 1).flatten(1)) and kept.rate_hz == 2.5
    made.loss(batch).total.backward()
    np.savez_compressed(path, values[:2])
    with pytest.raises(DataError, match=r"features are \(2, 25, 16\), but encoder 'audio' gives \(3, 25, 16\)"):
        objective(tmp_path, tokenizer, [question("a", "b", [FeatureFile(path=path)])])
    path.write_bytes(b"PK nothing")
    with pytest.raises(AudioError, match="expected an npz"):
        FeatureFile(path=path).read()


def test_published_json_and_feature_names(tmp_path):
    import json

    from ossicle.data.readers import MessagesConfig, MessagesSource
    from ossicle.data.source import SourceContext

    folder = tmp_path / "feat"
    folder.mkdir()
    np.savez_compressed(folder / "b_c_d_x.npz", np.zeros((3, 25, 16), np.float32))
    np.savez_compressed(folder / "y.npz", np.zeros((3, 25, 16), np.float32))
    rows = [
        {
            "instruction": "q",
            "input": " Thanks for watching!",
            "audio_id": "/a/b/c/d/x.flac",
            "dataset": "s",
            "task": "t",
            "output": "o",
        },
        {"instruction": "q", "input": " Hi.", "audio_id": "other/y.wav", "dataset": "s", "task": "t", "output": "o"},
        {"instruction": "q", "input": "", "audio_id": "empty", "dataset": "s", "task": "t", "output": "o"},
    ]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    settings = MessagesConfig(path="all.json", features="feat", clean_transcripts="training")
    source = MessagesSource(settings, SourceContext(folder=tmp_path))
    samples = [source.sample(index) for index in range(3)]
    assert [sample.audios for sample in samples] == [
        (FeatureFile(path=folder / "b_c_d_x.npz"),),
        (FeatureFile(path=folder / "y.npz"),),
        (),
    ]
    assert [sample.messages[0].get("transcript") for sample in samples] == [None, "Hi.", None]
    assert samples[2].messages[0]["content"] == "q"
    (need,) = [
        n
        for n in MessagesSource.needs(settings.model_copy(update={"features": "gone"}), SourceContext(folder=tmp_path))
        if not n.present
    ]
    assert "features" in need.what


def test_disturbed_or_trained_encoders_refuse_features(tmp_path, tokenizer):
    """An encoder that trains has no kept outputs."""
    from types import SimpleNamespace

    made = objective(tmp_path, tokenizer, [question("a", "b", [SECOND])])
    context = made.context
    context.model.streams["audio"].encoder.requires_grad_(True)
    context.data.sources[0].config = SimpleNamespace(features="feat")
    with pytest.raises(ConfigError, match="trains, but source 'x' has features"):
        build_objective(context.stage, context)


def test_a_tagger_learns_from_features(tmp_path, tokenizer):
    rows = []
    for number, tags in enumerate(["Rain", "Rain; Wind"]):
        path = tmp_path / f"{number}.npz"
        np.savez_compressed(path, np.random.default_rng(number).normal(size=(3, 25, 16)).astype(np.float32))
        rows.append(replace(question("a", tags, [FeatureFile(path=path)]), label=tags))
    context = objective(tmp_path, tokenizer, rows).context
    context.data.sources = [Listed(rows)]
    stage = context.stage.model_copy(update={"objective": {"kind": "tagging", "stream": "audio", "mixup": 0.0}})
    made = build_objective(stage, replace(context, stage=stage))
    batch = made.batch(0)
    assert batch.tokens.values.shape == (2, 25, 48)
    made.loss(batch).total.backward()
    assert context.model.streams["audio"].connector.layer_tr.mlp[0].weight.grad.abs().sum() > 0


class Listed(list):
    """Samples as a source."""

    def sample(self, index):
        return self[index]


def test_compat_is_for_prepended_audio(tmp_path):
    from tiny_recipe import tiny

    with pytest.raises(ConfigError, match="stream 'sound' is not prepended"):
        tiny(tmp_path, "stages.0.compat=ltu")
