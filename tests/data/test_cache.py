"""Kept encoder outputs equal fresh ones, are found again, and are refused where they would be wrong."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ossicle.chat import template, with_system
from ossicle.data import cache_file
from ossicle.data.cache import CLIPS_PER_PASS, FeatureCache, fingerprint
from ossicle.data.cache_shard import claim, narrow
from ossicle.data.collate import Collator, perturb
from ossicle.data.sample import AudioRef, MadeAudio, Sample, identity, question, waveform
from ossicle.errors import AudioError, ConfigError, DataError
from ossicle.model import AudioLM, AudioLMConfig
from ossicle.processor import AudioProcessor
from ossicle.tiny import TINY_ENCODERS, tiny_decoder_config
from ossicle.training import freeze
from ossicle.training.tokenizer import train_bpe
from ossicle.types import Waveform

ENCODER = {"kind": "cnn", "channels": [4, 4, 4, 4], "dim": 16, "depth": 1, "heads": 2, "num_mels": 16, "window_s": 0.5}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "int8"}
STREAMS = [
    {"name": "a", "encoder": ENCODER, "connector": {"kind": "mlp"}, "integration": {"kind": "prepend"}},
    {"name": "b", "encoder": "a", "connector": {"kind": "mlp"}, "integration": {"kind": "attend"}},
]


@pytest.fixture(scope="module")
def processor() -> AudioProcessor:
    tokenizer = train_bpe(["What is it? Rain and wind. <audio>"] * 5, 300)
    return AudioProcessor(tokenizer, STREAMS)


@pytest.fixture
def model(processor: AudioProcessor) -> AudioLM:
    return hearing(processor)


def hearing(processor: AudioProcessor, streams: list[dict[str, Any]] = STREAMS, **sizes: int) -> AudioLM:
    """Return a model whose connector learns, its decoder tiny but for some sizes."""
    torch.manual_seed(0)
    config = AudioLMConfig(
        tiny_decoder_config("llama", vocab_size=400, **sizes),
        streams,
        audio_token_id=processor.audio_token_id,
        audio_slot_id=processor.audio_slot_id,
    )
    made = AudioLM.new(config)
    freeze.set_trainable(made, ["connector"])
    return made


def clip(number: int, made: list[int] | None = None) -> MadeAudio:
    def make() -> Waveform:
        if made is not None:
            made.append(number)
        rng = np.random.default_rng(number)
        return Waveform(samples=rng.normal(0, 0.1, 3000 + 700 * (number % 9)).astype(np.float32))

    return MadeAudio(make=make, name=f"noise|{number}")


def samples(count: int, made: list[int] | None = None) -> list[Sample]:
    answers = ["Wind and rain.", "Rain."]
    return [question("What is it?", answers[n % 2], [clip(n, made)], id=str(n)) for n in range(count)]


def fill(cache: FeatureCache, count: int, made: list[int] | None = None) -> int:
    return sum(cache.fill(clip(number, made) for number in range(count)))


def total(model: AudioLM, collator: Collator, chosen: list[Sample]) -> Tensor:
    batch = collator(chosen)
    return model(**batch.inputs, num_items_in_batch=1).loss


def test_training_from_the_cache_is_training_from_sound(
    model: AudioLM, processor: AudioProcessor, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path, model, dtype=torch.float32)
    assert fill(cache, 6) == 6
    kept, fresh = Collator(processor, cache=cache), Collator(processor)
    for chosen in (samples(6), samples(6)[2:3], [*samples(2), question("Why?", "So.", [])]):
        a, b = total(model, kept, chosen), total(model, fresh, chosen)
        assert float(a.detach()) == pytest.approx(float(b.detach()), rel=1e-5)
    a.backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.streams["b"].connector.parameters())


def test_what_is_kept_is_found_again_and_nothing_is_made_twice(model: AudioLM, tmp_path: Path) -> None:
    made: list[int] = []
    cache = FeatureCache(tmp_path, model)
    fill(cache, CLIPS_PER_PASS + 3, made)
    assert sorted(made) == list(range(CLIPS_PER_PASS + 3))
    again = FeatureCache(tmp_path, model)
    assert len(again) == CLIPS_PER_PASS + 3
    fill(again, CLIPS_PER_PASS + 3, made)
    features = again.get(clip(5, made))
    assert len(made) == CLIPS_PER_PASS + 3
    assert features.num_samples == 3000 + 700 * 5
    assert features.values["a"].dtype == torch.float16
    assert set(features.values) == {"a"}
    assert len(list(again.folder.glob("*.safetensors"))) == 1


def test_clips_that_come_with_others_are_not_encoded_again(model: AudioLM, tmp_path: Path) -> None:
    """Another seed draws other clips of the same source, so that the groups they come in are others too."""
    made: list[int] = []
    fill(FeatureCache(tmp_path, model), 5, made)
    again = FeatureCache(tmp_path, model)
    assert sum(again.fill(clip(number, made) for number in (2, 7, 0, 9, 4))) == 5
    assert made == [0, 1, 2, 3, 4, 7, 9]
    assert len(FeatureCache(tmp_path, model)) == 7


def test_an_unseen_clip_is_encoded_on_the_spot(model: AudioLM, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, model, dtype=torch.float32)
    assert clip(3) not in cache
    on_the_spot = cache.get(clip(3)).values["a"]
    fill(cache, 5)
    assert clip(3) in cache
    assert torch.allclose(cache.get(clip(3)).values["a"], on_the_spot, atol=1e-5)


def test_other_weights_settings_or_dtype_have_another_folder(model: AudioLM) -> None:
    before = fingerprint(model, torch.float16)
    assert before == fingerprint(model, torch.float16)
    assert before != fingerprint(model, torch.float32)
    with torch.no_grad():
        model.streams["a"].connector.layers[0].weight += 1
    assert before == fingerprint(model, torch.float16)
    with torch.no_grad():
        next(model.streams["a"].encoder.buffers()).add_(1)
    assert before != fingerprint(model, torch.float16)


def test_what_of_long_clips_is_heard_and_how_a_mixture_is_joined_have_another_folder(
    model: AudioLM, processor: AudioProcessor
) -> None:
    whole = fingerprint(model, torch.float16)
    model.config.focus = {"over_s": 0.2, "keep_s": 1, "stretch_s": 1}
    assert fingerprint(model, torch.float16) != whole

    def features(align: str) -> tuple[str, Tensor]:
        mixture = {"kind": "concat", "base": ENCODER, "pool": [TINY_ENCODERS["whisper"]], "align": align}
        made = hearing(processor, [{**STREAMS[0], "encoder": mixture}])
        tokens = made.encode(torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)), torch.tensor([8000]))
        return fingerprint(made, torch.float16), tokens["a"].values

    (key, values), (other, others) = features("overlap"), features("nearest")
    assert not torch.equal(values, others)
    assert key != other


def test_values_too_large_for_half_precision_stay_exact() -> None:
    assert narrow(torch.tensor([[1.0, 2.0]]), torch.float16)[0].dtype == torch.float16
    assert torch.equal(narrow(torch.tensor([[1.0, 1e6]]), torch.float16)[0], torch.tensor([[1.0, 1e6]]))


@pytest.mark.parametrize(
    ("dtype", "share", "least", "most"),
    [
        (torch.float32, 4, 0, 0),
        (torch.float16, 2, 1e-5, 4e-4),
        (torch.bfloat16, 2, 1e-4, 3e-3),
        (torch.int8, 1, 1e-3, 1e-2),
    ],
)
def test_the_loss_that_is_told_is_the_loss_that_is_there(
    model: AudioLM, tmp_path: Path, dtype: torch.dtype, share: int, least: float, most: float
) -> None:
    exact = FeatureCache(tmp_path / "exact", model, dtype=torch.float32)
    fill(exact, 6)
    kept = FeatureCache(tmp_path, model, dtype=dtype)
    fill(kept, 6)
    told = FeatureCache(tmp_path, model, dtype=dtype).loss()["a"]
    pairs = [(exact.get(clip(n)).values["a"], kept.get(clip(n)).values["a"].float()) for n in range(6)]
    lost = sum(float((a - b).square().sum()) for a, b in pairs)
    assert told == pytest.approx((lost / sum(float(a.square().sum()) for a, _ in pairs)) ** 0.5, abs=2e-6)
    assert least <= told <= most
    per_token = ENCODER["dim"] * share + 4 * (dtype is torch.int8)
    planned = cache_file.plan(model, {clip(0): 2.0}, NAMES[dtype])
    assert planned["bytes"] == round(2.0 * kept.rates_hz["a"] * per_token)


def test_what_is_damaged_is_seen_on_reading_and_made_again(model: AudioLM, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, model)
    fill(cache, 4)
    (path,) = cache.folder.glob("*.safetensors")
    right = cache.get(clip(2)).values["a"].clone()
    data = path.read_bytes()
    number = cache.get(clip(2)).values["a"].numpy().tobytes()
    path.write_bytes(data.replace(number, b"\x01\x02" + number[2:]))
    damaged = FeatureCache(tmp_path, model)
    assert torch.allclose(damaged.get(clip(2)).values["a"].half(), right, atol=1e-2)  # encoded on the spot
    assert (damaged.damaged, len(damaged)) == (1, 3)
    again = FeatureCache(tmp_path, model)
    assert again.verify() == 1
    assert fill(again, 4) == 4
    assert FeatureCache(tmp_path, model).verify() == 0
    path.write_bytes(data[: len(data) // 2])
    cut = FeatureCache(tmp_path, model)
    assert (cut.damaged, len(cut)) == (1, 0)
    assert fill(cut, 4) == 4
    assert path.read_bytes() == data


def test_a_file_that_another_process_makes_is_taken_from_it(model: AudioLM, tmp_path: Path) -> None:
    made: list[int] = []
    first, second = FeatureCache(tmp_path, model), FeatureCache(tmp_path, model)
    fill(first, 3)
    (path,) = first.folder.glob("*.safetensors")
    with claim(path, wait=False) as mine:  # the first one is still at it
        assert mine
        steps = second.fill(clip(number, made) for number in range(3))
        assert not second._shard([clip(number, made) for number in range(3)], wait=False)
    assert list(steps) == [3]
    assert (made, len(second)) == ([], 3)
    assert [path.name for path in first.folder.iterdir() if path.suffix != ".safetensors"] == []


def fill_counting(model: AudioLM, folder: Path, count: int, barrier: Any, made: Any) -> None:
    """Fill a cache in a process of its own, from the moment that all are there; note which clips it made."""
    torch.set_num_threads(1)
    mine: list[int] = []
    cache = FeatureCache(folder, model)
    barrier.wait()
    for _ in cache.fill(slowly(clip(number, mine)) for number in range(count)):
        pass
    made.put(sorted(set(mine)))


def slowly(audio: MadeAudio) -> MadeAudio:
    """As from a slow disk: whoever waits leaves the processor to the others, however few there are."""

    def make() -> Waveform:
        time.sleep(0.02)
        return audio.make()

    return replace(audio, make=make)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_fill_one_folder_at_once(model: AudioLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both go through all clips; each file is made by one of them, once, and what is kept is what one alone keeps."""
    monkeypatch.setattr("ossicle.data.cache.CLIPS_PER_PASS", 4)
    monkeypatch.setattr("ossicle.data.cache.PASSES_PER_SHARD", 1)
    alone = FeatureCache(tmp_path / "alone", model)
    fill(alone, 40)
    forks = multiprocessing.get_context("fork")
    barrier, made = forks.Barrier(2), forks.SimpleQueue()
    both = [forks.Process(target=fill_counting, args=(model, tmp_path / "both", 40, barrier, made)) for _ in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for process in both:
            process.start()
        one, other = made.get(), made.get()
        for process in both:
            process.join(60)
    finally:
        torch.set_num_threads(threads)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(one + other) == list(range(40))  # nothing twice
    assert one
    assert other
    together = FeatureCache(tmp_path / "both", model)
    assert (together.verify(), len(together)) == (0, 40)
    for number in range(40):
        assert torch.equal(together.get(clip(number)).values["a"], alone.get(clip(number)).values["a"])
    names = [sorted(path.name for path in cache.folder.iterdir()) for cache in (alone, together)]
    assert names[0] == names[1]
    assert len(names[0]) == 10


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take processor time too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.alone
def test_training_from_disk_is_as_fast_as_from_memory(
    processor: AudioProcessor, tmp_path: Path, one_thread: None
) -> None:
    """With a decoder of nano's size, not a tiny one that is done before a file is read."""
    nano = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "head_dim": 64}
    model = hearing(processor, **nano, num_attention_heads=4, num_key_value_heads=4)
    cache = FeatureCache(tmp_path, model)
    fill(cache, 64)
    cache = FeatureCache(tmp_path, model)
    held = {identity(clip(n)): cache.get(clip(n)) for n in range(64)}
    memory = SimpleNamespace(get=lambda audio: held[identity(audio)])
    cache = FeatureCache(tmp_path, model)
    times: dict[str, list[float]] = {"disk": [], "memory": []}
    for turn in range(60):
        for name, source in (("disk", cache), ("memory", memory))[:: 1 if turn % 2 else -1]:
            started = time.process_time()
            total(model, Collator(processor, cache=source), samples(64)[turn % 4 :: 4]).backward()
            times[name].append(time.process_time() - started)
    share = sorted(times["memory"])[30] / sorted(times["disk"])[30]
    print(f"training from disk: {100 * share:.1f} % of the speed from memory")
    assert share >= 0.95


def test_an_encoder_that_trains_is_refused(model: AudioLM, tmp_path: Path) -> None:
    freeze.set_trainable(model, ["connector", "streams.a.encoder"])
    with pytest.raises(ConfigError, match="encoder of stream 'a' trains in this stage"):
        FeatureCache(tmp_path, model)


def test_a_half_written_shard_is_not_there(model: AudioLM, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, model)
    (cache.folder / "shard-0.writing").write_bytes(b"half")
    assert len(FeatureCache(tmp_path, model)) == 0


def test_identity_follows_the_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"one")
    first = identity(AudioRef(path=path))
    assert first == identity(AudioRef(path=path))
    assert first != identity(AudioRef(path=path, start_s=1.0))
    path.write_bytes(b"three")
    assert first != identity(AudioRef(path=path))
    a, b = (Waveform(samples=np.full(10, value, dtype=np.float32)) for value in (0.0, 0.1))
    assert identity(a) != identity(b)
    assert waveform(a) is a
    with pytest.raises(AudioError, match="cannot be read"):
        identity(AudioRef(path=tmp_path / "none.wav"))


def test_a_batch_has_labels_on_answers_only_and_counts_them(processor: AudioProcessor) -> None:
    told = with_system(str(processor.chat_template), "Be brief.")
    batch = Collator(AudioProcessor(processor.tokenizer, STREAMS, chat_template=told))(samples(3))
    ids, labels = batch.inputs["input_ids"], batch.inputs["labels"]
    for row, sample in enumerate(samples(3)):
        said = processor.tokenizer.decode(ids[row][labels[row] != -100])
        assert said.startswith(sample.messages[1]["content"])
        assert "Be brief." in processor.tokenizer.decode(ids[row])
    assert batch.count == int((labels[:, 1:] != -100).sum())
    assert batch.ids == ["0", "1", "2"]
    assert batch.inputs["audio_lengths"].tolist() == [3000, 3700, 4400]


def test_a_transcript_goes_where_the_template_wants_it(processor: AudioProcessor) -> None:
    spoken = Sample(
        messages=(
            {"role": "user", "content": "What is said?", "transcript": "hello"},
            {"role": "assistant", "content": "Hello."},
        ),
        id="1",
    )
    plain = processor.tokenizer.decode(Collator(processor)([spoken]).inputs["input_ids"][0])
    assert "What is said?\nhello" in plain
    other = AudioProcessor(processor.tokenizer, STREAMS, chat_template=template("alpaca"))
    alpaca = processor.tokenizer.decode(Collator(other)([spoken]).inputs["input_ids"][0])
    assert "### Input:\nhello\n" in alpaca


def broken(number: int) -> Sample:
    return question("?", "x", [AudioRef(path=Path("nowhere") / f"{number}.wav")], id=f"broken{number}")


def test_a_clip_that_takes_too_long_is_left_out_and_counted(processor: AudioProcessor) -> None:
    never = threading.Event()
    stuck = MadeAudio(make=lambda: never.wait(60) and clip(0).make(), name="stuck|0")
    collator = Collator(processor, max_skipped=0.5, patience_s=0.5)
    try:
        batch = collator([*samples(2), question("?", "x", [stuck], id="stuck")])
    finally:
        never.set()
    assert batch.ids == ["0", "1"]
    assert collator.skips == {"took longer than 0.5 s to read": 1}


def test_unreadable_clips_are_left_out_counted_and_bounded(processor: AudioProcessor) -> None:
    collator = Collator(processor, max_skipped=0.5)
    batch = collator([*samples(2), broken(0)])
    assert batch.ids == ["0", "1"]
    assert sum(collator.skips.values()) == 1
    empty = collator([broken(1)])
    assert (empty.count, empty.ids, sum(collator.skips.values())) == (0, [], 2)
    assert set(empty.inputs) == {"input_ids", "attention_mask", "labels"}
    assert set(empty.inputs["labels"].flatten().tolist()) == {-100}
    with pytest.raises(DataError, match=r"of \d+ samples have unreadable audio, the last: "):
        for number in range(40):
            collator([*samples(1), broken(number), broken(number)])


def test_dropout_and_shuffling_take_their_shares_and_change_nothing_else() -> None:
    chosen = samples(400)
    out = perturb(chosen, 0.2, 0.1, np.random.default_rng(0))
    silent = [s for s in out if not s.audios]
    swapped = [(a, b) for a, b in zip(chosen, out, strict=True) if b.audios and a.audios != b.audios]
    assert 50 < len(silent) < 110
    assert 20 < len(swapped) < 65
    assert all("<audio>" not in s.messages[0]["content"] for s in silent)
    assert [s.messages[1] for s in out] == [s.messages[1] for s in chosen]
    assert perturb(chosen, 0.0, 0.0, np.random.default_rng(0)) == chosen
    assert perturb(chosen, 0.2, 0.1, np.random.default_rng(0)) == out
