"""A small byte-level BPE trained on a recipe's own text, for decoders that start from random weights.

Every byte has a token, so any text can be written; the markers of the chat template are single tokens; an answer ends
with `<|end|>`. Source: Sennrich et al. (arXiv 1508.07909) on bytes, by the tokenizers library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ossicle.chat import AUDIO_TAG, PLAIN_TOKENS, template
from ossicle.processor import MARKER_TOKEN, SLOT_TOKEN

PAD, END = "<|pad|>", "<|end|>"


def train_bpe(texts: Iterable[str], vocab_size: int, *, chat_template: str = "plain") -> Any:
    """Return a tokenizer of at most `vocab_size` tokens, special ones included.

    Example:
        >>> tokenizer = train_bpe(["rain and wind"] * 9, 300)
        >>> tokenizer.decode(tokenizer("Ünknown")["input_ids"])
        'Ünknown'
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, *dict.fromkeys([*PLAIN_TOKENS, END]), MARKER_TOKEN, SLOT_TOKEN]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.replace(AUDIO_TAG, "") for text in texts), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[token for token in special if token not in (PAD, END)],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = template(chat_template)
    return wrapped
