"""Writes docs/performance.md from what was measured: docs/performance/*.json, each the output of one command.

    python docs/performance_report.py                    the page again
    python docs/performance_report.py keep NAME FILE COMMAND…     keep a command's JSON first, its command beside it

A file holds `command`, `machine`, `date` and `result`. What nobody has measured is not on the page.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs/performance"
TITLES = {
    "cpu-small": "Ways of hearing",
    "peers": "Beside other people's code, and beside the products alone",
    "llama-1b-2-layers": "At the width of a 1B decoder, 32 rows",
    "llama-1b-2-layers-batch-8": "At the width of a 1B decoder, 8 rows, where the optimiser's part is larger",
}

FRONT = """# Performance

Written by `python docs/performance_report.py` from [what was measured](performance/); each table names its command.
Random weights everywhere; CPUs in float32, and one GPU in bf16 (each table names its device).

*Analytic* is the ratio of multiply-adds that the fastest implementation could not avoid; *share* is the measured ratio
over it, 1 = all of what can be won; beyond 1 is spread. PLITS prepends audio, LAL attends to it, PAL does both.
"""


GPU = {
    "gpu-1b": "norms and feed-forward blocks compiled",
    "gpu-1b-eager": "nothing compiled",
    "gpu-pal": "compiled",
    "gpu-peers": "nothing compiled",
    "gpu-qwen": "nothing compiled",
    "gpu-3b": "nothing compiled",
}


def main(words: list[str]) -> None:
    """Keep a measurement if one is given, then write the page."""
    if words[:1] == ["keep"]:
        keep(words[1], Path(words[2]), " ".join(words[3:]))
    parts = [FRONT]
    for name, title in TITLES.items():
        parts += _integrations(name, title)
    parts += [
        *_batch(),
        *_length("length", "Over the length of the audio"),
        *_gpu(),
        *_input(),
        *_training(),
        *_paper(),
    ]
    (ROOT / "docs/performance.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def keep(name: str, file: Path, command: str) -> None:
    """Store a command's JSON; of a GPU it names itself."""
    result = json.loads(file.read_text(encoding="utf-8"))
    cpu = next((row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")), ":CPU")
    machine = f"{cpu.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    if result.get("setting", {}).get("device", "cpu") != "cpu":
        machine = os.environ.get("OSSICLE_MEASURED_ON") or result["setting"]["device_name"]
    today = datetime.date.today().isoformat()
    content = {"command": command, "machine": machine, "date": today, "result": result}
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(name: str) -> dict[str, Any] | None:
    path = KEPT / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _from(kept: dict[str, Any]) -> str:
    return f"`{kept['command']}` ({kept['machine']}, {kept['date']})"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [" | ".join(row) for row in [head, ["---"] * len(head), *rows]]
    return [*(f"| {line} |" for line in lines), ""]


def _integrations(name: str, title: str) -> list[str]:
    kept = _read(name)
    if kept is None:
        return []
    result, setting = kept["result"], kept["result"]["setting"]
    decoder = setting["decoder"]
    rows = []
    for variant, row in {**result["results"], **result.get("peers", {})}.items():
        spread = row["train"]["seconds"]
        train, infer = row["train"]["samples_per_s"], row["infer"]["samples_per_s"]
        kept_mb = f"{row['train']['activation_bytes'] / 1e6:.0f} MB"
        rows.append([variant, f"{train:.2f}", f"{spread['min']:.2f} – {spread['max']:.2f} s", f"{infer:.2f}", kept_mb])
    parts = [
        f"## {title}\n",
        f"{_from(kept)}\n",
        f"{decoder['num_hidden_layers']} layers, width {decoder['hidden_size']}, vocabulary {decoder['vocab_size']}, "
        f"{setting['batch']} rows of {setting['audio_tokens']} audio and {setting['text_tokens']} text tokens, "
        f"{setting['label_tokens']} labels; medians of {setting['rounds']} interleaved steps, by the "
        f"{setting['clock']} clock.\n",
        *_table(["variant", "train, samples/s", "a step", "inference, samples/s", "kept for backward"], rows),
    ]
    pairs = [
        [pair, *(f"{r[what]:.2f}" for r in (ratio, ratio["infer"]) for what in ("measured", "analytic", "share"))]
        for pair, ratio in result["ratios"].items()
    ]
    head = ["pair", "training", "analytic", "share", "inference", "analytic", "share"]
    parts += _table(head, pairs)
    lighter = [
        f"{pair} {ratio['memory']['measured']:.2f} times less (analytic {ratio['memory']['analytic']:.2f}, share "
        f"{ratio['memory']['share']:.2f})"
        for pair, ratio in result["ratios"].items()
        if "memory" in ratio
    ]
    if lighter:
        parts.append(f"Kept for backward: {'; '.join(lighter)}.\n")
    if "matrices" in result:
        parts.append(
            f"The matrix products of a PLITS step, run alone, take {result['matrices']['train']:.0%} of its time in "
            f"training and {result['matrices']['infer']:.0%} in inference.\n"
        )
    return parts


def _batch() -> list[str]:
    kept = [one for one in map(_read, ("batch-1", "batch-4", "batch-32")) if one is not None]
    if not kept:
        return []
    rows = [
        [
            str(one["result"]["setting"]["batch"]),
            *(f"{one['result']['results'][v]['train']['samples_per_s']:.2f}" for v in ("plits-mlp", "lal")),
            f"{one['result']['ratios']['lal/plits-mlp']['share']:.2f}",
        ]
        for one in kept
    ]
    commands = "; ".join(_from(one) for one in kept)
    head = ["batch", "PLITS, samples/s", "LAL, samples/s", "share"]
    small = (
        "At cpu-small. With one row a step is short, and what does not grow with it (the optimiser, the calls) is the "
        "same for both: less than the analytic ratio can be won.\n"
    )
    return ["## Over batch\n", f"{commands}\n", *_table(head, rows), small]


def _length(name: str, title: str) -> list[str]:
    kept = _read(name)
    if kept is None:
        return []
    result = kept["result"]
    rows = []
    for variant, curve in result["curves"].items():
        for row in curve:
            if "failed" in row:
                rows.append([variant, str(row["seconds"]), row["failed"], "–"])
            else:
                took, peak = f"{row['prefill_s']:.2f} s", f"{row['peak_bytes'] / 1e6:.0f} MB"
                rows.append([variant, str(row["seconds"]), took, peak])
    slopes = [
        f"{variant}: " + (", ".join(f"{what} {slope:.2f}" for what, slope in found.items() if slope) or "not reached")
        for variant, found in result["slopes"].items()
    ]
    return [
        f"## {title}\n",
        f"{_from(kept)}, {result['tokens_per_s']} audio tokens a second\n",
        *_table(["variant", "seconds of audio", "prefill", "peak above the start"], rows),
        f"Log-log slopes between 5 and 60 minutes (goal for LAL: at most {result['goal']}): {'; '.join(slopes)}.\n",
    ]


def _gpu() -> list[str]:
    """Return one table over all runs on a GPU: what a step uses of the device, and how near the ratios come."""
    runs = {name: kept for name in GPU if (kept := _read(name)) is not None}
    if not runs:
        return []
    rows, commands = [], []
    for name, kept in runs.items():
        result, setting = kept["result"], kept["result"]["setting"]
        commands.append(f"`{kept['command']}`")
        for variant, row in {**result["results"], **result.get("peers", {})}.items():
            train, ratio = row["train"], result["ratios"].get(f"{variant}/plits-mlp")
            against = f"{ratio['measured']:.2f} of {ratio['analytic']:.2f}" if ratio else "–"
            lighter = f"{ratio['memory']['measured']:.2f} of {ratio['memory']['analytic']:.2f}" if ratio else "–"
            shape = f"{setting['shape']}, {setting['batch']} rows, {GPU[name]}"
            used = [f"{row[mode]['utilisation']:.1%}" for mode in ("train", "infer")]
            spent, kept_gb = f"{train['seconds']['median'] * 1000:.0f} ms", f"{train['activation_bytes'] / 1e9:.1f} GB"
            rows.append([shape, variant, spent, used[0], against, used[1], kept_gb, lighter])
    first = next(iter(runs.values()))
    alone = runs["gpu-1b"]["result"]["matrices"]["train"] if "gpu-1b" in runs else None
    head = ["shape", "variant", "a step", "utilisation", "speed / PLITS", "inference", "kept", "less kept"]
    said = [
        "## On a GPU\n",
        f"{first['machine']}, {first['result']['setting']['dtype']}, torch {first['result']['setting']['torch']}, "
        f"{first['date']}: {'; '.join(commands)}\n",
        "*Utilisation* is analytic operations over time and the data sheet's "
        f"{first['result']['setting']['peak_tflops']:.0f} TFLOP/s. Ratios stand beside their analytic limit. Variants "
        "of a run step in turn on one device, each in its process.\n",
        *_table(head, rows),
    ]
    if alone is not None:
        said.append(
            "The goal of 40 % for PLITS at 1B is met where norms and feed-forward blocks are compiled (`compile: true` "
            f"of a stage); the products of that step alone take {alone:.0%} of its time. LAL does not reach its share: "
            "below 64 rows its step is as long as this machine's processor takes to launch the kernels, whatever the "
            "batch, and what does not shrink with the rows (the optimiser, the gradient of 128,256 embeddings) is a "
            "quarter of it. By the device's own clock (one profiled step of 48 rows, compiled) LAL takes 80 ms and "
            "PLITS 202 ms, 2.54 times as much; their matrix products 32 and 119 ms, 3.71 times (analytic 4.07).\n"
        )
    return said + _length("gpu-length", "Over the length of the audio, on a GPU")


def _input() -> list[str]:
    kept = _read("data")
    if kept is None:
        return []
    result, padding = kept["result"], kept["result"]["padding"]
    rows = [
        [name, *(f"{row[what]:.0f}" for what in ("decode", "features", "times_real_time"))]
        for name, row in result["input"].items()
    ]
    return [
        "## What comes in\n",
        f"{_from(kept)}\n",
        "Times real time on one core, by processor time; the goal for both together is 300.\n",
        *_table(["recording", "decoding", "log-mel", "both"], rows),
        f"Padding of batches of {padding['batch']} as a stage draws them: {padding['tokens']:.1%} of all tokens "
        f"(audio {padding['audio']:.1%}, text {padding['text']:.1%}; goal 5 %); random batches "
        f"{padding['tokens_random']:.1%}. Lengths are log-normal, 0.5 to 30 s.\n",
    ]


def _training() -> list[str]:
    kept = _read("train")
    if kept is None:
        return []
    cached, mowe = kept["result"]["cached"], kept["result"]["mowe"]
    return [
        "## What training waits for\n",
        f"{_from(kept)}\n",
        f"Over kept features the decoder is busy {cached['busy']:.1%} of the time (goal 95 %): a step takes "
        f"{cached['step_s'] * 1000:.0f} ms, of which its batch {cached['batch_s'] * 1000:.0f} ms. A mixture that "
        f"keeps one of three weak encoders costs {mowe['ratio']:.3f} times the operations of base, selected encoder "
        f"and router (goal 1.1), and {mowe['seconds_ratio']:.2f} times their seconds.\n",
    ]


def _paper() -> list[str]:
    kept = _read("paper")
    if kept is None:
        return []
    given, runs = kept["result"]["assumed"], kept["result"]["runs"]
    devices = list(given["scaling"])
    rows = [
        [
            one["recipe"],
            f"{sum(stage['samples'] for stage in one['stages']) / 1e6:.1f} M",
            f"{one['flops'] / 1e18:,.0f}",
            *(f"{one['hours'][n]:,.1f} h, ${one['dollars'][n]:,}" for n in devices),
        ]
        for one in runs
    ]
    scaling = ", ".join(f"{share:.0%} on {n}" for n, share in given["scaling"].items())
    return [
        "## Cost on paper\n",
        "    hours(n) = samples · operations a sample / (n · peak · utilisation · scaling(n)) / 3600\n",
        f"`{kept['command']}`\n",
        "Not measured. Assumed: a GPU whose data sheet says "
        f"{given['peak'] / 1e12:.0f} TFLOP/s dense in bf16 (H100 SXM), of which a step sustains "
        f"{given['utilisation']:.0%}; of that {scaling} GPUs; ${given['price']:.2f} a GPU and hour. Halve the "
        "utilisation and every number doubles. Operations are counted from the recipe: frozen weights need no gradient "
        "of their own, recomputed layers run forward once more, frozen encoders run once a sample because "
        "the recipes keep no features; ten seconds of audio and 108 text tokens a sample. Loading, evaluation, "
        "checkpoints and failures are left out. On one H100 a step of PLITS at 1B sustained what is assumed, and "
        "LAL about half of it (above).\n",
        *_table(["recipe", "samples", "EFLOP", *(f"{n} GPU{'s' if n != '1' else ''}" for n in devices)], rows),
        "A check from outside: LTU-AS's authors report about 80 hours on four A6000 with Whisper's outputs made "
        "beforehand; these operations in that time would be half of what that card's data sheet names (155 TFLOP/s).\n",
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
