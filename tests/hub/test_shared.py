"""Shared models: what is written, what its card says, and the way to a Hub and back, byte for byte."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import svg
from experiments import evaluate, export, render, train
from svg.hub.card import command_of
from svg.runs import checkpoint
from svg.training.loop import Training
from tests.support.hub import environment, hub_server
from tests.support.places import ROOT
from tests.support.recordings import contents
from tests.support.runs import assert_same, changed, make_config, weights

REFUSED = "refused by the Hugging Face Hub"
FILES = {"README.md", "checkpoint.json", "config.json", "model.safetensors"}


@pytest.fixture(scope="module")
def scored(data_root, tmp_path_factory) -> Path:
    """Train a run of one epoch, score it and draw it."""
    run = tmp_path_factory.mktemp("scored") / "run"
    Training(make_config(data_root, run, niter=1)).fit()
    assert evaluate.main([str(run), "--n_sample", "3", "--device", "cpu"]) == 0
    assert render.main([str(run), "--n_sample", "0", "--device", "cpu"]) == 0
    return run


@pytest.fixture
def run(scored, tmp_path) -> Path:
    return shutil.copytree(scored, tmp_path / "run")


def load(model: object) -> svg.models.predictor.Predictor:
    return svg.load(model, device="cpu", precision="float32")


def trainable(run: Path) -> svg.models.predictor.Predictor:
    """Return a model whose weights can be changed."""
    return svg.load(run, device="cpu", trainable=True)


def saved(run: Path, folder: Path, **options: str) -> Path:
    load(run).save_pretrained(folder, **options)
    return folder


def test_the_way_there_and_back(run, tmp_path, data_root):
    one = saved(run, tmp_path / "one")
    two = saved(one, tmp_path / "two")
    assert contents(one) == contents(two)
    assert contents(one).keys() == FILES | {"prediction.gif"}
    best = checkpoint.find(run, "best")
    assert (one / "model.safetensors").read_bytes() == best.files["weights"].read_bytes()
    assert checkpoint.read_identity(one, "best") == checkpoint.read_identity(run, "best")
    clip = svg.SequenceDataset(data_root, "test", 6).batch([(0, 0)])
    past = clip["frames"][:, :2]
    there = load(run).predict(past, clip["conditions"], 4, seed=1)
    assert torch.equal(there, load(str(one)).predict(past, clip["conditions"], 4, seed=1))


def test_the_card_says_what_was_measured(run, tmp_path):
    card = ModelCard.load(saved(run, tmp_path / "squares", license="mit") / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "svg-push"
    assert card.data.model_name == "squares"
    (path,) = (run / "evaluation").glob("*.json")
    values = json.loads(path.read_text())
    psnr = values["methods"]["pred"]["psnr"]
    found = {(item.metric_type, item.metric_name): item for item in card.data.eval_results}
    name = f"PSNR dB, pred (mean latent), 95 % interval {psnr['low']:.2f} to {psnr['high']:.2f}"
    result = found["psnr", name]
    assert result.metric_value == pytest.approx(psnr["mean"], abs=0.006)
    assert result.dataset_name == f"5 sequences of {Path(values['setting']['data']).name}/test"
    assert result.task_name == "4 frames predicted from 2, protocol own"
    assert "pred (best of 3)" in card.text
    assert "- psnr: dB of each frame from its squared error over all channels" in card.text
    assert "![true frames, reconstruction and prediction side by side](prediction.gif)" in card.text
    count = sum(value.numel() for value in checkpoint.load_model(run)[0].parameters())
    assert f"with {count:,} weights, after 3 training steps." in card.text


def test_the_snippet_of_the_card_runs(run, tmp_path, data_root):
    folder = saved(run, tmp_path / "squares")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    code = code[1].replace('"squares"', repr(str(folder))).replace('"DATA"', repr(str(data_root)))
    names: dict = {}
    exec(code, names)
    assert names["frames"].shape == (1, 1, 4, 3, 64, 64)


def test_the_command_of_the_card_is_that_of_the_run(data_root):
    config = make_config(data_root, Path("run"), clip_start="first", blend=True, device="auto")
    words = command_of(config).split()
    assert words[0] == "svg-train"
    args = train.parse([*words[1:], "--log_dir", "run"])
    assert train.config_from_arguments(args) == config


def test_nothing_tells_where_it_was_made(run, tmp_path, data_root):
    folder = saved(run, tmp_path / "shared")
    texts = [(folder / name).read_text() for name in FILES - {"model.safetensors"}]
    assert not [text for text in texts if str(data_root.parent) in text or str(tmp_path) in text]
    assert checkpoint.load_config(folder).data.data_root == data_root.name


def test_scores_are_of_these_weights(run, tmp_path):
    """An evaluation of weights that were replaced since does not count."""
    config = changed(checkpoint.load_config(run), niter=2, lr=1e-5)
    Training(config, resume=True, take_over=True).fit()
    best = checkpoint.find(run, "best")
    shown = saved(run, tmp_path / "shared")
    says_none = "None were taken." in (shown / "README.md").read_text()
    assert says_none == (best.step == 6)


def test_changed_weights(run, tmp_path):
    model = trainable(run)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(tmp_path / "shared")
    assert_same(weights(tmp_path / "shared", "best"), model.state_dict())
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "None: the weights are not those that were scored." in card
    assert "model-index" not in card
    assert contents(tmp_path / "shared").keys() == FILES


def test_unchanged_weights_of_a_trainable_model_are_the_same_file(run, tmp_path):
    trainable(run).save_pretrained(tmp_path / "two")
    assert (
        contents(saved(run, tmp_path / "one"))["model.safetensors"]
        == contents(tmp_path / "two")["model.safetensors"]
    )


def test_a_card_of_ones_own_stays(run, tmp_path):
    (run / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    folder = saved(run, tmp_path / "shared")
    assert (folder / "README.md").read_text() == "---\nlicense: mit\n---\n# Mine\n"
    with pytest.raises(svg.InputError, match=r"license: found 'mit', but .*README.md is the card"):
        saved(run, tmp_path / "other", license="mit")
    assert not (tmp_path / "other").exists()


def test_what_is_refused(run, tmp_path):
    model = load(run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("do not touch")
    with pytest.raises(svg.InputError, match="found other files there"):
        model.save_pretrained(tmp_path / "mine")
    assert contents(tmp_path / "mine").keys() == {"notes.txt"}
    with pytest.raises(svg.InputError, match=r"save one that svg\.load returns"):
        checkpoint.load_model(run)[0].save_pretrained(tmp_path / "shared")
    folder = saved(run, tmp_path / "shared")
    with pytest.raises(svg.InputError, match="no last checkpoint"):
        svg.load(folder, "last")
    with pytest.raises(svg.InputError, match="expected a run folder"):
        svg.load(tmp_path / "nowhere" / "at_all")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(svg.InputError, match=r"model.safetensors: damaged"):
        svg.load(folder)


def test_weights_that_were_replaced_after_loading(run, tmp_path):
    model = load(run)
    other = trainable(run)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    progress = checkpoint.find(run, "best").progress
    checkpoint.save_best(run, checkpoint.stored(other.state_dict()), progress)
    with pytest.raises(svg.InputError, match="has other weights than when the model was loaded"):
        model.save_pretrained(tmp_path / "shared")


def test_training_does_not_replace_a_shared_model(run, tmp_path, data_root):
    folder = saved(run, tmp_path / "shared")
    before = contents(folder)
    with pytest.raises(svg.InputError, match="holds a run already"):
        Training(make_config(data_root, folder))
    with pytest.raises(svg.InputError, match=f"--init_from {folder}"):
        Training(make_config(data_root, folder), resume=True)
    assert contents(folder) == before


def test_commands_take_it(run, tmp_path, data_root, capsys):
    folder = tmp_path / "shared"
    assert export.main([str(run), "--format", "hub", "--license", "mit", "--out", str(folder)]) == 0
    assert f"{folder / 'model.safetensors'}: " in capsys.readouterr().out
    assert contents(folder).keys() == FILES | {"prediction.gif"}
    assert (
        evaluate.main([str(folder), "--n_sample", "0", "--device", "cpu", "--data_root", str(data_root)]) == 0
    )
    assert capsys.readouterr().out.count("pred (mean latent)") == 1
    flags = ["--init_from", str(folder), "--data_root", str(data_root), "--log_dir", str(tmp_path / "tuned")]
    flags += ["--n_future", "4", "--n_eval", "6", "--niter", "1", "--epoch_size", "1", "--batch_size", "2"]
    assert train.main([*flags, "--device", "cpu"]) == 0
    assert f"begins with 100.0% of its weights from {folder}" in capsys.readouterr().out


def on_the_hub(endpoint: str, home: Path, code: str) -> subprocess.CompletedProcess:
    own = environment(endpoint, home) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", f"import svg\nfrom pathlib import Path\n{code}"]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | own, cwd=home, check=True)


@pytest.mark.slow
def test_through_the_hub(run, tmp_path):
    attempts = """
for given in ({"model": "alice/nothing"}, {"model": "alice/squares", "revision": "v9"}):
    try:
        svg.load(**given, device="cpu")
    except svg.InputError as error:
        print(error)
"""
    with hub_server() as hub:
        code = f"print(svg.load({str(run)!r}, device='cpu').push_to_hub('alice/squares', license='mit'))"
        pushed = on_the_hub(hub.endpoint, tmp_path, code).stdout.strip()
        sha = hub.newest["alice/squares"]
        assert pushed == f"{hub.endpoint}/alice/squares/commit/{sha}"
        assert "Bearer hf_own" in hub.tokens
        files = hub.repositories["alice/squares"]["main"]
        assert b'svg.load("alice/squares")' in files["README.md"]
        hub.commit(
            "alice/squares", "main", [{"key": "file", "value": {"path": "run.py", "content": "cmFpc2U="}}]
        )
        code = f"""
svg.load("alice/squares", device="cpu").save_pretrained("newest")
svg.load("alice/squares", device="cpu", revision="{sha}").save_pretrained("pinned")
from experiments.command import take_released
print(take_released("alice/squares@{sha}"))
{attempts}"""
        fetched = on_the_hub(hub.endpoint, tmp_path, code)
        assert fetched.stdout.splitlines() == [
            "squares: the model alice/squares@" + sha + "; its card is squares/README.md",
            "squares",
            f"alice/nothing: {REFUSED}: Repository not found; nor is there such a folder here",
            f"alice/squares@v9: {REFUSED}: Invalid rev id: v9; nor is there such a folder here",
        ]
        assert not [line for line in hub.requests if "run.py" in line]
    for name in ("newest", "pinned", "squares"):
        assert contents(tmp_path / name) == files, name
    code = f'svg.load("alice/squares", device="cpu", revision="{sha}").save_pretrained("cached")\n{attempts}'
    offline = on_the_hub("http://127.0.0.1:9", tmp_path, code)
    assert contents(tmp_path / "cached") == files
    assert offline.stdout.startswith(
        "alice/nothing: not to be had from the Hugging Face Hub: it cannot be reached"
    )


@pytest.mark.slow
def test_without_the_library(run, tmp_path):
    code = f"""
import sys
sys.modules["huggingface_hub"] = None
model = svg.load({str(run)!r}, device="cpu")
model.save_pretrained("shared")
for work in (lambda: svg.load("alice/squares"), lambda: model.push_to_hub("alice/squares")):
    try:
        work()
    except svg.InputError as error:
        print(error)
"""
    done = on_the_hub("http://127.0.0.1:9", tmp_path, code)
    reason = "alice/squares: models of the Hugging Face Hub need huggingface_hub; pip install 'svg-push[hub]'"
    assert done.stdout.splitlines() == [f"{reason}; nor is there such a folder here", reason]
    assert contents(tmp_path / "shared").keys() == FILES | {"prediction.gif"}
