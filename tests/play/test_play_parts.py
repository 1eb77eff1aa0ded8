"""What a page is made of: the runtime, the graphs, the card; and what cannot be driven."""

import gzip
import hashlib
import re

import numpy as np
import pytest

from data_tools.simulators.bounds import LIFT_SPEED, LIFT_STEP, LOW
from experiments import play
from svg.play.card import card_html
from svg.play.graphs import pack_graphs
from svg.play.page import FOLDER
from svg.positions import SIMULATED_HEIGHT


def test_the_runtime_is_as_recorded():
    table = (FOLDER / "vendor" / "README.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \| `([0-9a-f]{64})` \|$", table, re.MULTILINE)
    for name, size, digest in rows:
        data = (FOLDER / "vendor" / f"{name}.gz").read_bytes()
        assert len(data) == int(size), name
        assert hashlib.sha256(gzip.decompress(data)).hexdigest() == digest, name
    assert {f"{name}.gz" for name, _, _ in rows} == {path.name for path in (FOLDER / "vendor").glob("*.gz")}
    assert (FOLDER / "vendor" / "LICENSE").read_text().startswith("MIT License")


def test_the_hand_of_the_page_is_the_simulators():
    height = SIMULATED_HEIGHT
    assert (height.low, height.step, height.speed) == (LOW, LIFT_STEP, LIFT_SPEED)


def test_weights_are_stored_once(tmp_path):
    """Both graphs ask for the same block, and compute what they did before."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    shared = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    own = np.full((20, 20), 3, np.float32)
    small = np.ones((1, 20), np.float32)
    for part, extra in (("observe", small), ("step", own)):
        tensors = {"shared": shared, "extra": extra}
        nodes = [
            onnx.helper.make_node("MatMul", ["x", "shared"], ["y"]),
            onnx.helper.make_node("Add", ["y", "extra"], ["z"]),
        ]
        values = [onnx.helper.make_tensor_value_info(name, 1, [20, 20]) for name in "xz"]
        graph = onnx.helper.make_graph(nodes, part, values[:1], values[1:])
        for name, tensor in tensors.items():
            graph.initializer.append(onnx.numpy_helper.from_array(tensor, name))
        opset = [onnx.helper.make_opsetid("", 20)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / f"{part}.onnx")
    (tmp_path / "model.json").write_text('{"n_past": 2}')
    x = np.random.default_rng(1).normal(size=(20, 20)).astype(np.float32)
    for half, size in ((False, 2 * 1600), (True, 2 * 800)):
        packed = pack_graphs(tmp_path, half)
        assert len(packed.weights) == size and packed.about == {"n_past": 2}
        for graph, extra in ((packed.observe, small), (packed.step, own)):
            options = onnxruntime.SessionOptions()
            options.add_external_initializers_from_files_in_memory(
                ["weights"], [packed.weights], [len(packed.weights)]
            )
            (found,) = onnxruntime.InferenceSession(graph, options).run(None, {"x": x})
            np.testing.assert_allclose(found, x @ shared + extra, atol=5e-3 if half else 1e-5)


CARD = """---
license: mit
---

# a name

A **world model** of `a < b`, see
[its twin](../twin/README.md).

```python
secret
```

## Notes

not shown

## Scores

- one
  more
- two

| | PSNR |
|---|---|
| copy | 15.5 |

## Limitations

It is small.
"""


def test_a_card():
    """The first paragraph, then chosen sections in an order of their own; nothing of it is taken for HTML."""
    assert card_html(CARD).split("\n") == [
        "<p>A <b>world model</b> of <code>a &lt; b</code>, see its twin.</p>",
        "<h3>Limitations</h3>",
        "<p>It is small.</p>",
        "<h3>Scores</h3>",
        "<ul><li>one more</li><li>two</li></ul>",
        '<div class="scroll"><table><tr><th></th><th>PSNR</th></tr>'
        "<tr><td>copy</td><td>15.5</td></tr></table></div>",
    ]
    assert card_html("") == ""


def test_what_cannot_be_driven_is_one_line(tmp_path, data_root, monkeypatch, capsys):
    from svg.runs import checkpoint
    from tests.support.runs import make_config

    out = ["--out", str(tmp_path / "page.html")]

    def refused(*words: str) -> str:
        assert play.main([*words, *out]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    assert "--scenes: found 0, expected 1 to 100" in refused("push-sim", "--scenes", "0")
    assert "--frames: found 2, expected 3 to 1000" in refused("push-sim", "--frames", "2")
    assert "found 'nowhere', expected a run folder" in refused("nowhere")
    assert "expected data of svg-data simulate" in refused(
        "push-sim", "--data_root", str(data_root), "--frames", "15"
    )
    (tmp_path / "run").mkdir()
    config = make_config(data_root, tmp_path / "run", condition_dim=5)
    monkeypatch.setattr(checkpoint, "load_config", lambda run: config)
    assert "found a model that is given 5 columns of conditions (all)" in refused(str(tmp_path / "run"))
    assert not (tmp_path / "page.html").exists()
