"""What happened on the way to an answer: each stream's tokens, and in a mixture which encoders fired.

Source: our choice; routes as in MoWE-Audio (arXiv 2409.06635), §3.
"""

from __future__ import annotations

from typing import Any

import torch

from ossicle.inference.engine import Engine
from ossicle.types import Waveform


@torch.inference_mode()
def trace(engine: Engine, wave: Waveform, question: str) -> dict[str, Any]:
    """Return what each stream of a model makes of a clip.

    Args:
        engine: The model.
        wave: The clip.
        question: What is asked; mixtures that listen to the question route by it.

    Returns:
        `streams`: name, encoder, connector, integration, tokens, rate_hz, and for mixtures `routes`: the weight of
        each weak encoder, by router.
    """
    model = engine.model
    asked = engine.prompt(question, transcript=engine.hearing.transcript(wave))
    inputs = engine.processor.chat([asked], audio=[wave]).to(model.device)
    connected = model.connect(engine.encode([wave]), model.prompts(inputs["input_ids"], inputs["attention_mask"]))
    streams = []
    for name, stream in model.streams.items():
        owner = model.streams[stream.plan.owner].encoder
        row = {
            "name": name,
            "encoder": " + ".join(model.streams[owner].plan.encoder.kind for owner in stream.plan.owners),
            "connector": stream.plan.connector.kind,
            "integration": stream.plan.integration.kind,
            "tokens": int(connected[name].counts()[0]),
            "rate_hz": connected[name].rate_hz,
        }
        routes = {route.router: route.rows()[0] for route in getattr(owner, "trace", [])}
        streams.append({**row, "routes": routes} if routes else row)
    return {"streams": streams}


def lines(traced: dict[str, Any]) -> list[str]:
    """Return a trace for people."""
    out = []
    for row in traced["streams"]:
        out.append(
            f"{row['name']}: {row['encoder']} → {row['connector']} → {row['integration']}, "
            f"{row['tokens']} tokens at {row['rate_hz']:g} Hz"
        )
        for router, weights in row.get("routes", {}).items():
            fired = ", ".join(f"{member} {weight:.2f}" for member, weight in weights.items() if weight)
            out.append(f"    {router} router: {fired}")
    return out
