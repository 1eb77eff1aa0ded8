"""A simulated robot that pushes objects about on a table, by MuJoCo: scene, physics and actions.

Axes in metres: x to the right of the picture, y away from the camera, z up; the origin is the middle of the
table's surface. A frame lasts 0.16 s. A position is ``[x, y, z]`` of the hand: the point midway between its
two fingertips.

An action is ``[dx, dy, lift, close]``, carried out between two frames (0.16 s):

- ``dx``, ``dy``: movement of the hand in this one frame, in metres, each within ±0.05. Without an obstacle
  in the way ``position[t + 1, :2] = position[t, :2] + action[t, :2]``, to a few millimetres.
- ``lift``: 0, 1, 2 or 3: the height that the hand goes to and keeps, ``0.012 + 0.03 * lift`` metres, by at
  most 0.045 m a frame. At 0 the fingers push objects, at 3 they pass over most of them.
- ``close``: 0 opens the fingers, 1 closes them.

Nothing else of the commands is remembered: the next state follows from the state and the action. A hand
that is stopped by a jammed object does not make up for it later.
"""

import mujoco
import numpy as np

from ..truth import ARM, FIRST_OBJECT, STILL
from .bounds import LIFT_SPEED, LIFT_STEP, LOW, MAX_LIFT, MAX_STEP, REACH
from .raycast import MOVING_GROUP, STATIC_GROUP, UNSEEN_GROUP, Surfaces

TABLE = (0.34, 0.25)  # half width (x) and half depth (y) of the surface within the rim
RIM_HEIGHT = 0.05
ACTION_LIMITS = (
    np.array([-MAX_STEP, -MAX_STEP, 0, 0], np.float32),
    np.array([MAX_STEP, MAX_STEP, MAX_LIFT, 1], np.float32),
)
"""Least and most of each number of an action."""
OBJECTS = (3, 8)  # fewest and most
HOLD = 2  # frames that the policy holds an action, as in BAIR

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # with controls, the forearm's place and the solver's warm start
_TIMESTEP = 0.008
_STEPS = 20  # physics steps a frame
_SHOULDER = np.array([0.0, 0.95, 0.62])
_WRIST = 0.33  # where the forearm begins, above the fingertips
_STIFFNESS, _DAMPING = 2000.0, 90.0  # of the hand's servo: near critical for its mass of about 1 kg
_FINGER_OPEN, _FINGER_CLOSED = 0.030, 0.011


class Pusher:
    """One scene: a table with random objects, a robot hand, and their physics.

    The same generator state gives the same scene. ``model`` and ``data`` are MuJoCo's own, ``surfaces`` the
    colours.
    """

    def __init__(self, generator: np.random.Generator):
        start = generator.uniform(-1, 1, 2) * REACH
        objects, radii = _random_objects(generator, start)
        self.object_radii = np.array(radii)
        """Radii of the circles that hold the objects' footprints, float64 [N], metres."""
        self.model = mujoco.MjModel.from_xml_string(_scene_xml(objects))
        self.data = mujoco.MjData(self.model)
        self.surfaces = _random_surfaces(self.model, generator)
        bodies = [self.model.body(f"object{i}").id for i in range(len(objects))]
        self._objects = np.array(bodies)
        self._arm = self.model.body("forearm").mocapid[0]
        for body in bodies:
            # Damped rotation stops what rolls within some frames; rolling friction would cost more physics
            # time.
            first = self.model.body_dofadr[body]
            self.model.dof_damping[first + 3 : first + 6] = 0.004 * self.model.body_mass[body]
        self.data.qpos[:3] = *start, LOW
        self.data.qpos[3:5] = _FINGER_OPEN
        self.step(np.zeros(4))  # objects settle

    @property
    def position(self) -> np.ndarray:
        """The hand's position, float64 [3], metres."""
        return self.data.qpos[:3].copy()

    @property
    def object_positions(self) -> np.ndarray:
        """The centres of the objects, float64 [N,3], metres."""
        return self.data.xpos[self._objects].copy()

    @property
    def object_headings(self) -> np.ndarray:
        """Return the headings of the objects, float64 [N], radians from the x axis of the table to theirs."""
        axes = self.data.xmat[self._objects].reshape(-1, 3, 3)[:, :, 0]
        return np.arctan2(axes[:, 1], axes[:, 0])

    @property
    def object_poses(self) -> np.ndarray:
        """Places and turns of the objects, float64 [N,7]: see `data_tools.truth.POSE`."""
        return np.concatenate([self.data.xpos[self._objects], self.data.xquat[self._objects]], 1)

    @property
    def object_shapes(self) -> list[str]:
        """The forms of the objects: box, sphere, cylinder, capsule or ellipsoid."""
        kinds = self.model.geom_type[self.model.body_geomadr[self._objects]]
        return [mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower() for kind in kinds]

    @property
    def labels(self) -> np.ndarray:
        """The label of each geom for `Renderer.render_with_labels`, uint8 [G].

        `STILL`, `ARM`, `FIRST_OBJECT` + n.
        """
        labels = np.where(self.model.geom_group == MOVING_GROUP, ARM, STILL).astype(np.uint8)
        for number, body in enumerate(self._objects):
            labels[self.model.geom_bodyid == body] = FIRST_OBJECT + number
        return labels

    def save(self) -> np.ndarray:
        """Return all that decides what happens next in this scene, float64 [D]."""
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return state

    def restore(self, state: np.ndarray) -> None:
        """Go back to a saved state of this scene.

        The same actions then lead to the same states, bit for bit.
        """
        mujoco.mj_setState(self.model, self.data, state, _STATE)
        mujoco.mj_kinematics(self.model, self.data)

    def place_hand(self, place: np.ndarray) -> None:
        """Put the hand at `place`, float [2], metres, low and at rest; no physics takes place."""
        self.data.qpos[:3] = *place, LOW
        self.data.qvel[:5] = 0
        self._place_arm()
        mujoco.mj_kinematics(self.model, self.data)

    def place_object(self, number: int, place: np.ndarray) -> None:
        """Put an object's centre at `place`, float [2], metres, as high and turned as it is.

        No physics takes place.
        """
        joint = self.model.body_jntadr[self._objects[number]]
        first = self.model.jnt_qposadr[joint]
        self.data.qpos[first : first + 2] = place
        mujoco.mj_kinematics(self.model, self.data)

    def step(self, action: np.ndarray) -> None:
        """Carries out one action, float [4], for one frame: see the module's description for its numbers.

        Raises `ValueError` for another shape or numbers that are not finite. Commands beyond their range are
        brought to it.
        """
        action = np.asarray(action, np.float64)
        if action.shape != (4,) or not np.isfinite(action).all():
            raise ValueError(f"action: found {action}, expected 4 finite numbers [dx, dy, lift, close]")
        start = self.position
        move = np.empty(3)
        move[:2] = np.clip(action[:2], -MAX_STEP, MAX_STEP)
        height = LOW + LIFT_STEP * np.clip(action[2], 0, MAX_LIFT)
        move[2] = np.clip(height - start[2], -LIFT_SPEED, LIFT_SPEED)
        # The servo's force is stiffness * (ctrl - position) - damping * velocity; the second term of `lead`
        # adds the wanted velocity, so that the hand follows without lag.
        lead = move / (_STEPS * _TIMESTEP) * _DAMPING / _STIFFNESS
        self.data.ctrl[3:5] = _FINGER_CLOSED if action[3] > 0.5 else _FINGER_OPEN
        for number in range(1, _STEPS + 1):
            self.data.ctrl[:3] = start + move * (number / _STEPS) + lead
            mujoco.mj_step(self.model, self.data)
        self._place_arm()
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves the poses of one step earlier

    def _place_arm(self) -> None:
        """Lays the forearm on the line from the wrist to the shoulder."""
        wrist = self.position
        wrist[2] += _WRIST
        along = (_SHOULDER - wrist) / np.linalg.norm(_SHOULDER - wrist)
        self.data.mocap_pos[self._arm] = wrist
        mujoco.mju_quatZ2Vec(self.data.mocap_quat[self._arm], along)


class PushingPolicy:
    """Random pushing: head for an object and on through it, or for anywhere, in a smooth and unsteady way.

    Each action is held for `HOLD` frames and keeps the hand within `REACH`.
    """

    def __init__(self, pusher: Pusher, generator: np.random.Generator):
        self._pusher, self._generator = pusher, generator
        self._velocity = np.zeros(2)  # metres a frame
        self._age = 0
        self._action = np.zeros(4)
        self._choose_goal()

    def act(self) -> np.ndarray:
        """Return the action for the coming frame, float32 [4]."""
        if self._age % HOLD == 0:
            self._action = self._new_action()
        self._age += 1
        return self._action.copy()

    def _choose_goal(self) -> None:
        generator = self._generator
        self._pushing = generator.random() < 0.8
        self._speed = generator.uniform(0.02, 0.05)
        self._patience = generator.integers(4, 8)  # in actions
        if self._pushing:
            here, objects = self._pusher.position[:2], self._pusher.object_positions[:, :2]
            distance = np.linalg.norm(objects - here, axis=1)
            target = objects[generator.choice(len(objects), p=_softmax(-distance / 0.1))]
            ahead = (target - here) / max(np.linalg.norm(target - here), 1e-6)
            self._goal = target + ahead * generator.uniform(0.03, 0.15) + generator.normal(0, 0.01, 2)
        else:
            self._goal = generator.uniform(-1, 1, 2) * REACH
        self._goal = np.clip(self._goal, np.negative(REACH), REACH)

    def _new_action(self) -> np.ndarray:
        generator, here = self._generator, self._pusher.position[:2]
        self._patience -= 1
        if self._patience < 0 or np.linalg.norm(self._goal - here) < 0.03:
            self._choose_goal()
        way = self._goal - here
        wanted = way / max(np.linalg.norm(way), 1e-6) * min(self._speed, np.linalg.norm(way) / HOLD)
        self._velocity = 0.35 * self._velocity + 0.65 * wanted + generator.normal(0, 0.006, 2)
        end = np.clip(here + HOLD * np.clip(self._velocity, -MAX_STEP, MAX_STEP), np.negative(REACH), REACH)
        # From a place slightly outside, the way back may be longer than a step allows: hence the second clip.
        self._velocity = np.clip((end - here) / HOLD, -MAX_STEP, MAX_STEP)
        lift = (
            generator.integers(1, MAX_LIFT + 1) if generator.random() < (0.1 if self._pushing else 0.4) else 0
        )
        close = generator.random() < 0.25
        return np.array([*self._velocity, lift, close], np.float32)


def _softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


# ------------------------------------------------------------------------------------------------------ scene


def _random_objects(generator: np.random.Generator, hand: np.ndarray) -> tuple[list[str], list[float]]:
    """Return MJCF bodies of 3-8 objects that lie on the table and touch neither each other nor the hand,
    float [2].

    The second list holds the radii of their footprints in metres.
    """
    bodies, placed = [], [(hand, 0.055)]
    count = generator.integers(OBJECTS[0], OBJECTS[1] + 1)
    while len(bodies) < count:
        kind = generator.choice(["box", "sphere", "cylinder", "capsule", "ellipsoid"])
        size, height, radius, euler = _random_shape(kind, generator)
        place = generator.uniform(-1, 1, 2) * (np.array(TABLE) - radius - 0.01)
        mass, friction = generator.uniform(0.08, 0.4), generator.uniform(0.3, 0.8)
        if any(np.linalg.norm(place - other) < radius + room + 0.004 for other, room in placed):
            continue
        placed.append((place, radius))
        bodies.append(
            f'<body name="object{len(bodies)}" pos="{place[0]} {place[1]} {height + 0.0005}" euler="{euler}">'
            f'<freejoint/><geom type="{kind}" size="{size}" mass="{mass}" '
            f'friction="{friction} 0.005 0.0001" conaffinity="3"/></body>'
        )
    return bodies, [radius for _, radius in placed[1:]]


def _random_shape(kind: str, generator: np.random.Generator) -> tuple[str, float, float, str]:
    """Return MJCF size, height of the centre when lying, radius of the footprint, and MJCF Euler angles."""
    a, b, c = generator.uniform(0.025, 0.045, 3)
    yaw = generator.uniform(0, 2 * np.pi)
    if kind == "box":
        return f"{a} {b} {c}", c, float(np.hypot(a, b)), f"0 0 {yaw}"
    if kind == "sphere":
        return f"{a}", a, a, f"0 0 {yaw}"
    if kind == "cylinder":  # standing
        return f"{a} {c}", c, a, f"0 0 {yaw}"
    if kind == "capsule":  # lying
        radius = 0.75 * a
        return f"{radius} {b}", radius, radius + b, f"{np.pi / 2} {yaw} 0"
    return f"{1.3 * a} {b} {0.8 * c}", 0.8 * c, max(1.3 * a, b), f"0 0 {yaw}"


def _scene_xml(objects: list[str]) -> str:
    """Return the scene in the format of MuJoCo.

    The rim is drawn as boxes and acts as planes, which nothing can tunnel through. Contact types: 1 table and
    objects, 2 hand; only objects take part in every contact.
    """
    width, depth = TABLE
    thick = 0.012
    planes = "".join(
        f'<geom type="plane" size="1 1 1" pos="{x} {y} 0" zaxis="{-np.sign(x)} {-np.sign(y)} 0" '
        f'group="{UNSEEN_GROUP}"/>'
        for x, y in ((width, 0), (-width, 0), (0, depth), (0, -depth))
    )
    rims = "".join(
        f'<geom class="still" name="{name}" type="box" size="{sx} {sy} {RIM_HEIGHT / 2 + 0.01}" '
        f'pos="{x} {y} {RIM_HEIGHT / 2 - 0.01}"/>'
        for name, x, y, sx, sy in (
            ("rim_right", width + thick, 0, thick, depth),
            ("rim_left", -width - thick, 0, thick, depth),
            ("rim_back", 0, depth + thick, width + 2 * thick, thick),
            ("rim_front", 0, -depth - thick, width + 2 * thick, thick),
        )
    )
    hand = "".join(
        f'<geom class="hand" name="{name}" type="{kind}" size="{size}" pos="0 0 {z}" mass="{mass}"/>'
        for name, kind, size, z, mass in (
            ("palm", "box", "0.046 0.026 0.014", 0.088, 0.3),
            ("wrist", "cylinder", "0.030 0.040", 0.142, 0.3),
            ("band", "cylinder", "0.036 0.014", 0.196, 0.1),
            ("upper_wrist", "cylinder", "0.038 0.060", 0.270, 0.2),
            ("joint", "sphere", "0.047", _WRIST, 0.1),
        )
    )
    fingers = "".join(
        f'<body name="{name}_finger" gravcomp="1">'
        f'<joint name="{name}" type="slide" axis="{side} 0 0" actuatorfrcrange="-4 4"/>'
        '<geom class="hand" type="box" size="0.008 0.011 0.038" pos="0 0 0.038" mass="0.05"/></body>'
        for name, side in (("right", 1), ("left", -1))
    )
    forearm = "".join(
        f'<geom class="hand" name="{name}" type="{kind}" size="{size}" pos="0 0 {z}" contype="0"/>'
        for name, kind, size, z in (
            ("forearm", "cylinder", "0.044 0.090", 0.10),
            ("cuff", "cylinder", "0.049 0.020", 0.21),
            ("upper_arm", "cylinder", "0.050 0.300", 0.53),
        )
    )
    force = {"x": 25, "y": 25, "z": 12}
    slides = "".join(
        f'<joint name="{axis}" type="slide" axis="{vector}" actuatorfrcrange="{-force[axis]} {force[axis]}"/>'
        for axis, vector in (("x", "1 0 0"), ("y", "0 1 0"), ("z", "0 0 1"))
    )
    servos = "".join(f'<position joint="{axis}" kp="{_STIFFNESS}" kv="{_DAMPING}"/>' for axis in "xyz")
    grips = "".join(f'<position joint="{side}" kp="300" kv="8"/>' for side in ("right", "left"))
    return f"""<mujoco>
      <compiler angle="radian"/>
      <option timestep="{_TIMESTEP}" integrator="implicitfast" iterations="20" ls_iterations="10">
        <flag sensor="disable"/>
      </option>
      <default>
        <geom group="{MOVING_GROUP}" contype="1" conaffinity="0"/>
        <default class="still"><geom group="{STATIC_GROUP}" contype="0"/></default>
        <default class="hand"><geom contype="2" friction="0.6 0.005 0.0001"/></default>
      </default>
      <worldbody>
        <geom name="table" class="still" type="plane" size="{width} {depth} 1" contype="1"
              friction="0.3 0.005 0.0001"/>
        {planes}{rims}
        <geom name="floor" class="still" type="plane" size="0 0 1" pos="0 0 -0.35"/>
        <geom name="wall" class="still" type="plane" size="0 0 1" pos="0 1.2 0" zaxis="0 -1 0"/>
        <body name="hand" gravcomp="1">{slides}{hand}{fingers}</body>
        <body name="forearm" mocap="true">{forearm}</body>
        {"".join(objects)}
      </worldbody>
      <actuator>{servos}{grips}</actuator>
    </mujoco>"""


# ---------------------------------------------------------------------------------------------------- colours

_STILL_COLORS = {
    "table": (0.80, 0.72, 0.58), "rim_right": (0.72, 0.68, 0.60), "rim_left": (0.72, 0.68, 0.60),
    "rim_back": (0.70, 0.68, 0.64), "rim_front": (0.88, 0.86, 0.82), "floor": (0.72, 0.70, 0.67),
    "wall": (0.88, 0.92, 0.96),
}  # fmt: skip
_ARM_COLORS = {"palm": (0.55, 0.09, 0.13), "band": (0.60, 0.10, 0.14), "cuff": (0.60, 0.10, 0.14)}
_ARM_COLOR = (0.13, 0.12, 0.13)
_PALETTE = np.array(
    [
        (0.90, 0.16, 0.14), (0.13, 0.42, 0.86), (0.30, 0.78, 0.16), (0.96, 0.80, 0.10), (0.95, 0.48, 0.08),
        (0.56, 0.22, 0.70), (0.10, 0.70, 0.70), (0.94, 0.94, 0.92), (0.92, 0.42, 0.62), (0.42, 0.26, 0.15),
        (0.55, 0.57, 0.60), (0.60, 0.90, 0.20),
    ]
)  # fmt: skip


def _random_surfaces(model: mujoco.MjModel, generator: np.random.Generator) -> Surfaces:
    count = model.ngeom
    color = np.tile(np.array(_ARM_COLOR), (count, 1))
    second, wave, grain = color.copy(), np.zeros((count, 3)), np.zeros(count)
    tint = generator.normal(0, 0.014, 3) + generator.normal(0, 0.035)
    picks = generator.permutation(len(_PALETTE))
    for geom in range(count):
        name = model.geom(geom).name
        body = model.body(model.geom_bodyid[geom]).name
        if name in _STILL_COLORS:
            color[geom] = np.clip(np.array(_STILL_COLORS[name]) + tint, 0.05, 1)
            second[geom] = color[geom]
            grain[geom] = {"table": 1.0, "floor": 0.5}.get(name, 0.35)
        elif name in _ARM_COLORS:
            color[geom] = second[geom] = _ARM_COLORS[name]
        elif body.startswith("object"):
            pick = picks[int(body.removeprefix("object"))]
            color[geom] = np.clip(_PALETTE[pick] + generator.normal(0, 0.04, 3), 0.03, 1)
            other = _PALETTE[generator.integers(len(_PALETTE))]
            second[geom] = other if generator.random() < 0.5 else color[geom]
            wave[geom] = generator.normal(0, 60, 3)
    return Surfaces(*(array.astype(np.float32) for array in (color, second, wave, grain)))
