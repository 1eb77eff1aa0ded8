"""Simulated robot pushing and a simulated dancer, on MuJoCo."""

EPISODE_STEPS = 50
"""Steps of an episode of ``svg_push/Push-v0``."""


def register() -> None:
    """Register ``Push-v0``.

    Gymnasium calls this through the entry point ``svg_push`` and puts that name before it.
    """
    import gymnasium

    place = f"{__name__}.environment:PushEnv"
    gymnasium.register("Push-v0", entry_point=place, max_episode_steps=EPISODE_STEPS)
