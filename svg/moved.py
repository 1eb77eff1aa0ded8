"""Import paths of version 0.1: they give the module that the name has now, with a warning."""

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
"""The modules whose import was documented; `svg.evaluation.evaluate` and `svg.sequences` are where they were."""


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find ``svg.<old name>`` where the module is now; nothing is imported before it is asked for."""

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, old = name.rpartition(".")
        if package != __package__ or old not in PLACES:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to Python: `exec_module` puts the module itself in the place of the new one."""

    def exec_module(self, module: types.ModuleType) -> None:
        place = f"{__package__}.{PLACES[module.__name__.rpartition('.')[2]]}"
        warnings.warn(f"{module.__name__} is now {place}", FutureWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(place)


sys.meta_path.append(MovedModules())
