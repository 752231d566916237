"""CIDEr-D: how well a caption agrees with several references, by TF-IDF weighted n-grams.

    g_n(c)       = (term count of n-gram) · log(N / clips whose references hold it)           n = 1..4
    s_n(c, r)    = Σ min(g_n(c), g_n(r)) · g_n(r) / (|g_n(c)| |g_n(r)|) · exp(−(l_c − l_r)² / 2σ²)      σ = 6
    CIDEr-D(c)   = 10 · mean over n, mean over references of s_n

Source: Vedantam et al., CIDEr, CVPR 2015, §5 (the D variant); the length l counts bigrams, as the authors' code does.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

MAX_N = 4
SIGMA = 6.0


def words_of(text: str) -> list[str]:
    """Return the lower-case words of a caption without punctuation (hyphens and apostrophes stay inside words)."""
    return re.findall(r"[a-z0-9]+(?:[-'][a-z0-9]+)*", text.lower())


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Return the corpus score (mean) and the score of each clip.

    Args:
        captions: One caption for each clip.
        references: The references of each clip; the document frequencies come from them.
    """
    counted = [[_ngrams(words_of(text)) for text in texts] for texts in references]
    frequency = Counter(gram for clip in counted for gram in set().union(*clip))
    log_clips = math.log(len(references)) if references else 0.0
    scores = []
    for caption, clip in zip(captions, counted, strict=True):
        candidate = _weigh(_ngrams(words_of(caption)), frequency, log_clips)
        total = sum(_similarity(candidate, _weigh(reference, frequency, log_clips)) for reference in clip)
        scores.append(10 * total / (MAX_N * len(clip)))
    return sum(scores) / len(scores), scores


def _ngrams(words: Sequence[str]) -> Counter:
    return Counter(tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1))


def _weigh(counts: Counter, frequency: Counter, log_clips: float) -> tuple[list[dict], list[float], int]:
    """Return the weights by n-gram order, their norms, and the length in bigrams."""
    weights: list[dict] = [{} for _ in range(MAX_N)]
    for gram, count in counts.items():
        weights[len(gram) - 1][gram] = count * (log_clips - math.log(max(1, frequency[gram])))
    norms = [math.sqrt(sum(value * value for value in of_order.values())) for of_order in weights]
    return weights, norms, sum(count for gram, count in counts.items() if len(gram) == 2)


def _similarity(candidate: tuple, reference: tuple) -> float:
    """Return Σ over n-gram orders of the clipped cosine, damped by the difference in length."""
    (weights_c, norms_c, length_c), (weights_r, norms_r, length_r) = candidate, reference
    damping = math.exp(-((length_c - length_r) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for mine, other, norm_c, norm_r in zip(weights_c, weights_r, norms_c, norms_r, strict=True):
        if norm_c and norm_r:
            shared = sum(min(value, other.get(gram, 0.0)) * other.get(gram, 0.0) for gram, value in mine.items())
            total += shared / (norm_c * norm_r) * damping
    return total
