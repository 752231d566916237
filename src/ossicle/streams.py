"""A stream: one encoder, one connector, one integration. A model has one or more; streams may share an encoder.

    streams:
      - {name: sound, encoder: {kind: cnn}, connector: {kind: mlp}, integration: {kind: attend}}
      - {name: tail,  encoder: sound,       connector: {kind: pool}, integration: {kind: prepend}}    shares it
      - {name: both,  encoder: [sound, voice], …}                       features of two streams' encoders side by side

`StreamPlan` is a stream's arithmetic without weights: the processor expands placeholders with it, the model checks
against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import nn

from ossicle import registry
from ossicle.config import Section, validate
from ossicle.connectors.base import Connector, ConnectorConfig, build_connector
from ossicle.encoders.base import Encoder, EncoderConfig, build_encoder
from ossicle.errors import ConfigError, DataError, suggest
from ossicle.integration.base import Integration, IntegrationConfig, build_integration
from ossicle.types import AudioTokens, EncoderFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class StreamConfig(Section):
    """Settings of one stream.

    Attributes:
        name: Its name.
        encoder: A mapping with `kind`; or the name of the stream whose encoder it shares, or several such names, whose
            features are put side by side.
        connector: A mapping with `kind`.
        integration: A mapping with `kind`.
    """

    name: str
    encoder: dict[str, Any] | str | list[str]
    connector: dict[str, Any] = Field(default={"kind": "mlp"})
    integration: dict[str, Any] = Field(default={"kind": "prepend"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """A stream's checked settings and arithmetic, without weights.

    Attributes:
        name: Name of the stream.
        owner: Name of the stream that owns the encoder; its own name unless it shares one.
        beside: Names of the streams that own further encoders, whose features stand beside the first one's.
        encoder: Settings of the (first) encoder.
        facts: Of its features, all encoders' side by side.
        connector: Settings of the connector.
        integration: Settings of the integration.
    """

    name: str
    owner: str
    beside: tuple[str, ...] = ()
    encoder: EncoderConfig
    facts: EncoderFacts
    connector: ConnectorConfig
    integration: IntegrationConfig

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of the streams that own its encoders."""
        return (self.owner, *self.beside)

    def num_tokens(self, num_samples: int) -> int:
        """Return how many tokens leave the connector for a clip of `num_samples` at 16 kHz."""
        return self.connector.num_tokens(self.encoder.num_tokens(num_samples))

    def num_slots(self, num_samples: int) -> int:
        """Return how many rows of text the clip takes."""
        return self.integration.num_slots(self.num_tokens(num_samples))


def plan(streams: Sequence[dict[str, Any]]) -> list[StreamPlan]:
    """Return the checked plans of a model's streams.

    Raises:
        ConfigError: A setting does not fit, a name is used twice, or a shared encoder does not exist.

    Example:
        >>> plan([{"name": "ear", "encoder": {"kind": "cnn"}}])[0].owner
        'ear'
    """
    plans: dict[str, StreamPlan] = {}
    for number, spec in enumerate(streams):
        config = validate(StreamConfig, dict(spec), where=f"streams.{number}")
        if config.name in plans or "." in config.name:
            raise ConfigError(f"streams.{number}: name '{config.name}' is used twice or has a dot; give each its own")
        if isinstance(config.encoder, dict):
            (owner, *beside), encoder = [config.name], registry.parse("encoders", config.encoder)
            facts = encoder.facts()
        else:
            shared = _shared(config.encoder, plans, number)
            (owner, *beside), encoder = dict.fromkeys(p.owner for p in shared), shared[0].encoder
            facts = _joined_facts([plans[name].encoder.facts() for name in (owner, *beside)])
        plans[config.name] = StreamPlan(
            name=config.name,
            owner=owner,
            beside=tuple(beside),
            encoder=encoder,
            facts=facts,
            connector=registry.parse("connectors", config.connector),
            integration=registry.parse("integration", config.integration),
        )
    if not plans:
        raise ConfigError("streams: a model needs at least one stream")
    return list(plans.values())


def _shared(names: str | list[str], plans: dict[str, StreamPlan], number: int) -> list[StreamPlan]:
    """Return the streams whose encoders are shared; several have to agree about when their tokens are."""
    names = [names] if isinstance(names, str) else names
    if not names:
        raise ConfigError(f"streams.{number}: encoder names no stream; give a mapping with 'kind', or names")
    for name in names:
        if name not in plans:
            raise ConfigError(
                f"streams.{number}: encoder '{name}' is not an earlier stream; {suggest(name, list(plans))}"
            )
    shared = [plans[name] for name in names]
    clocks = {plan.name: _clock(plan.encoder) for plan in shared}
    if len(set(clocks.values())) > 1:
        told = ", ".join(f"'{name}' {rate:g} per s in {window} samples" for name, (rate, window, _) in clocks.items())
        raise ConfigError(
            f"streams.{number}: features side by side need encoders with the same tokens at the same times; got {told}"
        )
    return shared


def _clock(encoder: EncoderConfig) -> tuple[float, int, tuple[int, ...]]:
    """Return what decides when an encoder's tokens are: rate, window, and how many a shorter clip has."""
    window = encoder.window_samples
    lengths = range(1, window + 1, max(1, window // 64))
    return encoder.facts().rate_hz, window, tuple(map(encoder.num_tokens, lengths))


def _joined_facts(parts: Sequence[EncoderFacts]) -> EncoderFacts:
    """Return the facts of features side by side; hidden layers inside a token are no longer told apart."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        dim=sum(facts.dim for facts in parts),
        num_layers=1,
        windowed=all(facts.windowed for facts in parts),
        prompt_dependent=any(facts.prompt_dependent for facts in parts),
    )


def side_by_side(parts: Sequence[AudioTokens]) -> AudioTokens:
    """Return (C, N, D_1 + D_2 + …) the tokens of several encoders as one.

    Raises:
        DataError: They have different numbers of tokens.
    """
    if len(parts) == 1:
        return parts[0]
    if any(not torch.equal(part.valid, parts[0].valid) for part in parts):
        counts = "; ".join(str(part.counts().tolist()) for part in parts)
        raise DataError(f"features side by side have different numbers of tokens: {counts}")
    return parts[0].with_values(torch.cat([part.values for part in parts], -1))


def resolved(streams: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the streams with every default and every pretrained architecture written out, so that they stand alone."""
    return [
        {
            "name": p.name,
            "encoder": p.encoder.resolved().model_dump() if p.owner == p.name else _names(p),
            "connector": p.connector.model_dump(),
            "integration": p.integration.model_dump(),
        }
        for p in plan(streams)
    ]


def _names(plan: StreamPlan) -> str | list[str]:
    return list(plan.owners) if plan.beside else plan.owner


class Stream(nn.Module):
    """The modules of one stream; `encoder` is None where another stream owns it."""

    encoder: Encoder | None
    connector: Connector
    integration: Integration

    def __init__(self, plan: StreamPlan, text_config: PreTrainedConfig) -> None:
        super().__init__()
        self.plan = plan
        asked = getattr(plan.encoder, "prompt_dim", text_config.hidden_size)
        if asked != text_config.hidden_size:
            raise ConfigError(
                f"stream '{plan.name}': prompt_dim is {asked}, but the decoder's width is {text_config.hidden_size}"
            )
        self.encoder = build_encoder(plan.encoder.model_dump()) if plan.owner == plan.name else None
        self.connector = build_connector(plan.connector.model_dump(), plan.facts, text_config.hidden_size)
        self.integration = build_integration(plan.integration.model_dump(), text_config)
