"""HuBERT, wav2vec 2.0 and WavLM against transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from ossicle.encoders.base import build_encoder
from ossicle.errors import UnsupportedError
from ossicle.tiny import WAVEFORM

LAYERED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
PUBLISHED = {
    "hubert": lambda: HubertModel(HubertConfig(**WAVEFORM)),
    "hubert-ctc": lambda: HubertForCTC(HubertConfig(**WAVEFORM, **LAYERED)),
    "wav2vec2": lambda: Wav2Vec2Model(Wav2Vec2Config(**WAVEFORM)),
    "wav2vec2-ctc": lambda: Wav2Vec2ForCTC(Wav2Vec2Config(**WAVEFORM, **LAYERED)),
    "wavlm": lambda: WavLMModel(WavLMConfig(**WAVEFORM)),
    "wavlm-large": lambda: WavLMModel(WavLMConfig(**WAVEFORM, **LAYERED)),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("normalize", [True, False])
def test_equals_transformers(publish, noise, name, normalize):
    model = PUBLISHED[name]()
    folder = publish(model)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    extractor.save_pretrained(folder)
    kind = name.partition("-")[0]
    encoder = build_encoder({"kind": kind, "pretrained": str(folder), "layers": "all", "window_s": 2.0}).eval()
    encoder.load_pretrained()
    assert encoder.config.normalize is normalize
    network = getattr(model, kind) if "ctc" in name else model
    for samples in (32_000, 12_345):
        clip = noise(samples)
        values = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            got = encoder(clip[None], torch.tensor([samples])).values
            want = torch.cat(_block_outputs(network, values), -1)
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)


def _block_outputs(network: torch.nn.Module, values: torch.Tensor) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []

    def keep(_module, _inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(keep) for block in network.encoder.layers]
    network(values)
    for hook in hooks:
        hook.remove()
    return outputs


def test_a_masked_batch_is_one_clip_at_a_time(noise):
    spec = {"kind": "wav2vec2", "window_s": 2.0, "architecture": {**WAVEFORM, **LAYERED}}
    encoder = build_encoder(spec).eval()
    clips = [noise(32_000), noise(9_000, 1), noise(300, 2)]
    rows = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    with torch.no_grad():
        together = encoder(rows, torch.tensor([len(clip) for clip in clips]))
        for row, clip in enumerate(clips):
            alone = encoder(clip[None], torch.tensor([len(clip)])).values[0]
            torch.testing.assert_close(together.values[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_training_masks_nothing_at_random(noise):
    encoder = build_encoder(
        {
            "kind": "hubert",
            "window_s": 1.0,
            "architecture": {**WAVEFORM, "hidden_dropout": 0.0, "attention_dropout": 0.0},
        }
    ).train()
    encoder.model.config.activation_dropout = 0.0
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    clip = noise(16_000)[None]
    once, twice = (encoder(clip, torch.tensor([16_000])).values for _ in range(2))
    torch.testing.assert_close(once, twice)
    assert not any("masked_spec_embed" in name for name, _ in encoder.named_parameters())


def test_an_adapter_on_top_is_refused():
    with pytest.raises(UnsupportedError, match="add_adapter"):
        build_encoder({"kind": "wav2vec2", "architecture": {**WAVEFORM, "add_adapter": True}})
