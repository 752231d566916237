"""Other people's models behind the same questions: transformers' audio models, a cascade, oracle tags, lmms-eval."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from evaluation import tiny_lms
from evaluation.doubles import Deaf, Said
from ossicle.errors import CheckpointError, ConfigError, UnsupportedError
from ossicle.evaluation import lmms
from ossicle.evaluation.audio_lms import TransformersAudioLM, load_audio_lm
from ossicle.evaluation.cascade import Cascade, OracleTags
from ossicle.evaluation.models import open_model
from ossicle.evaluation.rivals import Rival
from ossicle.evaluation.run import Setting, run_suite
from ossicle.types import Waveform


def noise(seconds: float, seed: int) -> Waveform:
    samples = 0.3 * np.random.default_rng(seed).standard_normal(round(16000 * seconds))
    return Waveform(samples=samples.astype(np.float32))


@pytest.mark.parametrize("build", [tiny_lms.qwen2_audio, tiny_lms.audio_flamingo3, tiny_lms.voxtral])
def test_audio_models_of_transformers_answer_through_one_adapter(build, tmp_path):
    """Order, batch size and blind rows change nothing; the sound and the question both reach the model."""
    model = build(tmp_path / "model")
    if not isinstance(model, TransformersAudioLM):
        model = load_audio_lm(str(model), device="cpu", dtype="fp32")
    first, second = noise(1.0, 0), noise(0.6, 1)
    items = [(first, "What is it?"), (None, "What is it?"), (second, "What is it?"), (first, "Is there a dog here?")]
    together = [reply.text for reply in model.answer(items, max_new_tokens=12, batch_size=4)]
    alone = [model.answer([item], max_new_tokens=12, batch_size=1)[0].text for item in items]
    assert together == alone
    assert len(set(together)) == 4, together


def test_a_folder_that_is_no_audio_model_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="expected a folder or hub name of a model such as"):
        load_audio_lm(str(tiny_lms.text_lm(tmp_path / "text")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("lms")
    return tiny_lms.whisper(root / "whisper"), tiny_lms.text_lm(root / "text")


def test_a_cascade_transcribes_each_sound_once_and_asks_a_text_model(folders):
    ears, words = folders
    model, identity = open_model(f"cascade:{ears}+{words}", device="cpu", dtype="fp32")
    assert (identity["name"], identity["transcriber"]) == ("cascade", str(ears))
    transcribe, asked = model.transcribe, []
    model.transcribe = lambda waves: asked.append(len(waves)) or transcribe(waves)
    first, second = noise(1.0, 0), noise(31.0, 1)
    items = [(first, "What?"), (second, "What?"), (first, "Who?"), (None, "What?")]
    together = [reply.text for reply in model.answer(items, max_new_tokens=8, batch_size=4)]
    alone = [model.answer([item], max_new_tokens=8, batch_size=1)[0].text for item in items]
    assert together == alone
    assert len(set(together)) == 4
    assert sum(asked) == 2, "a sound is transcribed once for all its questions"
    heard = model.heard.values()
    assert all(isinstance(text, str) for text in heard)
    assert len(set(heard)) == 2


class Parrot:
    """A text model that repeats what it is told."""

    def __call__(self, prompts, max_new_tokens):
        return [prompt.splitlines()[0] for prompt in prompts]


def test_rivals_stand_in_every_table_and_are_asked_the_same(tiny_root, tmp_path):
    tags = Rival(answerer=OracleTags(Parrot()), facts={"name": "tags", "text_model": "parrot"})
    cascade = Rival(answerer=Cascade(lambda waves: ["rain"] * len(waves), Parrot()), facts={"name": "cascade"})
    setting = Setting(suite="esc10,emodb_emotion,scenes", root=tiny_root, limit=8, rivals=(tags, cascade))
    result = run_suite(setting, Deaf(), out=tmp_path, model={"name": "deaf", "hash": ""}, report=True)
    esc10 = result["tasks"]["esc10"]
    assert esc10["beside"]["tags"]["value"] == 1.0, "who is told the labels names them"
    assert esc10["beside"]["cascade"]["n"] == esc10["n"] == 8
    assert result["tasks"]["emodb_emotion"]["beside"]["tags"]["value"] == 1.0
    assert result["tasks"]["scenes"]["rows"]["order"]["beside"]["tags"]["value"] > 0.9
    page = (tmp_path / "card.md").read_text()
    assert "| cascade | tags | gain |" in page
    alone = run_suite(
        Setting(suite="esc10", root=tiny_root, limit=8), Deaf(), out=tmp_path / "b", model={"name": "deaf", "hash": ""}
    )
    assert "beside" not in alone["tasks"]["esc10"]
    assert "| cascade | tags | gain |" in (tmp_path / "b" / "card.md").read_text(), "the columns are always there"


def test_a_rival_that_fails_is_an_error_in_its_place(tiny_root, tmp_path):
    def broken(waves):
        raise RuntimeError("no ears")

    rival = Rival(answerer=Cascade(broken, Parrot()), facts={"name": "cascade"})
    setting = Setting(suite="esc10", root=tiny_root, limit=8, rivals=(rival,))
    result = run_suite(setting, Deaf(), out=tmp_path, model={"name": "deaf", "hash": ""})
    assert result["tasks"]["esc10"]["beside"]["cascade"] == {"error": "RuntimeError: no ears"}
    assert result["tasks"]["esc10"]["n"] == 8


@pytest.mark.parametrize("spec", ["cascade:only-one", "tags:", "cascade:a+"])
def test_half_named_rivals_are_one_line(spec):
    with pytest.raises(ConfigError, match=r"expected cascade:TRANSCRIBER\+TEXT_MODEL or tags:TEXT_MODEL"):
        open_model(spec)


class Instance:
    """A request with the fields that lmms-eval 0.7 publishes."""

    def __init__(self, *args):
        self.args = args


def test_lmms_eval_runs_ossicle_models(monkeypatch):
    """lmms-eval needs av < 16 and torchvision, so it cannot live beside us: this is its published interface."""
    model = lmms.OssicleLMMS.__new__(lmms.OssicleLMMS)
    heard = []

    class Listener:
        def answer(self, items, *, max_new_tokens, batch_size):
            heard.extend((wave, question, max_new_tokens) for wave, question in items)
            return [Said(f"{question} {max_new_tokens}. Then more") for _, question in items]

    monkeypatch.setattr(lmms, "open_model", lambda name, **_: (Listener(), {"name": name}))
    model.__init__(pretrained="nano", batch_size="4")
    stereo = np.stack([np.ones(8000), np.zeros(8000)])
    model.task_dict = {"t": {"test": [{"audio": {"array": stereo, "sampling_rate": 8000}}, {"audio": None}]}}
    media = lambda doc: [doc["audio"]] if doc["audio"] else []  # noqa: E731
    requests = [
        Instance("A", {"max_new_tokens": 7, "until": ["."]}, media, 0, "t", "test"),
        Instance("B", {"max_new_tokens": 5, "until": "."}, media, 1, "t", "test"),
        Instance("C", {"max_new_tokens": 7}, media, 0, "t", "test"),
    ]
    assert model.generate_until(requests) == ["A 7", "B 5", "C 7. Then more"]
    sounds = {question: wave for wave, question, _ in heard}
    assert sounds["B"] is None
    assert sounds["A"].sample_rate_hz == 16000
    assert len(sounds["A"].samples) == 16000
    assert float(np.median(sounds["A"].samples)) == pytest.approx(0.5, abs=0.01), "channels are averaged"
    with pytest.raises(UnsupportedError, match="hears sounds only"):
        model.generate_until([Instance("A", {}, lambda doc: [object()], 0, "t", "test")])
    assert (model.rank, model.world_size) == (0, 1)


def test_lmms_eval_itself_takes_the_class():
    """Runs where the package is importable (its core needs loguru and pytz beside what we have)."""
    base = pytest.importorskip("lmms_eval.api.model", reason="lmms-eval's own pins exclude ours: not an extra")
    instance = importlib.import_module("lmms_eval.api.instance").Instance
    registry = importlib.import_module("lmms_eval.models.registry_v2").ModelRegistryV2()
    registry.register_manifest(lmms.manifest())
    kind = registry.get_model_class("ossicle")
    assert kind is lmms.OssicleLMMS
    assert issubclass(kind, base.lmms)
    model = kind.create_from_arg_string("pretrained=nano,device=cpu", {"batch_size": 2})
    model.task_dict = {"t": {"test": [{"array": noise(1.0, 0).samples, "sampling_rate": 16000}]}}
    where = {"task": "t", "doc_id": 0, "repeats": 1}
    arguments = ("What do you hear?", {"max_new_tokens": 16}, lambda doc: [doc], 0, "t", "test")
    request = instance(request_type="generate_until", arguments=arguments, idx=0, metadata=where)
    (answer,) = model.generate_until([request])
    assert answer == model.answerer.answer([(noise(1.0, 0), "What do you hear?")], max_new_tokens=16)[0].text
