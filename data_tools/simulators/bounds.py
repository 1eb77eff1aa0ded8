"""What the hand of the simulated pushing can do, in metres and frames, without MuJoCo."""

REACH = (0.27, 0.18)
"""The hand stays within ± these, to the right and away from the camera."""
MAX_STEP = 0.05
"""Largest |dx| and |dy| a frame."""
LOW = 0.012
"""Height of the fingertips when not lifted."""
LIFT_STEP = 0.03
LIFT_SPEED = 0.045
"""Height for each number of ``lift``, and the most by which it changes in a frame."""
MAX_LIFT = 3
