"""`ossicle bench integrations`: the ways of hearing side by side, each in a process of its own, steps interleaved.

The parent sends "go" to one worker after another, so that a machine whose speed drifts slows all variants alike; the
ratio of two variants is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ossicle.bench import measure, shapes
from ossicle.bench.flops import Trained, forward_flops, kept_elements, train_flops
from ossicle.errors import ConfigError, OssicleError, suggest
from ossicle.loss import CHUNK, IGNORE
from ossicle.model import AudioLM, AudioLMConfig
from ossicle.training import lora
from ossicle.training.compiled import compile_blocks
from ossicle.types import AudioTokens

ADAPTED = {"lora_dropout": 0.0, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
PAIRS = [("lal", "plits-mlp"), ("pal-v3", "plits-mlp"), ("pal-v2", "plits-mlp"), ("cross", "plits-mlp")]
PEERS = ("qwen2-audio", "trainer")
"""Other people's code at the same shape, see `bench.peers`; measured where everything trains, as it does there."""
PEER_PAIRS = [("lal", "qwen2-audio"), ("plits-mlp", "qwen2-audio"), ("plits-mlp", "trainer")]
MATRICES = "matrices"
"""The products of a PLITS step alone, see `bench.matrices`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured: a shape's name, changes to it, and how."""

    shape: str = "cpu-small"
    rounds: int = 7
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int | None = None
    audio_tokens: int | None = None
    text_tokens: int | None = None
    batch: int | None = None
    freeze_ffn: bool = False
    checkpointing: bool = False
    lora: int = 0
    compiled: bool = False
    clock: str = "wall"

    @property
    def trained(self) -> Trained:
        """What trains, for the analytic work."""
        ffn = not (self.freeze_ffn or self.lora)
        return Trained(base=not self.lora, feed_forward=ffn, rank=self.lora, checkpointing=self.checkpointing)

    def resolved(self) -> shapes.Shape:
        """Return the shape with the changes applied."""
        named = {"audio_tokens": self.audio_tokens, "text_tokens": self.text_tokens, "batch": self.batch}
        return replace(shapes.shape(self.shape), **{k: v for k, v in named.items() if v is not None})


class Variant:
    """One variant's model and batch, ready to step."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.begin(setting)
        shape = self.shape
        self.split = shapes.token_split(name, shape.audio_tokens)
        vocab = shape.decoder["vocab_size"]
        ear = {"kind": "cnn", "dim": 8, "heads": 1, "channels": [4, 4, 4, 4], "depth": 1}
        streams = [
            {"name": f"s{i}", "encoder": "s0" if i else ear, "integration": {"kind": kind}}
            for i, (kind, _) in enumerate(self.split)
        ]
        config = AudioLMConfig(
            text_config=dict(shape.decoder), streams=streams, audio_token_id=vocab - 1, audio_slot_id=vocab - 2
        )
        self.config = config.text_config
        with self.device:  # a billion random weights are made where they stay
            self.model: Any = AudioLM(config).to(self.dtype)
        for stream in self.model.streams.values():
            stream.encoder, stream.connector = None, None
        if setting.lora:
            self.model.language_model.requires_grad_(False)
            lora.add(self.model, {"r": setting.lora, "lora_alpha": 2 * setting.lora, **ADAPTED}, ["language_model"])
        if setting.freeze_ffn:
            for layer in self.model.get_decoder().layers:
                layer.mlp.requires_grad_(False)
        if setting.checkpointing:
            self.model.gradient_checkpointing_enable()
        if setting.compiled:
            compile_blocks(self.model.get_decoder())
        slots = sum(n for kind, n in self.split if kind == "prepend")
        words = torch.randint(3, vocab - 3, (shape.batch, shape.text_tokens - 1))
        audio = torch.full((shape.batch, slots + 1), vocab - 2)
        audio[:, -1] = vocab - 1
        self.ids = torch.cat([audio, words], 1).to(self.device)
        self.labels = self.ids.clone()
        self.labels[:, : -shape.label_tokens] = IGNORE
        self.audio = [self._values(count) for _, count in self.split]
        self.optimize()

    def begin(self, setting: Setting) -> None:
        """Take over what every variant needs of the setting."""
        torch.manual_seed(0)
        if setting.threads:
            torch.set_num_threads(setting.threads)
        self.shape, self.device, self.trained = setting.resolved(), torch.device(setting.device), setting.trained
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[setting.dtype]

    def optimize(self) -> None:
        """Make the optimiser of what trains."""
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], 1e-4, fused=True)

    def _values(self, count: int) -> torch.Tensor:
        shape = self.shape.batch, count, self.shape.decoder["hidden_size"]
        return torch.randn(shape, device=self.device, dtype=self.model.dtype) * 0.02

    def connected(self, *, grad: bool) -> dict[str, AudioTokens]:
        """Return connector outputs: random, made before anything is timed."""
        out = {}
        for i, values in enumerate(self.audio):
            valid = torch.ones(values.shape[:2], dtype=torch.bool, device=self.device)
            fresh = values.detach().requires_grad_(grad)
            out[f"s{i}"] = AudioTokens(values=fresh, valid=valid, rate_hz=25.0)
        return out

    def loss(self) -> torch.Tensor:
        """Return the training loss of the batch."""
        self.model.train()
        memory, placement = self.model.remember(self.ids, None, self.connected(grad=True))
        out = self.model(self.ids, labels=self.labels, audio_memory=memory, position_ids=placement.positions)
        assert out.loss is not None
        return out.loss

    def train_step(self) -> None:
        """Run forward, backward and the optimiser once."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def infer_step(self) -> None:
        """Prefill the batch and make the first token's logits."""
        self.model.eval()
        memory, placement = self.model.remember(self.ids, None, self.connected(grad=False))
        self.model(self.ids, audio_memory=memory, position_ids=placement.positions, logits_to_keep=1)

    def facts(self) -> dict[str, Any]:
        """Return memory and analytic work of both modes."""
        shape, config = self.shape, self.config
        peak = measure.Peak(self.device)
        kept = measure.kept_for_backward(self.loss, self.model.parameters())
        self.optimizer.zero_grad()
        self.train_step()
        train = {
            "activation_bytes": kept,
            "peak_bytes": peak.bytes(),
            "analytic_flops": shape.batch
            * train_flops(config, self.split, text=shape.text_tokens, labels=shape.label_tokens, trained=self.trained),
        }
        if self.trained == Trained():
            sizes = {"text": shape.text_tokens, "labels": shape.label_tokens, "rows": shape.batch}
            chunk = CHUNK.get(self.device.type, CHUNK["cpu"])
            train["analytic_bytes"] = kept_elements(config, self.split, **sizes, chunk=chunk) * self.dtype.itemsize
        peak = measure.Peak(self.device)
        self.infer_step()
        flops = forward_flops(config, self.split, text=shape.text_tokens, heads_at=1)
        infer = {"activation_bytes": 0, "peak_bytes": peak.bytes(), "analytic_flops": shape.batch * flops}
        return {"train": train, "infer": infer}


def work(name: str, setting: Setting) -> None:
    """Serve one variant over stdin and stdout: a line `train` or `infer` runs one step and answers its seconds."""
    from ossicle.bench.matrices import Matrices
    from ossicle.bench.peers import Peer

    answer, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    kind = Matrices if name == MATRICES else Peer if name in PEERS else Variant
    variant = kind(name, setting)
    answer.write(json.dumps(variant.facts()) + "\n")
    answer.flush()
    for line in sys.stdin:
        step = variant.train_step if line.strip() == "train" else variant.infer_step
        answer.write(f"{measure.seconds(step, variant.device, setting.clock)}\n")
        answer.flush()


def run(
    setting: Setting,
    variants: Sequence[str] = shapes.VARIANTS,
    *,
    peers: bool = False,
    matrices: bool = False,
) -> dict[str, Any]:
    """Measure variants side by side.

    Args:
        setting: What is measured.
        variants: Which ways of hearing.
        peers: Measure other people's code beside them; only where everything trains.
        matrices: Measure the matrix products of a PLITS step alone beside them; also only there.

    Returns:
        `results` by variant (`train` and `infer`: samples_per_s, tokens_per_s, activation_bytes, peak_bytes,
        analytic_flops, seconds with spread; `utilisation` of a device whose peak is known; analytic_bytes where
        everything trains), `ratios` (measured, analytic, share of the analytic limit; the same of `memory`), `setting`;
        with peers also `peers` by name, as `results`; with matrices `matrices`: the share of a PLITS step, by mode.

    Raises:
        ConfigError: An unknown variant, or peers were asked for where something is frozen.
    """
    if peers and (setting.lora or setting.freeze_ffn):
        raise ConfigError("--peers: they train everything; leave out --lora and --freeze-ffn")
    for name in variants:
        if name not in shapes.VARIANTS:
            raise ConfigError(f"--only {name}: unknown; {suggest(name, list(shapes.VARIANTS))}")
    shape = setting.resolved()
    names = (*variants, *(PEERS if peers else ()), *((MATRICES,) if matrices else ()))
    facts, times = _measure(setting, names)
    device = _device_name(setting.device)
    peak = measure.peak_tflops(device, setting.dtype)
    rows = {n: {mode: _row(facts[n][mode], times[n][mode], shape, peak) for mode in ("train", "infer")} for n in names}
    ratios = {
        f"{a}/{b}": {mode: _ratio(a, b, mode, rows, times) for mode in ("train", "infer")}
        for a, b in PAIRS + PEER_PAIRS
        if a in names and b in names
    }
    flat = {pair: {**modes["train"], "infer": modes["infer"]} for pair, modes in ratios.items()}
    for pair, found in flat.items():
        found.update(_memory(*(rows[name]["train"] for name in pair.split("/"))))
    about = {
        **asdict(setting),
        **asdict(shape),
        "torch": torch.__version__,
        "device_name": device,
        "peak_tflops": peak,
    }
    told: dict[str, Any] = {"results": {name: rows[name] for name in variants}, "ratios": flat, "setting": about}
    if matrices and "plits-mlp" in names:
        shares = {
            mode: [m / s for m, s in zip(times[MATRICES][mode], times["plits-mlp"][mode], strict=True)]
            for mode in ("train", "infer")
        }
        told["matrices"] = {mode: statistics.median(values) for mode, values in shares.items()}
    return {**told, "peers": {name: rows[name] for name in PEERS}} if peers else told


def _measure(setting: Setting, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, list[float]]]]:
    """Return each one's facts and its seconds by mode, from processes that step in turn."""
    workers = {name: _start(name, setting) for name in names}
    times: dict[str, dict[str, list[float]]] = {name: {"train": [], "infer": []} for name in names}
    try:
        facts = {name: json.loads(_line(worker, name)) for name, worker in workers.items()}
        for mode in ("train", "infer"):
            for index in range(setting.rounds + 1):
                for name, worker in workers.items():
                    assert worker.stdin is not None
                    worker.stdin.write(f"{mode}\n")
                    worker.stdin.flush()
                    spent = float(_line(worker, name))
                    if index:  # the first round warms up
                        times[name][mode].append(spent)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return facts, times


def _row(facts: dict[str, Any], spent: list[float], shape: shapes.Shape, peak: float | None) -> dict[str, Any]:
    median = statistics.median(spent)
    tokens = shape.batch * (shape.text_tokens + shape.audio_tokens)
    used = {"utilisation": facts["analytic_flops"] / median / peak / 1e12} if peak else {}
    return {
        **used,
        "samples_per_s": shape.batch / median,
        "tokens_per_s": tokens / median,
        **facts,
        "seconds": {"median": median, "min": min(spent), "max": max(spent)},
    }


def _ratio(a: str, b: str, mode: str, results: dict[str, Any], times: dict[str, Any]) -> dict[str, float]:
    """Return how many times faster `a` is than `b`, beside the ratio of their analytic work."""
    measured = statistics.median(y / x for x, y in zip(times[a][mode], times[b][mode], strict=True))
    analytic = results[b][mode]["analytic_flops"] / results[a][mode]["analytic_flops"]
    return {"measured": measured, "analytic": analytic, "share": measured / analytic}


def _memory(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return how many times less `a` keeps for backward, beside the analytic ratio; empty where that is not known."""
    if "analytic_bytes" not in a or "analytic_bytes" not in b:
        return {}
    measured, analytic = b["activation_bytes"] / a["activation_bytes"], b["analytic_bytes"] / a["analytic_bytes"]
    return {"memory": {"measured": measured, "analytic": analytic, "share": measured / analytic}}


def _start(name: str, setting: Setting) -> subprocess.Popen[str]:
    code = "import json, sys; from ossicle.bench.integrations import Setting, work; "
    code += "work(sys.argv[1], Setting(**json.loads(sys.argv[2])))"
    command = [sys.executable, "-c", code, name, json.dumps(asdict(setting))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(worker: subprocess.Popen[str], name: str) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise OssicleError(f"bench: the process of '{name}' ended early; its error stands above")
    return line


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = [line for line in _cpu_info() if line.startswith("model name")]
    return info[0].split(":", 1)[1].strip() if info else "CPU"


def _cpu_info() -> list[str]:
    from pathlib import Path

    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
