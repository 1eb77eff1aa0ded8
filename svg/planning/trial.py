"""What a trial is: all that its outcome depends on. The names and defaults of ``svg-plan`` stand here."""

from dataclasses import dataclass

BASELINES = ("nothing", "random", "blind", "through", "simulator")
"""What acts beside models; see `trials.act_for`."""
PROTOCOLS = ("own", "vp2")
COSTS = ("things", "image", "both")
PERCEPTIONS = ("given", "seen", "pointed")
SAMPLES = {"own": (64, 32), "vp2": (200,)}
"""Plans that are imagined, by protocol."""


@dataclass(frozen=True)
class Trial:
    """All that an outcome depends on.

    Args:
        actor: one of `BASELINES`, or the name of what plans with `models`.
        number: of the scene.
        models: released names or run folders; of several the planner avoids what they disagree about.
        task: ``reach``, ``push`` or ``push_many``.
        protocol: ``own``: 24 frames, the hand begins near the object, `EliteSearch`, and where things are at
            the end counts. ``vp2``: horizon, samples, cost and score of VP2 (Tian et al. 2023).
        perception: where objects are is ``given`` in every frame; ``seen``: given in the first one, then
            found by the judge of ``svg-evaluate --objects``; or ``pointed``: one pixel of each is given in
            the first frame, as by a click, then an `ObjectPredictor` finds them.
        cost: ``things`` (distance of the objects from their goals), ``image`` (error to a picture of the
            goal), or ``both``. The protocol vp2 always compares images.
        scenes: ``test`` or ``tuning``.
        decisions, hold, replan: of the planner of ``own``; see `control.Settings`.
        samples: of its `EliteSearch`; of ``vp2`` the number of plans is the first. None: `SAMPLES`.
        informed: share of its first plans that go behind the object; see `pushing.Candidates`.
    """

    actor: str
    number: int
    models: tuple[str, ...] = ()
    task: str = "push"
    protocol: str = "own"
    perception: str = "given"
    cost: str = "things"
    scenes: str = "test"
    decisions: int = 6
    hold: int = 2
    replan: int = 2
    samples: tuple[int, ...] | None = None
    informed: float = 0.8
