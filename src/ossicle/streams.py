"""A stream: one encoder, one connector, one integration. A model has one or more; streams may share an encoder.

    streams:
      - {name: sound, encoder: {kind: cnn}, connector: {kind: mlp}, integration: {kind: attend}}
      - {name: tail,  encoder: sound,       connector: {kind: pool}, integration: {kind: prepend}}    shares it

`StreamPlan` is a stream's arithmetic without weights: the processor expands placeholders with it, the model checks
against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field
from torch import nn

from ossicle import registry
from ossicle.config import Section, validate
from ossicle.connectors.base import Connector, ConnectorConfig, build_connector
from ossicle.encoders.base import Encoder, EncoderConfig, build_encoder
from ossicle.errors import ConfigError, suggest
from ossicle.integration.base import Integration, IntegrationConfig, build_integration

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class StreamConfig(Section):
    """Settings of one stream; `encoder` is a mapping with `kind`, or the name of the stream whose encoder it shares."""

    name: str
    encoder: dict[str, Any] | str
    connector: dict[str, Any] = Field(default={"kind": "mlp"})
    integration: dict[str, Any] = Field(default={"kind": "prepend"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """A stream's checked settings and arithmetic, without weights.

    Attributes:
        name: Name of the stream.
        owner: Name of the stream that owns the encoder; its own name unless it shares one.
        encoder: Settings of the encoder.
        connector: Settings of the connector.
        integration: Settings of the integration.
    """

    name: str
    owner: str
    encoder: EncoderConfig
    connector: ConnectorConfig
    integration: IntegrationConfig

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
        if isinstance(config.encoder, str):
            if config.encoder not in plans:
                raise ConfigError(
                    f"streams.{number}: encoder '{config.encoder}' is not an earlier stream; "
                    f"{suggest(config.encoder, list(plans))}"
                )
            owner, encoder = plans[config.encoder].owner, plans[config.encoder].encoder
        else:
            owner, encoder = config.name, registry.parse("encoders", config.encoder)
        plans[config.name] = StreamPlan(
            name=config.name,
            owner=owner,
            encoder=encoder,
            connector=registry.parse("connectors", config.connector),
            integration=registry.parse("integration", config.integration),
        )
    if not plans:
        raise ConfigError("streams: a model needs at least one stream")
    return list(plans.values())


def resolved(streams: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the streams with every default and every pretrained architecture written out, so that they stand alone."""
    return [
        {
            "name": p.name,
            "encoder": p.encoder.resolved().model_dump() if p.owner == p.name else p.owner,
            "connector": p.connector.model_dump(),
            "integration": p.integration.model_dump(),
        }
        for p in plan(streams)
    ]


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
        self.connector = build_connector(plan.connector.model_dump(), plan.encoder.facts(), text_config.hidden_size)
        self.integration = build_integration(plan.integration.model_dump(), text_config)
