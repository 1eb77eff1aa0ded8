"""Import paths of version 0.1: each gives the module that took its place, with a warning."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings

PLACES = {
    "checkpoint": "runs.checkpoint",
    "inference": "models.freezing",
    "model": "models.video_predictor",
    "predictor": "models.predictor",
    "pretrained": "runs.pretrained",
    "protocols": "evaluation.protocols",
    "results": "evaluation.results",
}
"""The documented modules by their old names; others, such as `svg.sequences`, are where they were."""


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder and loader of ``svg.<old name>``; it imports nothing before it is asked for."""

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for an old name of this package."""
        package, _, old = name.rpartition(".")
        if package != __package__ or old not in PLACES:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to Python; `exec_module` then puts the real module in place of the new one."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Warn, and put the module under its old name."""
        place = f"{__package__}.{PLACES[module.__name__.rpartition('.')[2]]}"
        warnings.warn(f"{module.__name__} is now {place}", FutureWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(place)


sys.meta_path.append(MovedModules())
