"""A simulated person in a room, by MuJoCo: an articulated figure, random choreography, and its skeleton as an
image.

Axes in metres: x to the right of the picture, y away from the camera, z up; the origin is on the floor in the
middle. At yaw 0 the figure faces the camera; its left is on the right of the picture. Angles are in radians.
"""

import mujoco
import numpy as np
from PIL import Image, ImageDraw

from .raycast import MOVING_GROUP, STATIC_GROUP, Camera, Light, Surfaces

CAMERA = Camera(position=(0.0, -5.2, 1.35), target=(0.0, 0.0, 0.93), field_of_view=25.5)
SPACE = (1.75, 0.45)  # the figure stays within these distances of the origin along x and y
FINE = 8  # the skeleton is drawn so many times as large

ROOT = ("x", "y", "z", "yaw")
SIDES = {"left": 1, "right": -1}
JOINTS = (
    *ROOT, "lean", "nod",
    *(
        f"{side}_{joint}"
        for side in SIDES for joint in ("abduct", "raise", "elbow", "spread", "stride", "knee")
    ),
)  # fmt: skip
REST = {
    "left_abduct": 0.12,
    "right_abduct": 0.12,
    "left_elbow": 0.2,
    "right_elbow": 0.2,
    "left_spread": 0.06,
    "right_spread": 0.06,
}

BONES = {  # of the skeleton: body at its lower end, the one that it starts from, colour
    "head": ("torso_top", (130, 40, 200)),
    "torso_top": ("pelvis", (90, 90, 235)),
    **{f"{side}_shoulder": ("torso_top", (60, 130, 240)) for side in SIDES},
    "left_elbow": ("left_shoulder", (40, 200, 240)), "left_hand": ("left_elbow", (40, 225, 200)),
    "right_elbow": ("right_shoulder", (40, 150, 245)), "right_hand": ("right_elbow", (150, 120, 240)),
    **{f"{side}_hip": ("pelvis", (100, 80, 220)) for side in SIDES},
    "left_knee": ("left_hip", (60, 220, 120)), "left_ankle": ("left_knee", (70, 235, 60)),
    "right_knee": ("right_hip", (250, 120, 60)), "right_ankle": ("right_knee", (250, 90, 110)),
    "left_toe": ("left_ankle", (200, 220, 40)), "right_toe": ("right_ankle", (250, 190, 40)),
}  # fmt: skip


class Dancer:
    """The figure in its room.

    Clothes and room are the same in all sequences. `model`, `data` and `surfaces` as of `Pusher`.
    """

    def __init__(self):
        self.model = mujoco.MjModel.from_xml_string(_room_xml())
        self.data = mujoco.MjData(self.model)
        self.surfaces = _surfaces(self.model)
        self._qpos = [self.model.joint(name).qposadr[0] for name in JOINTS]
        self._places = {name: self.model.site(name).id for name in ("pelvis", *BONES)}
        self._height = self._qpos[JOINTS.index("z")]
        self._lowest = [
            self.model.site(f"{side}_{part}").id for side in SIDES for part in ("ankle", "toe", "knee")
        ]

    def take(self, posture: np.ndarray) -> None:
        """Take a posture, float [J] in the order of `JOINTS`, standing on the floor whatever its z is."""
        self.data.qpos[self._qpos] = posture
        self.data.qpos[self._height] = 0
        mujoco.mj_kinematics(self.model, self.data)
        self.data.qpos[self._height] = 0.06 - self.data.site_xpos[self._lowest, 2].min()
        mujoco.mj_kinematics(self.model, self.data)

    def skeleton(self, height: int, width: int, camera: Camera = CAMERA) -> np.ndarray:
        """Return the skeleton seen by the camera: thin coloured bones on white, uint8 [height,width,3]."""
        image = Image.new("RGB", (width * FINE, height * FINE), (255, 255, 255))
        draw = ImageDraw.Draw(image)
        points = project(
            camera, np.stack([self.data.site_xpos[place] for place in self._places.values()]), height * FINE
        )
        middle = np.array([width, height]) * FINE / 2
        at = dict(zip(self._places, middle + points, strict=True))
        for name, (start, colour) in BONES.items():
            draw.line([tuple(at[start]), tuple(at[name])], colour, FINE)
        return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def project(camera: Camera, points: np.ndarray, height: int) -> np.ndarray:
    """Return the places of points [N,3] in a picture of this height, float [N,2].

    They are in pixels to the right of and below the middle.
    """
    right, up, forward = camera.axes()
    seen = points - np.array(camera.position)
    scale = height / 2 / np.tan(np.radians(camera.field_of_view) / 2) / (seen @ forward)
    return np.stack([seen @ right * scale, -(seen @ up) * scale], 1)


# ----------------------------------------------------------------------------------------------- choreography


def choreograph(generator: np.random.Generator, frames: int) -> np.ndarray:
    """Return the postures of a random succession of moves, float [T,J], smooth in time."""
    posture = _posture(x=generator.uniform(-1, 1) * SPACE[0], y=generator.uniform(-1, 1) * SPACE[1])
    parts, total = [], 0
    while total < frames:
        move = (_walk, _walk, _raise_arms, _bend, _turn, _stand)[generator.integers(6)]
        for target, duration, steps in move(generator, posture):
            parts.append(_between(posture, target, duration, steps))
            posture, total = target, total + duration
    return np.concatenate(parts)[:frames]


def _between(start: np.ndarray, end: np.ndarray, frames: int, steps: float) -> np.ndarray:
    """From one posture to before another, starting and ending slowly, with so many steps of a walk."""
    time = np.arange(frames) / frames
    if not steps:
        time = time**2 * (3 - 2 * time)
    change, yaw = end - start, JOINTS.index("yaw")
    change[yaw] = (change[yaw] + np.pi) % (2 * np.pi) - np.pi  # turns the shorter way
    postures = start + time[:, None] * change
    phase, strength = time * steps * np.pi, np.minimum(1, 4 * np.minimum(time, 1 - time)) * bool(steps)
    for side, sign in SIDES.items():
        swing = sign * np.sin(phase)
        postures[:, JOINTS.index(f"{side}_stride")] += 0.45 * strength * swing
        postures[:, JOINTS.index(f"{side}_knee")] += 0.8 * strength * np.maximum(0, sign * np.cos(phase))
        postures[:, JOINTS.index(f"{side}_raise")] -= 0.4 * strength * swing
    return postures


Move = list[tuple[np.ndarray, int, float]]
"""Postures, each with the frames that it takes to get there and the steps walked meanwhile."""


def _walk(generator: np.random.Generator, now: np.ndarray) -> Move:
    x, y = now[0], now[1]
    goal = generator.uniform(-1, 1) * SPACE[0]
    if abs(goal - x) < 0.5:
        goal = x - np.sign(x) * generator.uniform(0.6, 1.6)
    yaw = np.sign(goal - x) * np.pi / 2
    depth = np.clip(y + generator.normal(0, 0.2), -SPACE[1], SPACE[1])
    frames = max(8, int(abs(goal - x) / generator.uniform(0.03, 0.055)))
    steps = max(1, round(abs(goal - x) / 0.5))
    turned = _posture(x=x, y=y, yaw=yaw)
    return [(turned, int(generator.integers(6, 12)), 0), (_posture(x=goal, y=depth, yaw=yaw), frames, steps)]


def _raise_arms(generator: np.random.Generator, now: np.ndarray) -> Move:
    """Arms up, out or one of them, and some to and fro."""
    base = {"x": now[0], "y": now[1], "yaw": generator.normal(0, 0.15), "nod": generator.normal(0, 0.1)}
    moves = []
    for _ in range(generator.integers(1, 4)):
        angles = {f"{side}_abduct": generator.uniform(0.1, 2.9) for side in SIDES}
        if generator.random() < 0.5:
            angles["right_abduct"] = angles["left_abduct"]
        bent = {f"{side}_elbow": generator.uniform(0, 1.2) for side in SIDES}
        legs = dict.fromkeys(("left_spread", "right_spread"), generator.uniform(0.06, 0.35))
        moves.append((_posture(**base, **angles, **bent, **legs), int(generator.integers(10, 24)), 0))
    return [*moves, (_posture(**base), int(generator.integers(8, 16)), 0)]


def _bend(generator: np.random.Generator, now: np.ndarray) -> Move:
    """Squats facing anywhere, or a lunge seen from the side."""
    frames = int(generator.integers(10, 22))
    if generator.random() < 0.5:
        depth = generator.uniform(0.6, 1.3)
        base = {"x": now[0], "y": now[1], "yaw": now[3]}
        bent = {f"{side}_stride": depth for side in SIDES} | {f"{side}_knee": 1.9 * depth for side in SIDES}
        arms = {f"{side}_raise": generator.uniform(0, 1.6) for side in SIDES}
        low = _posture(**base, **bent, **arms, lean=0.6 * depth)
    else:
        base = {"x": now[0], "y": now[1], "yaw": generator.choice([-1, 1]) * np.pi / 2}
        depth = generator.uniform(0.7, 1.2)
        legs = {
            "left_stride": depth,
            "left_knee": 1.5 * depth,
            "right_stride": -0.4 * depth,
            "right_knee": 0.8 * depth,
        }
        low = _posture(
            **base,
            **legs,
            left_raise=generator.uniform(-0.5, 1.2),
            right_raise=generator.uniform(-0.5, 1.2),
            lean=0.2,
        )
    return [(low, frames, 0), (low, int(generator.integers(2, 12)), 0), (_posture(**base), frames, 0)]


def _turn(generator: np.random.Generator, now: np.ndarray) -> Move:
    return [
        (
            _posture(x=now[0], y=now[1], yaw=generator.uniform(-np.pi, np.pi)),
            int(generator.integers(10, 25)),
            2,
        )
    ]


def _stand(generator: np.random.Generator, now: np.ndarray) -> Move:
    posture = _posture(
        x=now[0], y=now[1], yaw=now[3], nod=generator.normal(0, 0.15), lean=abs(generator.normal(0, 0.05))
    )
    return [(posture, int(generator.integers(5, 20)), 0)]


def _posture(**angles: float) -> np.ndarray:
    """Standing at rest, but for these joints."""
    return np.array([(REST | angles).get(name, 0.0) for name in JOINTS])


# ------------------------------------------------------------------------------------------------------ scene


def random_light(generator: np.random.Generator) -> tuple[Light, np.ndarray]:
    """Return a random lamp under the ceiling, and the factor of each channel by colour and exposure."""
    position = (generator.uniform(-1.6, 1.6), generator.uniform(-2.4, -1.2), generator.uniform(2.7, 3.4))
    light = Light(position, generator.uniform(0.45, 0.65), generator.uniform(0.30, 0.42))
    return light, generator.uniform(0.88, 1.12) * (1 + generator.normal(0, 0.03, 3))


def _room_xml() -> str:
    def geom(shape: str, ends: str, group: int = MOVING_GROUP) -> str:
        return f'<geom {shape} {ends} group="{group}" contype="0" conaffinity="0"/>'

    def joint(name: str, axis: str, kind: str = "hinge") -> str:
        return f'<joint name="{name}" type="{kind}" axis="{axis}"/>'

    limbs = []
    for side, sign in SIDES.items():
        limbs.append(f"""
        <body name="{side}_arm" pos="{0.20 * sign} 0 0.45"><site name="{side}_shoulder"/>
          {joint(f"{side}_abduct", f"0 {-sign} 0")}{joint(f"{side}_raise", "-1 0 0")}
          {geom('name="' + side + '_sleeve" type="capsule"', 'fromto="0 0 0 0 0 -0.27" size="0.055"')}
          <body pos="0 0 -0.28"><site name="{side}_elbow"/>{joint(f"{side}_elbow", "-1 0 0")}
            {geom('name="' + side + '_cuff" type="capsule"', 'fromto="0 0 0 0 0 -0.21" size="0.046"')}
            {geom('name="' + side + '_palm" type="sphere"', 'pos="0 0 -0.28" size="0.055"')}
            <site name="{side}_hand" pos="0 0 -0.28"/></body></body>""")
    legs = []
    for side, sign in SIDES.items():
        legs.append(f"""
      <body pos="{0.1 * sign} 0 -0.02"><site name="{side}_hip"/>
        {joint(f"{side}_spread", f"0 {-sign} 0")}{joint(f"{side}_stride", "-1 0 0")}
        {geom('name="' + side + '_thigh" type="capsule"', 'fromto="0 0 0 0 0 -0.42" size="0.082"')}
        <body pos="0 0 -0.43"><site name="{side}_knee"/>{joint(f"{side}_knee", "1 0 0")}
          {geom('name="' + side + '_shin" type="capsule"', 'fromto="0 0 0 0 0 -0.38" size="0.062"')}
          {
            geom(
                'name="' + side + '_shoe" type="capsule"', 'fromto="0 0.03 -0.43 0 -0.15 -0.43" size="0.045"'
            )
        }
          <site name="{side}_ankle" pos="0 0 -0.41"/><site name="{side}_toe" pos="0 -0.16 -0.43"/>
        </body></body>""")
    static = "".join(
        geom(f'name="{name}" type="box"', f'pos="{pos}" size="{size}"', STATIC_GROUP)
        for name, pos, size in (
            ("floor", "0 0 -0.05", "6 5 0.05"), ("wall", "0 1.75 2", "6 0.05 2.2"),
            ("skirting", "0 1.68 0.05", "6 0.02 0.05"),
            ("picture", "-1.3 1.68 1.55", "0.32 0.02 0.22"), ("door", "1.75 1.69 0.95", "0.36 0.02 0.95"),
        )
    )  # fmt: skip
    return f"""
<mujoco><compiler angle="radian"/><option gravity="0 0 0"/>
  <worldbody>{static}
    <body name="pelvis">
      {joint("x", "1 0 0", "slide")}{joint("y", "0 1 0", "slide")}{joint("z", "0 0 1", "slide")}
      {joint("yaw", "0 0 1")}<site name="pelvis"/>
      {geom('name="hips" type="capsule"', 'fromto="-0.07 0 0.02 0.07 0 0.02" size="0.115"')}
      <body pos="0 0 0.05">{joint("lean", "1 0 0")}
        {geom('name="belly" type="capsule"', 'fromto="0 0 0.06 0 0 0.3" size="0.145"')}
        {geom('name="chest" type="capsule"', 'fromto="-0.12 0 0.40 0.12 0 0.40" size="0.10"')}
        <site name="torso_top" pos="0 0 0.47"/>
        <body pos="0 0 0.48">{joint("nod", "1 0 0")}
          {geom('name="neck" type="capsule"', 'fromto="0 0 0 0 0 0.08" size="0.055"')}
          {geom('name="face" type="sphere"', 'pos="0 -0.02 0.18" size="0.105"')}
          {geom('name="hair" type="sphere"', 'pos="0 0.02 0.21" size="0.108"')}
          <site name="head" pos="0 0 0.2"/></body>{"".join(limbs)}</body>{"".join(legs)}</body>
  </worldbody></mujoco>"""


def _surfaces(model: mujoco.MjModel) -> Surfaces:
    shirt, trousers, skin, dark = (
        (0.30, 0.42, 0.62),
        (0.12, 0.12, 0.15),
        (0.75, 0.55, 0.44),
        (0.10, 0.08, 0.07),
    )
    colours = {
        "floor": (0.62, 0.60, 0.57), "wall": (0.78, 0.77, 0.74), "skirting": (0.45, 0.42, 0.40),
        "picture": (0.35, 0.50, 0.42), "door": (0.58, 0.47, 0.36),
        "belly": shirt, "chest": shirt, "hips": trousers, "neck": skin, "face": skin, "hair": dark,
        **{f"{side}_{part}": colour for side in SIDES for part, colour in {
            "sleeve": shirt, "cuff": shirt, "palm": skin, "thigh": trousers, "shin": trousers, "shoe": dark,
        }.items()},
    }  # fmt: skip
    names = [model.geom(number).name for number in range(model.ngeom)]
    color = np.array([colours[name] for name in names], np.float32)
    wave = np.zeros_like(color)
    wave[names.index("floor")] = (0, 9, 0)  # boards
    second = color.copy()
    second[names.index("floor")] *= 0.94
    return Surfaces(color, second, wave, np.zeros(len(names), np.float32))
