"""The user's labels as a stream of their own: a linear tagger, fitted before training, whose verdict the decoder reads.

    recordings ──encoders──► mean ⊕ max of each window ──softmax regression──► which label    } connector `tags`
    recordings | old sounds ─────────────────────────────logistic regression──► one of mine?  }

A hundred recordings fit a linear head, and a decoder learns them by heart; so the head decides and the decoder learns
to say what it decided, in whatever question. The second head lets most of the user's recordings of held-out groups
pass; what else it lets through, the decoder has to tell by its other streams. Source: our choice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.adapt.folder import Recording
from ossicle.adapt.probe import BATCH, PENALTIES, choose_penalty, fit
from ossicle.audio.io import load_audio
from ossicle.connectors.group import shrunk_mask
from ossicle.errors import CheckpointError, ConfigError
from ossicle.model import AudioLM
from ossicle.processor import AudioProcessor
from ossicle.questions.names import spoken
from ossicle.streams import plan, side_by_side
from ossicle.types import Waveform

STREAM = "tags"
FOLDS = 5
PASSES = 0.85
"""Share of the user's recordings, in groups that the second head was not fitted on, that it takes for the user's."""
LONGEST = 8
"""Most tokens of a verdict; a label of fewer words than another repeats its own."""
SHARPER = 8.0
"""Factor on the first head's logits: on recordings it was not fitted on it is unsure, and a blend of names says nothing
that the decoder was taught to read."""


def with_tags(
    engine: Any, recordings: Sequence[Recording], others: Sequence[Waveform], folder: Path, *, seed: int
) -> str | None:
    """Write the model with a stream of the user's labels into a folder.

    Args:
        engine: The model to begin with.
        recordings: Of the training side; those without a label are left out.
        others: Sounds that are not the user's.
        folder: Where the new model goes.
        seed: Of the folds.

    Returns:
        The stream's name; None where fewer than two labels are known, encoders listen to the question or do not keep
        the same time, or the decoder is held in four bits, and nothing was written.
    """
    labelled = [recording for recording in recordings if recording.label]
    labels = sorted({recording.label for recording in labelled})
    if len(labels) < 2 or not others or not _fits(engine.model):
        return None
    name = _free_name(engine.model)
    tags = [spoken(label) for label in labels]
    length = max(len(_words(engine.processor, tag)) for tag in tags) + 1
    model = _grown(engine.model, name, tags, min(length, LONGEST))
    connector = model.streams[name].connector
    mine, of = _windows(engine, model.streams[name], [load_audio(r.path) for r in labelled])
    theirs, _ = _windows(engine, model.streams[name], others)
    groups = [labelled[i].group for i in of]
    _fit_which(connector, mine, [labels.index(labelled[i].label) for i in of], groups, seed)
    _fit_any(connector, mine, groups, theirs, seed)
    _name(model, engine.processor, name)
    model.save_pretrained(folder)
    old = engine.processor
    streams = model.config.streams
    AudioProcessor(old.tokenizer, streams, old.audio_token, old.audio_slot_token, old.chat_template).save_pretrained(
        folder
    )
    return name


def _owners(model: AudioLM) -> list[str]:
    return [name for name, stream in model.streams.items() if stream.encoder is not None]


def _fits(model: AudioLM) -> bool:
    """Return whether all encoders' features can stand side by side, whatever is asked."""
    facts = [model.streams[name].plan.facts for name in _owners(model)]
    if any(each.prompt_dependent or not each.windowed for each in facts) or getattr(model, "hf_quantizer", None):
        return False
    try:
        plan([*model.config.streams, {"name": "\0", "encoder": _owners(model)}])
    except ConfigError:
        return False
    return True


def _free_name(model: AudioLM) -> str:
    """Return a name that no stream has: a model adapted twice keeps what it was taught first."""
    names = [STREAM, *(f"{STREAM}_{number}" for number in range(2, len(model.streams) + 2))]
    return next(name for name in names if name not in model.streams)


def _grown(model: AudioLM, name: str, tags: list[str], length: int) -> AudioLM:
    """Return a copy of a model with one stream more."""
    config = copy.deepcopy(model.config)
    encoder = next(iter(model.streams.values())).plan.encoder
    config.streams = [
        *config.streams,
        {
            "name": name,
            "encoder": _owners(model),
            "connector": {
                "kind": "tags",
                "tags": tags,
                "factor": encoder.num_tokens(encoder.window_samples),
                "length": length,
            },
            "integration": {"kind": "attend"},
        },
    ]
    grown = AudioLM(config).to(model.device)
    missing, left_over = grown.load_state_dict(model.state_dict(), strict=False)  # the new stream has none yet
    strange = [*left_over, *(key for key in missing if not key.startswith(f"streams.{name}."))]
    if strange:
        raise CheckpointError(f"adapt: weights of the model to begin with do not fit it ({', '.join(strange[:5])})")
    grown.generation_config = model.generation_config
    grown.streams[name].integration.start(grown.language_model)
    return grown.eval()


@torch.no_grad()
def _windows(engine: Any, stream: Any, waves: Sequence[Waveform]) -> tuple[Tensor, list[int]]:
    """Return (W, 2 · D) what the heads see of every window, and which clip each is of."""
    order = sorted(range(len(waves)), key=lambda i: waves[i].duration_s)
    rows, of = [], []
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        encoded = engine.encode([waves[i] for i in batch])
        tokens = side_by_side([encoded[owner] for owner in stream.plan.owners])
        pooled = stream.connector.pooled(tokens).float().cpu()
        counts = shrunk_mask(tokens, stream.connector.config.factor).sum(1).tolist()
        for place, (index, count) in enumerate(zip(batch, counts, strict=True)):
            rows.append(pooled[place, :count])
            of += [index] * count
    return torch.cat(rows), of


def _fit_which(connector: Any, mine: Tensor, classes: Sequence[int], groups: Sequence[str], seed: int) -> None:
    """Fit the softmax head as the probe is fitted; the scale of its inputs goes into its weights."""
    mean, spread = mine.mean(0), mine.std(0).clamp(min=1e-4)
    count, truth = connector.which.out_features, torch.tensor(classes)
    scaled = (mine - mean) / spread
    penalty = choose_penalty(scaled, truth, groups, count, seed)
    head = fit(scaled, truth, count, penalty)
    with torch.no_grad():
        head.weight.mul_(SHARPER)
        head.bias.mul_(SHARPER)
    _put(connector.which, head, mean, spread)


def _fit_any(connector: Any, mine: Tensor, groups: Sequence[str], theirs: Tensor, seed: int) -> None:
    """Fit the head that knows the user's recordings, and set it by groups that it was not fitted on."""
    both = torch.cat([mine, theirs])
    mean, spread = both.mean(0), both.std(0).clamp(min=1e-4)
    scaled = (both - mean) / spread
    truth = torch.cat([torch.ones(len(mine)), torch.zeros(len(theirs))]).long()
    unique = sorted(set(groups))
    fold_of = {group: place % FOLDS for place, group in enumerate(np.random.default_rng(seed).permutation(unique))}
    folds = torch.tensor([*(fold_of[group] for group in groups), *(i % FOLDS for i in range(len(theirs)))])
    unseen = torch.zeros(len(mine))
    for fold in set(fold_of.values()):
        rest = folds != fold
        head = _one_of_two(fit(scaled[rest], truth[rest], 2, PENALTIES[1], balanced=True))
        held = (folds == fold)[: len(mine)]
        unseen[held] = head(scaled[: len(mine)][held])[:, 0].detach()
    head = _one_of_two(fit(scaled, truth, 2, PENALTIES[1], balanced=True))
    with torch.no_grad():
        head.bias -= torch.quantile(unseen, 1 - PASSES).clamp(max=0)  # more may pass, not fewer
    _put(connector.any, head, mean, spread)


def _one_of_two(head: nn.Linear) -> nn.Linear:
    """Return the logistic head that says what a softmax over two classes says of the second."""
    one = nn.Linear(head.in_features, 1)
    with torch.no_grad():
        one.weight.copy_(head.weight[1:] - head.weight[:1])
        one.bias.copy_(head.bias[1:] - head.bias[:1])
    return one


def _put(layer: nn.Linear, fitted: nn.Linear, mean: Tensor, spread: Tensor) -> None:
    """Write a head that was fitted on (x − mean) / spread as one of x."""
    with torch.no_grad():
        weight = fitted.weight / spread
        layer.weight.copy_(weight)
        layer.bias.copy_(fitted.bias - weight @ mean)


@torch.no_grad()
def _name(model: AudioLM, processor: Any, stream: str) -> None:
    """Start the tokens of each tag at the embeddings of its words, in turn, scaled to a mean square of 1."""
    connector, table = model.streams[stream].connector, model.get_input_embeddings().weight
    for row, tag in enumerate(connector.config.tags):
        ids = _words(processor, tag)
        connector.names[row] = torch.stack([table[ids[place % len(ids)]] for place in range(connector.config.length)])
    connector.set_output_scale(1.0)


def _words(processor: Any, tag: str) -> list[int]:
    ids: list[int] = processor.tokenizer(f" {tag}", add_special_tokens=False)["input_ids"]
    return ids
