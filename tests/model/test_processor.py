"""Tags become slots and markers; labels fall on answers; mistakes are one clear line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.errors import DataError
from ossicle.processor import AudioProcessor


def test_one_marker_per_clip_and_as_many_slots_as_tokens(engine, waves):
    processor = engine.processor
    batch = processor(text=["<audio>a", "x<audio>b<audio>"], audio=waves)
    for row, clips in zip(batch["input_ids"], (waves[:1], waves[1:]), strict=True):
        assert int((row == processor.audio_token_id).sum()) == len(clips)
        slots = sum(processor.num_slots(len(wave.samples)) for wave in clips)
        assert int((row == processor.audio_slot_id).sum()) == slots
    assert batch["audio_lengths"].tolist() == [len(wave.samples) for wave in waves]
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][0, -1] == 1
    out = engine.model(**batch)
    assert torch.isfinite(out.logits).all()


def test_padding_sides(engine, waves):
    right = engine.processor(text=["<audio>a", "x<audio>b<audio>"], audio=waves, padding_side="right")
    assert right["attention_mask"][0, 0] == 1 and right["attention_mask"][0, -1] == 0


@pytest.mark.parametrize(
    ("text", "clips", "match"),
    [
        ("no tag", 1, "0 <audio> tags, but 1 clips"),
        ("<audio><audio>", 1, "2 <audio> tags, but 1 clips"),
        ("<audio>", 0, "1 <audio> tags, but 0 clips"),
        ("<audio> <|audio|>", 1, "special token"),
    ],
)
def test_mismatches_are_one_line(engine, waves, text, clips, match):
    with pytest.raises(DataError, match=match) as error:
        engine.processor(text=text, audio=waves[:clips])
    assert "\n" not in str(error.value)


def test_unknown_keywords_raise(engine, waves):
    with pytest.raises(TypeError, match="audios"):
        engine.processor(text="<audio>", audios=waves[:1])


def test_labels_fall_on_answers_only(engine):
    processor, said = engine.processor, "A dog barks."
    messages = [
        {"role": "user", "content": "<audio>What do you hear?"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "Then?"},
        {"role": "assistant", "content": "rain"},
    ]
    ids, labels = processor.training_ids(messages, [4000])
    assert len(ids) == len(labels)
    spoken = processor.tokenizer.decode([token for token in labels if token != -100], skip_special_tokens=True)
    assert spoken == said + "rain"
    ids_all, labels_all = processor.training_ids(messages, [4000], loss_on="all")
    assert ids_all == ids
    quiet = {processor.audio_token_id, processor.audio_slot_id}
    assert [token for token in labels_all if token != -100] == [token for token in ids if token not in quiet]
    with pytest.raises(DataError, match="no <audio> tag"):
        processor.training_ids(messages, [4000, 4000])


def test_prompt_is_a_prefix_of_training(engine):
    messages = [{"role": "user", "content": "<audio>What do you hear?"}, {"role": "assistant", "content": "rain"}]
    prompt = engine.processor.prompt_ids(messages[:1], [4000])
    ids, labels = engine.processor.training_ids(messages, [4000])
    assert ids[: len(prompt)] == prompt and all(label == -100 for label in labels[: len(prompt)])


def test_typed_parts_and_other_rates(engine, tmp_path):
    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000, np.float32), 8000)
    parts = [{"type": "audio", "path": str(path)}, {"type": "text", "text": "What?"}]
    batch = engine.processor.chat([[{"role": "user", "content": parts}]])
    assert batch["audio_lengths"].tolist() == [16000]
    array = engine.processor(text="<audio>", audio=[np.zeros(4000, np.float32)], sampling_rate=8000)
    assert array["audio_lengths"].tolist() == [8000]


@pytest.mark.parametrize("change", [torch.Tensor.bfloat16, torch.Tensor.requires_grad_], ids=["bf16", "with-gradient"])
def test_a_tensor_is_heard_wherever_it_comes_from(engine, change):
    sound = torch.linspace(-0.5, 0.5, 4000)
    heard = engine.processor.audio_inputs([change(sound.clone()), sound.numpy()])["audio_values"]
    torch.testing.assert_close(heard[0], heard[1], atol=2e-3, rtol=0)


def test_saved_and_reloaded(engine, tmp_path, waves):
    engine.processor.save_pretrained(tmp_path)
    again = AudioProcessor.from_pretrained(tmp_path)
    a, b = (p(text="<audio>What?", audio=waves[:1]) for p in (engine.processor, again))
    assert torch.equal(a["input_ids"], b["input_ids"])
