"""Published LTU and LTU-AS checkpoints: every tensor finds its place, and the model computes what theirs did."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig, WhisperModel

from ossicle.cli.app import run
from ossicle.data import ltu_batch
from ossicle.encoders.tensors import read_tensors
from ossicle.errors import CheckpointError
from ossicle.inference.engine import load as load_model
from ossicle.loss import IGNORE
from ossicle.training.published import compare, import_ltu
from ossicle.training.recipe import load
from ossicle.types import AudioTokens

LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 4,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 80,
}


@pytest.fixture
def tokenizer(tmp_path):
    """As many words as the decoder of the golden numbers has; marker and slot come after them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(3, 61))]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {"pad_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def recipe(tmp_path, tokenizer):
    """`ltu-as` at a tenth of a thousandth of its size."""
    whisper = tmp_path / "whisper"
    WhisperModel(WhisperConfig(**WHISPER)).save_pretrained(whisper)

    def write(lora=True, base="ltu-as"):
        values = {"base": base, "name": "small", "model": {"language_model": {"pretrained": None, "dtype": "float32"}}}
        values["model"]["language_model"]["architecture"] = LLAMA
        values["model"]["tokenizer"] = {"pretrained": str(tokenizer)}
        if not lora:
            values["model"]["lora"] = None
        path = tmp_path / f"{base}-small.yaml"
        path.write_text(yaml.safe_dump(values))
        sizes = {
            "ltu-as": f"{{kind: whisper, pretrained: {whisper}, architecture: null, window_s: 10.0, layers: all, "
            "pool: 20, compat: ltu}",
            "ltu": "{kind: ltu_ast, dim: 16, depth: 2, heads: 2}",
        }[base]
        return load(str(path), [f"model.streams.0.encoder={sizes}"])

    return write


def published(model, prefix="base_model.model."):
    """The state of a model under the official names: the reverse of what is tested, written by hand."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("language_model."):
            name = name.removeprefix("language_model.").replace(".base_layer.", ".").replace(".default.", ".")
        elif ".connector.projection." in name:
            name = "model.audio_proj." + name.split("projection.")[1]
        elif ".connector.layers." in name:
            name = "model.audio_proj." + name.split("layers.")[1]
        elif ".connector." in name:
            name = "model.audio_encoder." + name.split(".connector.")[1]
        else:
            continue
        state[prefix + name] = torch.randn(tensor.shape)
    return state


def test_every_tensor_of_ltu_as_finds_its_place(recipe, tmp_path):
    from ossicle.training.build import outline

    loaded = recipe()
    state = published(outline(loaded.recipe)) | {
        "base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    built, report = import_ltu(loaded, [tmp_path / "pytorch_model.bin"])
    assert (report.missing, report.unexpected, report.misshapen) == ([], [], [])
    assert len(report.loaded) == len(state) - 1 == len(report.loaded.values())
    assert len(set(report.loaded.values())) == len(state) - 1
    ours = built.model.state_dict()
    at = "base_model.model.model.layers.1.self_attn.v_proj."
    folded = state[at + "weight"] + 2 * state[at + "lora_B.weight"] @ state[at + "lora_A.weight"]
    torch.testing.assert_close(ours["language_model.model.layers.1.self_attn.v_proj.weight"], folded)
    mixed = state["base_model.model.model.audio_encoder.layer_tr.attn.key.weight"]
    assert torch.equal(ours["streams.audio.connector.layer_tr.attn.key.weight"], mixed)
    assert torch.equal(ours["language_model.lm_head.weight"][:61], state["base_model.model.lm_head.weight"])


def test_what_does_not_fit_is_named_before_anything_is_built(recipe, tmp_path, monkeypatch):
    from ossicle.training import published as module
    from ossicle.training.build import outline

    loaded = recipe()
    state = published(outline(loaded.recipe))
    key = "base_model.model.model.audio_proj.1.weight"
    for change, words in (
        ({key: None}, "1 missing, first streams.audio.connector.projection.1.weight"),
        ({"base_model.model.model.surprise": torch.ones(2)}, "1 unexpected, first base_model.model.model.surprise"),
        ({key: torch.ones(3, 4)}, r"1 of another shape, first base_model.model.model.audio_proj.1.weight \(\[3, 4\]"),
    ):
        changed = {name: tensor for name, tensor in (state | change).items() if tensor is not None}
        torch.save(changed, tmp_path / "wrong.bin")
        with monkeypatch.context() as patch:
            patch.setattr(module, "build", lambda *_: pytest.fail("built before the names were checked"))
            with pytest.raises(CheckpointError, match=words) as caught:
                import_ltu(loaded, [tmp_path / "wrong.bin"])
        assert len(str(caught.value).splitlines()) == 1
    report = import_ltu(loaded, [tmp_path / "wrong.bin"], partial=True)[1]
    assert report.misshapen


def test_ltu_brings_its_own_encoder(recipe, tmp_path):
    from ossicle.encoders.base import build_encoder
    from ossicle.training.build import outline

    loaded = recipe(base="ltu")
    outlined = outline(loaded.recipe)
    state = published(outlined)
    encoder = build_encoder({"kind": "ltu_ast", "dim": 16, "depth": 2, "heads": 2})
    back = {"positions": "pos_embed_a", "modality": "modality_a"}
    for name, tensor in encoder.state_dict().items():
        place, _, rest = name.partition(".")
        if place in ("blocks", "unused"):
            number, _, inner = rest.partition(".")
            own = (
                inner.replace("norm1.", "norm1_a.").replace("norm2.", "norm2_a.")
                if number == "1" and place == "blocks"
                else inner
            )
            name = f"blocks_a.0.{inner}" if number == "0" else f"blocks_u.0.{own}"
        else:
            name = back.get(name) or name.replace("patches.", "patch_embed_a.").replace("norm.", "norm_a.")
        state[f"base_model.model.model.audio_encoder.{name}"] = torch.randn(tensor.shape)
    report = compare(state, outlined)
    assert (report.missing, report.unexpected, report.misshapen) == ([], [], [])
    assert sum(name.startswith("streams.audio.encoder.") for name in report.loaded.values()) == len(
        encoder.state_dict()
    )


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    torch.save({"a": Bomb()}, tmp_path / "bomb.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_tensors([tmp_path / "bomb.bin"])
    assert not (tmp_path / "ran").exists()
    (tmp_path / "short.pt").write_bytes((tmp_path / "bomb.bin").read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"short\.pt"):
        read_tensors([tmp_path / "short.pt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no weights there"):
        read_tensors([tmp_path / "empty"])


@pytest.fixture
def golden(golden_root):
    return load_file(golden_root / "ltu" / "ltuas_language_model.safetensors")


@pytest.fixture
def official(golden, recipe, tmp_path):
    """The official weights under their own names, through the verb, as a model."""
    weights = {n.removeprefix("weights."): v for n, v in golden.items() if n.startswith("weights.")}
    torch.save({f"base_model.model.{name}": value for name, value in weights.items()}, tmp_path / "pytorch_model.bin")
    loaded = recipe(lora=False)
    built, report = import_ltu(loaded, [tmp_path / "pytorch_model.bin"])
    assert not report.problem()
    return built


def _tokens(golden, row):
    values = golden["audio_input"][row].transpose(0, 1).flatten(1)[None]
    return {"audio": AudioTokens(values=values, valid=torch.ones(1, 25, dtype=torch.bool), rate_hz=2.5)}


def _batch(golden, processor, rows):
    """Rows as `training_ids` gives them: slots, marker, then the text without its padding."""
    ids = []
    for row in rows:
        text = golden["input_ids"][row][golden["text_mask"][row].bool()].tolist()
        head = [processor.audio_slot_id] * 25 + [processor.audio_token_id]
        ids.append((head + text, [IGNORE] * 26 + text))
    return ids


def test_a_training_batch_equals_the_official_one(golden, official):
    model, processor = official.model.eval(), official.processor
    inputs = ltu_batch.lay_out(_batch(golden, processor, range(3)), processor)
    assert torch.equal(inputs["input_ids"][:, 26:], golden["input_ids"])
    assert torch.equal(inputs["attention_mask"][:, 26:], golden["text_mask"])
    tokens = [_tokens(golden, row)["audio"] for row in range(3)]
    heard = {
        "audio": tokens[0].with_values(
            torch.cat([t.values for t in tokens]), valid=torch.cat([t.valid for t in tokens])
        )
    }
    with torch.no_grad():
        out = model(**inputs, audio_tokens=heard)
    real = golden["text_mask"].bool()
    assert (out.logits[:, 26:, :61] - golden["train.logits"])[real].abs().max() < 1e-5


def test_alone_and_padded_rows_have_the_official_loss(golden, official):
    """Only 61 of our words are the official ones; the loss is taken over those."""
    model, processor = official.model.eval(), official.processor
    for rows, name in (([0], "single0"), ([1], "single1"), ([2], "single2"), ([0, 1, 2], "train")):
        tokens = [_tokens(golden, row)["audio"] for row in rows]
        heard = {
            "audio": tokens[0].with_values(
                torch.cat([t.values for t in tokens]), valid=torch.cat([t.valid for t in tokens])
            )
        }
        inputs = ltu_batch.lay_out(_batch(golden, processor, rows), processor)
        if name != "train":  # alone, a row is not padded to a multiple of 8
            gap = (inputs["attention_mask"][0, 26:] == 0).sum()
            inputs = {k: torch.cat([v[:, :26], v[:, 26 + gap :]], 1) for k, v in inputs.items()}
            inputs["position_ids"][:, 26:] -= gap
            inputs["labels"][:, 26] = IGNORE
        labels = inputs.pop("labels")
        with torch.no_grad():
            logits = model(**inputs, audio_tokens=heard).logits[..., :61]
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert abs(float(loss) - float(golden[f"{name}.loss"])) < 1e-5
        if name != "train":
            assert (logits[0, 26:] - golden[f"{name}.logits"]).abs().max() < 1e-5


def test_without_audio_it_is_the_bare_decoder(golden, official):
    ids = golden["input_ids"][0][golden["text_mask"][0].bool()][None]
    with torch.no_grad():
        logits = official.model.eval()(input_ids=ids).logits[0, :, :61]
    assert (logits - golden["text_only0.logits"]).abs().max() < 1e-5
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    assert abs(float(loss) - float(golden["text_only0.loss"])) < 1e-5


def test_generation_takes_the_official_steps(golden, official):
    model, processor = official.model.eval(), official.processor
    ids = torch.tensor([_batch(golden, processor, [0])[0][0]])
    mask = processor.pad(ids.tolist())["attention_mask"]
    count = len(golden["greedy0.tokens"])
    _, placement = model.remember(ids, mask, model.connect(_tokens(golden, 0)))
    heard = mask[0].bool()
    assert placement.positions[0, heard].tolist() == golden["greedy0.first_positions"].tolist()
    assert int(heard.sum()) == int(golden["greedy0.later_positions"][0])
    blocked = list(range(61, model.config.text_config.vocab_size))
    out = model.generate(
        ids,
        attention_mask=mask,
        audio_tokens=_tokens(golden, 0),
        max_new_tokens=count,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        suppress_tokens=blocked,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert out.sequences[0, ids.shape[1] :].tolist() == golden["greedy0.tokens"].tolist()
    got = torch.cat(out.logits)[:, :61]
    assert (got - golden["greedy0.step_logits"]).abs().max() < 1e-5


def test_padded_rows_generate_as_alone(golden, official):
    """The official generation is wrong for a padded batch; ours is the row's own."""
    model, processor = official.model.eval(), official.processor
    inputs = processor.pad([ids for ids, _ in _batch(golden, processor, [0, 2])])
    tokens = [_tokens(golden, row)["audio"] for row in (0, 2)]
    heard = {
        "audio": tokens[0].with_values(
            torch.cat([t.values for t in tokens]), valid=torch.cat([t.valid for t in tokens])
        )
    }
    with torch.no_grad():
        last = model(**inputs, audio_tokens=heard).logits[0, -1, :61]
    assert (last - golden["single0.logits"][-1]).abs().max() < 1e-5
    assert (last - golden["padded_generate.last_logits"][0]).abs().max() > 1e-2
    _, placement = model.remember(inputs["input_ids"], inputs["attention_mask"], model.connect(heard))
    ours = [row[mask.bool()] for row, mask in zip(placement.positions, inputs["attention_mask"], strict=True)]
    assert all(row.tolist() == [*range(len(row))] for row in ours)
    assert golden["padded_generate.position_ids"][0, :25].tolist() != [*range(25)]  # theirs: the pads' ones come first


def test_the_verb_writes_a_model_and_a_full_report(golden, recipe, tmp_path, capsys):
    weights = {n.removeprefix("weights."): v for n, v in golden.items() if n.startswith("weights.")}
    save_file({f"base_model.model.{n}": v.contiguous() for n, v in weights.items()}, tmp_path / "x.safetensors")
    loaded = recipe(lora=False)
    small = tmp_path / "resolved.yaml"
    small.write_text(yaml.safe_dump(json.loads(loaded.recipe.model_dump_json())))
    out = tmp_path / "model"
    assert run(["export", str(small), "--from-ltu", str(tmp_path / "x.safetensors"), "--out", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["report"]["loaded"]) == len(weights)
    assert result["report"]["missing"] == [] and result["report"]["decoder"] is True
    engine = load_model(out)
    answer = engine.answer([((torch.zeros(8000).numpy(), 16000), "What is it?")], max_new_tokens=3)[0]
    assert answer.audio_tokens == 25
