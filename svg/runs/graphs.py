"""Trained predictors as two graphs, ``observe`` and ``step``, which run without this package.

``observe`` takes the observed frames and their conditions, and returns the state: named tensors. ``step``
takes the state, a condition and a latent's noise, and returns the next frame and what it changes of the
state. As ONNX they run in onnxruntime and in browsers, as programs of torch.export in PyTorch alone.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from data_tools.files import write_text

from ..models.predictor import Predictor
from ..models.video_predictor import Observation

if TYPE_CHECKING:
    from onnx import ModelProto

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 20
"""The first version of ONNX that samples pictures at any places as PyTorch does."""
PREDICTED = "predicted"
NEXT = "next_"
"""Names of the outputs of ``step``: the frame, and what those of changed parts of the state begin with."""
TRACED = 5
"""Clips of the batch that is traced: a number that no other dimension has."""
LEAST_HALVED = 256
"""Numbers from which on a tensor of weights is stored in float16."""
TOLERANCE = 1e-4
"""Largest difference of a pixel, in [0,1], to PyTorch after a step from the same state, with which float32
graphs count as the same model."""
STEPS = 28
"""Steps that are compared."""

Arrays = dict[str, np.ndarray]
Graph = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclass(frozen=True)
class Manifest:
    """What is beside the graphs, as ``model.json``: how to call them.

    Args:
        name: of the model.
        weights: what identifies them.
        n_past: frames that ``observe`` takes.
        frame: [C,H,W] of the frames, float32 in [0,1].
        conditions: shape of a condition; [] for a model that takes none.
        latent: shape of the noise of a step; zeros take the mean.
        state: names of the outputs of ``observe``, all of which ``step`` takes.
        changed: those that ``step`` returns anew, as ``next_NAME``; the others stay.
        largest_difference: of a pixel to PyTorch when they were written, over `STEPS` steps from each graph's
            own state.
    """

    name: str
    weights: str
    n_past: int
    frame: list[int]
    conditions: list[int]
    latent: list[int]
    state: list[str]
    changed: list[str]
    largest_difference: float


# ------------------------------------------------------------------------------------------------- the state


def state_tensors(state: Any, name: str = "") -> dict[str, Tensor]:
    """Return the tensors in a predictor's state by name: those of its fields, joined by underscores."""
    if isinstance(state, Tensor):
        return {name: state}
    found: dict[str, Tensor] = {}
    for part, value in _parts(state):
        found |= state_tensors(value, f"{name}_{part}" if name else part)
    return found


def with_tensors(state: Any, tensors: Mapping[str, Tensor], name: str = "") -> Any:
    """Return `state` with the `tensors` of these names in place of its own; others stay."""
    if isinstance(state, Tensor):
        return tensors.get(name, state)
    parts = {
        part: with_tensors(value, tensors, f"{name}_{part}" if name else part)
        for part, value in _parts(state)
    }
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **parts)
    return type(state)(list(parts.values())) if parts else state


def _parts(state: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named parts of a dataclass, list or tuple; nothing else has any."""
    if is_dataclass(state) and not isinstance(state, type):
        yield from ((item.name, getattr(state, item.name)) for item in fields(state))
    elif isinstance(state, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(state))


# ------------------------------------------------------------------------------------------------ the modules


class Observe(nn.Module):
    """The state after the frames [B,n_past,C,H,W], by name."""

    def __init__(self, model: Predictor, omitted: Sequence[str] = ()):
        super().__init__()
        self.model = model
        self.omitted = omitted

    def start(self, frames: Tensor, conditions: Tensor | None) -> Any:
        """Return the state in the form in which `Step` takes it."""
        state = self.model.observe(frames, conditions)
        if isinstance(state, Observation) and self.model.config.feedback == "frame":
            # every step then begins by encoding the last frame, the first one, too
            state = replace(state, h=None)
        return state

    def forward(self, frames: Tensor, conditions: Tensor | None = None) -> dict[str, Tensor]:
        """Return the tensors of the state."""
        tensors = state_tensors(self.start(frames, conditions))
        return {name: tensor for name, tensor in tensors.items() if name not in self.omitted}


class Step(nn.Module):
    """The next frame [B,C,H,W], and what changes of the state.

    `template` is a state, whose tensors stand in for those that are `omitted`.
    """

    def __init__(self, model: Predictor, template: Any, omitted: Sequence[str]):
        super().__init__()
        self.model = model
        self.template = template
        self.omitted = omitted

    def forward(
        self, state: dict[str, Tensor], noise: Tensor, conditions: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Take the step with the noise [B,*latent] and the condition [B,...] of the last frame."""
        start = with_tensors(self.template, state)
        known = None if conditions is None else conditions[:, None]
        frames, after = self.model.advance(start, known, noise[:, None, None])
        before = state_tensors(start)
        changed = {
            NEXT + name: tensor
            for name, tensor in state_tensors(after).items()
            if name not in self.omitted and tensor is not before.get(name)
        }
        return {PREDICTED: frames[0, :, 0]} | changed


# ----------------------------------------------------------------------------------------------------- export


@torch.no_grad()
def write_graphs(
    model: Predictor, folder: Path, form: str, name: str, weights: str, n_past: int, half: bool = False
) -> Manifest:
    """Write the graphs of a frozen float32 `model` and the manifest into `folder`; return the latter.

    Args:
        form: ``onnx`` or ``torch``.
        name, weights, n_past: see `Manifest`.
        half: store weights in float16, of ``onnx`` alone. They are computed with in float32.

    Raises `InputError` if the graphs do not predict what the model does, to `TOLERANCE` (of float16 weights:
    not finite numbers alone), or if onnx and onnxruntime are missing.
    """
    if form == "onnx":
        _require_onnx()
    frames, conditions = example(model, n_past, TRACED, 1)
    before, now = split_conditions(model, conditions, n_past)
    observe = Observe(model)
    start = observe.start(frames, before)
    state = state_tensors(start)
    # what no clip changes, such as kernels made of the weights, is part of the graph of a step
    observe.omitted = [key for key, tensor in state.items() if TRACED not in tensor.shape]
    # clones: of inputs that are one tensor, such as the last and the observed frame, one alone would be left
    given = {key: tensor.clone() for key, tensor in state.items() if key not in observe.omitted}
    noise = torch.zeros(TRACED, *model.latent_shape)
    step = Step(model, start, observe.omitted)
    changed = [key.removeprefix(NEXT) for key in step(given, noise, *now[:1]) if key != PREDICTED]
    if not set(changed) <= set(given):
        raise InputError(
            f"n_past: found {n_past}, expected at least 2: the state would grow with the first step"
        )
    folder.mkdir(parents=True, exist_ok=True)
    inputs = (frames, *([] if before is None else [before]))
    _write(observe, inputs, list(given), folder / "observe", form, half)
    outputs = [PREDICTED, *(NEXT + key for key in changed)]
    _write(step, (given, noise, *now[:1]), outputs, folder / "step", form, half)
    graphs = [load_graph(folder / f"{part}{ENDINGS[form]}") for part in ("observe", "step")]
    single, together = differences(model, step, graphs[0], graphs[1], n_past)
    if not np.isfinite(together) or (single > TOLERANCE and not half):
        found = f"found a difference of {single:.1e} to PyTorch after a step"
        raise InputError(
            f"{folder}: {found}, expected at most {TOLERANCE:g}; report it with the run's config.json"
        )
    manifest = Manifest(
        name,
        weights,
        n_past,
        list(frames.shape[2:]),
        [] if conditions is None else list(conditions.shape[2:]),
        list(model.latent_shape),
        list(given),
        changed,
        together,
    )
    write_text(folder / "model.json", json.dumps(asdict(manifest), indent=1) + "\n")
    return manifest


def example(model: Predictor, n_past: int, clips: int, steps: int) -> tuple[Tensor, Tensor | None]:
    """Return smooth frames [B,n_past,C,H,W], which differ little, and conditions [B,n_past-1+steps,...]."""
    generator = torch.Generator().manual_seed(0)
    channels = model.config.channels
    height, width = model.config.frame_size
    coarse = torch.rand(clips, n_past, channels, 8, 8, generator=generator)
    coarse = coarse[:, :1] + 0.1 * (coarse - coarse[:, :1])
    frames = nn.functional.interpolate(coarse.flatten(0, 1), (height, width), mode="bilinear").clamp(0, 1)
    frames = frames.unflatten(0, (clips, n_past))
    size = model.config.condition_dim
    if not size:
        return frames, None
    count = n_past - 1 + steps
    if model.config.takes_poses:
        poses = torch.rand(clips, count, size, height, width, generator=generator)
        return frames, (poses > 0.9).float()
    numbers = 0.3 * torch.randn(clips, count, size, generator=generator)
    mean, deviation = (model.get_buffer(f"condition_{part}") for part in ("mean", "std"))
    return frames, mean + deviation * numbers


def split_conditions(
    model: Predictor, conditions: Tensor | None, n_past: int
) -> tuple[Tensor | None, list[Tensor]]:
    """Return the conditions that ``observe`` takes, and those of each step."""
    if conditions is None:
        return None, []
    steps = list(conditions[:, n_past - 1 :].unbind(1))
    return (None if model.config.takes_poses else conditions[:, :n_past]), steps


def differences(
    model: Predictor, step: Step, observe: Graph, step_graph: Graph, n_past: int
) -> tuple[float, float]:
    """Return the largest differences of a pixel between graphs and model in `STEPS` steps.

    The first is that of single steps, each from the model's own state; the second that of all together, in
    which a model that has learned little may make much of the least difference.
    """
    frames, conditions = example(model, n_past, 2, STEPS)
    before, now = split_conditions(model, conditions, n_past)
    noises = list(torch.randn(STEPS, 2, *model.latent_shape, generator=torch.Generator().manual_seed(1)))
    state = Observe(model, step.omitted)(frames, before)
    expected = []
    single = 0.0
    for number, noise in enumerate(noises):
        condition = now[number : number + 1]
        outputs = step(state, noise, *condition)
        given = state | {"noise": noise} | dict(zip(["conditions"], condition, strict=False))
        found = step_graph({name: tensor.numpy() for name, tensor in given.items()})[PREDICTED]
        expected.append(outputs.pop(PREDICTED).numpy())
        single = max(single, float(np.abs(found - expected[-1]).max()))
        state |= {name.removeprefix(NEXT): tensor for name, tensor in outputs.items()}
    arrays = [[value.numpy() for value in values] for values in (now, noises)]
    observed = None if before is None else before.numpy()
    video = run_graphs(observe, step_graph, frames.numpy(), observed, *arrays)
    return single, float(np.abs(video - np.stack(expected, 1)).max())


def run_graphs(
    observe: Graph,
    step: Graph,
    frames: np.ndarray,
    observed: np.ndarray | None,
    conditions: Sequence[np.ndarray],
    noises: Sequence[np.ndarray],
) -> np.ndarray:
    """Return the frames [B,F,C,H,W] that the graphs predict, one for each of the `noises` [B,*latent].

    `frames` [B,n_past,C,H,W] are observed, with the conditions `observed` [B,n_past,D]; those of each step
    are `conditions` [B,...].
    """
    state = observe({"frames": frames} | ({} if observed is None else {"conditions": observed}))
    predicted = []
    for number, noise in enumerate(noises):
        given = {"conditions": conditions[number]} if conditions else {}
        outputs = step(state | {"noise": noise} | given)
        predicted.append(outputs.pop(PREDICTED))
        state |= {key.removeprefix(NEXT): value for key, value in outputs.items()}
    return np.stack(predicted, 1)


def load_graph(path: Path) -> Graph:
    """Return a graph that `write_graphs` has written, as a function of arrays by name."""
    if path.suffix == ENDINGS["onnx"]:
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        outputs = [output.name for output in session.get_outputs()]
        taken = [value.name for value in session.get_inputs()]

        def compute(given: Mapping[str, np.ndarray]) -> Arrays:
            found = session.run(None, {name: given[name] for name in taken})
            return {name: np.asarray(value) for name, value in zip(outputs, found, strict=True)}

        return compute
    module = torch.export.load(path).module()

    def run(given: Mapping[str, np.ndarray]) -> Arrays:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in given.items()}
        others = [tensors.pop(name) for name in ("frames", "noise", "conditions") if name in tensors]
        with torch.no_grad():
            found = module(tensors, *others) if tensors else module(*others)
        return {name: value.numpy() for name, value in found.items()}

    return run


def _write(module: nn.Module, inputs: tuple, outputs: list[str], stem: Path, form: str, half: bool) -> None:
    """Write a module as a graph whose batch may have any size."""
    batch = torch.export.Dim("batch", min=1, max=2**20)

    def dynamic(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: dynamic(part) for name, part in value.items()}
        return {value.shape.index(TRACED): batch}

    shapes = tuple(map(dynamic, inputs))
    with warnings.catch_warnings():
        # nn.LSTM gathers its weights anew when it is copied, which changes nothing of them
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
    if form == "torch":
        torch.export.save(program, stem.with_suffix(ENDINGS[form]))
        return
    if isinstance(inputs[0], dict):
        names = [*inputs[0], "noise", "conditions"]
    else:
        names = ["frames", "conditions"]
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it tells what it does not simplify
    count = sum(len(value) if isinstance(value, dict) else 1 for value in inputs)
    written = torch.onnx.export(
        program, inputs, input_names=names[:count], opset_version=OPSET, verbose=False
    )
    assert written is not None
    graph = written.model_proto
    _name_outputs(graph, outputs)
    if half:
        halve(graph)
    stem.with_suffix(ENDINGS[form]).write_bytes(graph.SerializeToString())


def _name_outputs(graph: "ModelProto", names: list[str]) -> None:
    """Give the outputs of a graph names, each by a node of its own.

    Two of them may be one value, or an input, which the exporter would rename twice.
    """
    import onnx

    for output, name in zip(graph.graph.output, names, strict=True):
        graph.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name


def halve(graph: "ModelProto") -> None:
    """Store the weights of a graph in float16; a node for each makes float32 of it when it is loaded."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LEAST_HALVED:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*casts, *nodes])


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        found = f"found no {error.name}"
        raise InputError(f"--format onnx: {found}; pip install 'svg-push[export]'") from None
