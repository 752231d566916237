"""`eval --usage`: which weak encoders a mixture uses, by task and class, as a table and a picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

from ossicle.cli.app import run

CNN = {"kind": "cnn", "dim": 16, "channels": [4, 4, 8, 8], "depth": 1, "heads": 2, "num_mels": 16}
MOWE = {"kind": "mowe", "base": CNN, "pool": [{**CNN, "dim": 8}, {**CNN, "dim": 12}]}
TASK = """
task: machines
source: {kind: clips, manifest: machines/manifest.jsonl}
rows:
  state: {questions: ["What state is it in?"], truth: label, parser: label, max_new_tokens: 2}
"""


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "machines"
    folder.mkdir(parents=True)
    rows = []
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", np.sin(np.arange(4800) / (3 + number)).astype(np.float32) / 3, 16000)
        rows.append(json.dumps({"path": f"{number}.wav", "label": ["idle", "busy"][number % 2], "duration_s": 0.3}))
    (folder / "manifest.jsonl").write_text("\n".join(rows))
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path / "data"


def model_folder(path, encoder):
    from ossicle.model import AudioLM, AudioLMConfig
    from ossicle.processor import AudioProcessor
    from ossicle.tiny import tiny_decoder_config
    from ossicle.training.tokenizer import train_bpe

    tokenizer = train_bpe(["What state is it in? idle busy"] * 3, 330)
    marker, slot = AudioProcessor.add_tokens(tokenizer)
    torch.manual_seed(0)
    streams = [{"name": "ear", "encoder": encoder, "connector": {"kind": "mlp"}, "integration": {"kind": "attend"}}]
    text = tiny_decoder_config(vocab_size=len(tokenizer))
    model = AudioLM.new(AudioLMConfig(text, streams, audio_token_id=marker, audio_slot_id=slot))
    model.save_pretrained(path)
    AudioProcessor(tokenizer, model.config.streams).save_pretrained(path)
    return str(path)


def test_usage_by_task_and_class(root, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = ["eval", model_folder(tmp_path / "m", MOWE), "--task", str(tmp_path / "task.yaml"), "--root", str(root)]
    assert run([*words, "--out", str(tmp_path / "out"), "--no-controls", "--usage", "--json"]) == 0
    usage = json.loads(capsys.readouterr().out)["usage"]
    table = usage["table"]["ear"]
    assert set(table) == {"independent", "dependent"}
    for groups in table.values():
        assert set(groups) == {"machines", "machines: busy", "machines: idle"}
        both = [sum(groups[f"machines: {name}"].values()) for name in ("busy", "idle")]
        assert sum(groups["machines"].values()) == pytest.approx(sum(both) / 2, rel=1e-5)
        assert 0 < both[0] <= 1.0001
    assert json.loads((tmp_path / "out" / "usage.json").read_text())["ear"] == table
    assert (tmp_path / "out" / "usage-ear.png").read_bytes()[:4] == b"\x89PNG"


def test_a_model_without_routers_is_refused_before_it_is_asked(root, tmp_path, capsys):
    words = ["eval", model_folder(tmp_path / "m", CNN), "--task", str(tmp_path / "task.yaml"), "--root", str(root)]
    assert run([*words, "--out", str(tmp_path / "out"), "--usage"]) == 2
    assert "no mixture with routers" in capsys.readouterr().err
    assert not (tmp_path / "out" / "card.json").exists()
