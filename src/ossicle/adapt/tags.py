"""The user's labels as a stream of their own: a tagger of the recordings, whose verdict the decoder reads.

    recordings | old sounds ──encoders──► mean ⊕ max of each window ──kernel ridge regression──► which label, or none

A hundred recordings fit such a tagger, and a decoder learns them by heart; so the tagger decides and the decoder only
learns to say what it decided. Which label is fitted on the user's recordings alone, whether it is one on both; how sure
the tagger has to be before it speaks is chosen on groups that it was not fitted on, and leaving a group out of a ridge
regression needs no second fit. Source: kernel ridge regression, Saunders, Gammerman & Vovk 1998, and its leave-out
residuals; the rest is our choice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ossicle.adapt.folder import Recording
from ossicle.adapt.probe import BATCH
from ossicle.audio.io import load_audio
from ossicle.connectors.group import shrunk_mask
from ossicle.connectors.tags import kernel, pooled
from ossicle.errors import CheckpointError, ConfigError
from ossicle.model import AudioLM
from ossicle.processor import AudioProcessor
from ossicle.questions.names import spoken
from ossicle.streams import plan, side_by_side
from ossicle.types import Waveform

STREAM = "tags"
LONGEST = 8
"""Most tokens of a verdict; a label of fewer words than another repeats its own."""
GAMMA, RIDGE = 0.3, 0.1
"""How near an example has to be, and how far the tagger may be from what it is told of one."""
FALSE_ALARMS = 0.04
"""Most windows of old sounds, not fitted on, that may be taken for the user's."""
MOST_WINDOWS = 2500
"""Windows of each side that are remembered; of more, a draw."""


def with_tags(
    engine: Any, recordings: Sequence[Recording], others: Sequence[Waveform], folder: Path, *, seed: int
) -> tuple[str, Tagger] | None:
    """Write the model with a stream of the user's labels into a folder.

    Args:
        engine: The model to begin with.
        recordings: Of the training side; those without a label are left out.
        others: Sounds that are not the user's.
        folder: Where the new model goes.
        seed: Of the draw where there are very many windows.

    Returns:
        The stream's name and its tagger; None where fewer than two labels are known, encoders listen to the question or
        do not keep the same time, or the decoder is held in four bits, and nothing was written.
    """
    labelled = [recording for recording in recordings if recording.label]
    labels = sorted({recording.label for recording in labelled})
    if len(labels) < 2 or not others or not _fits(engine.model):
        return None
    name = _free_name(engine.model)
    mine, of_mine = _windows(engine, [load_audio(r.path) for r in labelled], seed)
    theirs, of_theirs = _windows(engine, others, seed)
    groups = [*(labelled[i].group for i in of_mine), *(f"\0{i}" for i in of_theirs)]
    classes = torch.tensor([labels.index(labelled[i].label) for i in of_mine])
    tagger = fit_tagger(torch.cat([mine, theirs]), classes, groups, len(labels))
    model = _grown(engine, name, [spoken(label) for label in labels], tagger)
    model.save_pretrained(folder)
    old = engine.processor
    streams = model.config.streams
    AudioProcessor(old.tokenizer, streams, old.audio_token, old.audio_slot_token, old.chat_template).save_pretrained(
        folder
    )
    return name, tagger


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


def _grown(engine: Any, name: str, tags: list[str], tagger: Tagger) -> AudioLM:
    """Return a copy of a model with one stream more, whose tagger is fitted."""
    old = engine.model
    config = copy.deepcopy(old.config)
    connector = {
        "kind": "tags",
        "tags": tags,
        "factor": _window_tokens(old),
        "length": min(LONGEST, max(len(_words(engine.processor, tag)) for tag in tags) + 1),
        "examples": len(tagger.examples),
        "gamma": GAMMA,
    }
    integration = {"kind": "attend", "own_projections": True, "positions": "block"}
    stream = {"name": name, "encoder": _owners(old), "connector": connector, "integration": integration}
    config.streams = [*config.streams, stream]
    grown = AudioLM(config).to(old.device)
    missing, left_over = grown.load_state_dict(old.state_dict(), strict=False)  # the new stream has none yet
    strange = [*left_over, *(key for key in missing if not key.startswith(f"streams.{name}."))]
    if strange:
        raise CheckpointError(f"adapt: weights of the model to begin with do not fit it ({', '.join(strange[:5])})")
    grown.generation_config = old.generation_config
    grown.streams[name].integration.start(grown.language_model)
    tagger.put(grown.streams[name].connector)
    _name(grown, engine.processor, name)
    return grown.eval()


def _window_tokens(model: AudioLM) -> int:
    encoder = next(iter(model.streams.values())).plan.encoder
    count: int = encoder.num_tokens(encoder.window_samples)
    return count


@torch.no_grad()
def _windows(engine: Any, waves: Sequence[Waveform], seed: int) -> tuple[Tensor, list[int]]:
    """Return (W, 2 · D) what the tagger sees of every window, and which clip each is of; of very many, a draw."""
    order = sorted(range(len(waves)), key=lambda i: waves[i].duration_s)
    factor, rows, of = _window_tokens(engine.model), [], []
    for start in tqdm(range(0, len(order), BATCH), "adapt: hearing", unit_scale=BATCH, unit="clip"):
        batch = order[start : start + BATCH]
        encoded = engine.encode([waves[i] for i in batch])
        tokens = side_by_side([encoded[owner] for owner in _owners(engine.model)])
        seen = pooled(tokens, factor).float().cpu()
        counts = shrunk_mask(tokens, factor).sum(1).tolist()
        for place, (index, count) in enumerate(zip(batch, counts, strict=True)):
            rows.append(seen[place, :count])
            of += [index] * count
    kept = np.sort(np.random.default_rng(seed).permutation(len(of))[:MOST_WINDOWS])
    return torch.cat(rows)[kept], [of[i] for i in kept]


@dataclass(frozen=True, slots=True)
class Tagger:
    """A fitted tagger; see `connectors.tags`.

    Attributes:
        mean: (D) of what it was fitted on.
        spread: (D) standard deviations.
        examples: (n, D) standardised.
        says: (n, labels + 1) what each example says of its neighbours.
        bound: What the last score has to exceed.
        found: Share of the user's windows, of groups not fitted on, that are taken for the user's.
        false_alarms: The same of old sounds.
        accuracy: Share of the user's windows, of groups not fitted on, whose label is found.
    """

    mean: Tensor
    spread: Tensor
    examples: Tensor
    says: Tensor
    bound: float
    found: float
    false_alarms: float
    accuracy: float

    def told(self) -> dict[str, float]:
        """Return what it does with recordings that it was not fitted on."""
        return {"found": self.found, "false_alarms": self.false_alarms, "accuracy": self.accuracy}

    def put(self, connector: Any) -> None:
        """Write it into a connector of its size."""
        with torch.no_grad():
            for name in ("mean", "spread", "examples", "says"):
                getattr(connector, name).copy_(getattr(self, name))
            connector.bound.fill_(self.bound)


def fit_tagger(seen: Tensor, classes: Tensor, groups: Sequence[str], num_classes: int) -> Tagger:
    """Return the tagger of the user's windows, which stands back from others.

    Args:
        seen: (n, D) windows: the user's, then old sounds'.
        classes: (m,) labels of the user's windows, below `num_classes`.
        groups: (n,) recordings that must not lie on both sides.
        num_classes: How many labels there are.
    """
    own, mean, spread = len(classes), seen.mean(0), seen.std(0).clamp(min=1e-4)
    examples = (seen - mean) / spread
    near = kernel(examples.double(), examples.double(), GAMMA)
    truth = torch.nn.functional.one_hot(classes, num_classes).double()
    which, unseen = _ridge(near[:own, :own], truth, groups[:own])
    accuracy = float((unseen.argmax(1) == classes).float().mean())
    mine = torch.where(torch.arange(len(seen)) < own, 1.0, -1.0).double()
    any_of_them, unseen = _ridge(near, mine[:, None], groups)
    bound, found, alarms = _bound(unseen[:own, 0], unseen[own:, 0])
    says = torch.zeros(len(seen), num_classes + 1)
    says[:own, :-1], says[:, -1] = which.float(), any_of_them[:, 0].float()
    return Tagger(mean, spread, examples, says, bound, found, alarms, accuracy)


def _ridge(near: Tensor, truth: Tensor, groups: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return (n, c) what each example says, and what it would be told if its group had been left out."""
    inverse = torch.linalg.inv(near + RIDGE * torch.eye(len(near), dtype=near.dtype))
    says, unseen = inverse @ truth, truth.clone()
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    for block in places.values():
        unseen[block] -= torch.linalg.solve(inverse[block][:, block], says[block])
    return says, unseen


def _bound(mine: Tensor, theirs: Tensor) -> tuple[float, float, float]:
    """Return where verdicts begin, and what passes of either side there.

    As many of the user's as few false alarms allow; where these would leave less than half, a miss counts as an alarm.
    """
    places = mine - 1e-6
    found = (mine > places[:, None]).double().mean(1)
    alarms = (theirs > places[:, None]).double().mean(1)
    few = torch.where(alarms <= FALSE_ALARMS, found, -torch.inf)
    best = int((few if few.max() >= 0.5 else found - alarms).argmax())
    return float(places[best]), float(found[best]), float(alarms[best])


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
