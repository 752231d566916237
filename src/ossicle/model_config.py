"""What an AudioLM is made of, as `config.json` holds it: the decoder's own config, the streams, and two token ids.

Source: the shape is transformers' own for a model with a part of another architecture.
"""

from __future__ import annotations

import ossicle.lean  # noqa: F401  # isort: skip  (before transformers, which then imports less)
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ossicle.config import validate
from ossicle.errors import ConfigError
from ossicle.focus import FocusConfig


class AudioLMConfig(PreTrainedConfig):
    """Configuration of an AudioLM.

    Attributes:
        text_config: Config of the decoder.
        streams: Settings of each stream (see `ossicle.streams`).
        audio_token_id: Token that marks a clip's place in the text; one per clip.
        audio_slot_id: Token whose rows are replaced by audio (`prepend`); just before the marker.
        focus: What of long recordings is heard (see `ossicle.focus`); None = all of it.
    """

    model_type = "ossicle"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012 (transformers' own shape)

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        streams: list[dict[str, Any]] | None = None,
        audio_token_id: int = 0,
        audio_slot_id: int = 1,
        focus: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config if text_config is not None else AutoConfig.for_model("llama")
        self.streams = [dict(stream) for stream in streams or []]
        self.audio_token_id = audio_token_id
        self.audio_slot_id = audio_slot_id
        self.focus = focus
        kwargs["tie_word_embeddings"] = self.text_config.tie_word_embeddings
        super().__init__(**kwargs)


def check_config(config: AudioLMConfig) -> None:
    """Raise ConfigError when the special tokens do not fit the decoder's vocabulary, or `focus` the streams."""
    size = config.text_config.vocab_size
    if not (0 <= config.audio_token_id < size and 0 <= config.audio_slot_id < size):
        raise ConfigError(f"audio token ids {config.audio_token_id}, {config.audio_slot_id}: the vocabulary has {size}")
    if config.focus is None:
        return
    config.focus = validate(FocusConfig, dict(config.focus), where="focus").model_dump()
    for stream in config.streams:
        if dict(stream.get("integration") or {}).get("kind") == "prepend":
            raise ConfigError(
                f"focus: stream '{stream['name']}' is prepended, and the text keeps a place for each of its tokens; "
                "leave 'focus' out, or let the stream be attended or crossed"
            )


AutoConfig.register("ossicle", AudioLMConfig)
