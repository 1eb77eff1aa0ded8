"""Register ``svg_push/Push-v0`` with Gymnasium, which must be installed, when this module is imported.

``gymnasium.make("data_tools.simulators.registration:svg_push/Push-v0")`` imports it first.
"""

import gymnasium

EPISODE_STEPS = 50
"""Steps of an episode of the registered environment."""

gymnasium.register(
    "svg_push/Push-v0",
    entry_point="data_tools.simulators.environment:PushEnv",
    max_episode_steps=EPISODE_STEPS,
)
