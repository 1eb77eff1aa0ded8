"""Camera images by MuJoCo's own ray caster: no OpenGL, no display.

Each pixel is the mean of 2x2 rays. A ray's colour is ``albedo * (ambient + diffuse * falloff * max(0, n . l)
* visible)``: Lambert's law under one point light, whose strength is given at the origin and falls with the
square of the distance. Its shadows are cast by a second set of rays, from the light to the points that the
camera sees.

Most of an image never changes within a scene. Geoms of `STATIC_GROUP` are cast and shaded once; for each
frame only those tiles of 8x8 rays are cast again whose cone, seen from the camera or from the light, may meet
a moving geom. The result is that of casting every ray.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from ..camera import Camera

STATIC_GROUP, MOVING_GROUP, UNSEEN_GROUP = 0, 1, 3
"""MuJoCo geom groups: cast once, cast each frame, physics only."""
TILE = 8  # rays
RAYS = 2  # a pixel and axis
SKY = (0.75, 0.80, 0.85)
_BIAS = 1e-3  # metres a shadow ray may fall short of its point: rounding, not an obstacle


@dataclass(frozen=True)
class Surfaces:
    """The look of each geom of a model, in addition to its shape.

    Args:
        color, second: float32 [G,3], RGB in [0,1]: the two colours of the geom.
        wave: float32 [G,3], 1/m: the colours alternate with ``sin(wave . p)``, p in the geom's own frame;
            zero if plain.
        grain: float32 [G], strength of the wood grain in [0,1]; 0 for none.
    """

    color: np.ndarray
    second: np.ndarray
    wave: np.ndarray
    grain: np.ndarray


@dataclass(frozen=True)
class Light:
    """A point light at `position` (metres), of strength `diffuse` at the origin.

    `ambient` light comes from all sides.
    """

    position: tuple[float, float, float] = (-0.40, -0.25, 1.7)
    diffuse: float = 0.64
    ambient: float = 0.52


class Renderer:
    """Renders one scene from one camera.

    Args:
        model: whose geoms are of `STATIC_GROUP` (never move) or `MOVING_GROUP`; others are unseen.
        data: the state in which the static geoms are cast.
        surfaces: colours of the geoms.
        width: of the image in pixels, a multiple of 4; `ValueError` otherwise.
        camera, light: the usual ones if None.
        height: of the image, likewise; as the width if None.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        surfaces: Surfaces,
        width: int = 64,
        camera: Camera | None = None,
        light: Light | None = None,
        height: int | None = None,
    ):
        self._size = (width if height is None else height, width)
        for name, found in zip(("height", "width"), self._size, strict=True):
            if found <= 0 or found % (TILE // RAYS):
                raise ValueError(f"{name}: found {found}, expected a positive multiple of {TILE // RAYS}")
        self._model, self._surfaces = model, surfaces
        self._light = light or Light()
        camera = camera or Camera()
        self._eye, self._lamp = np.array(camera.position), np.array(self._light.position)
        self._rays = _in_tiles(camera_rays(camera, self._size[0] * RAYS, self._size[1] * RAYS))
        self._covers = _Covers(model, np.flatnonzero(model.geom_group == MOVING_GROUP))
        self._cast_static(data)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """Return the image of the current poses, uint8 [H,W,3].

        Poses must be up to date (``mj_kinematics``).
        """
        image, _ = self._draw(data, None)
        return image

    def render_with_labels(
        self, data: mujoco.MjData, labels: np.ndarray, shadow: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the image and its segmentation, for little more than the image alone costs.

        Args:
            labels: uint8 [G], the label of each geom; that of static geoms is 0.
            shadow: the label of the static scene where a moving geom keeps the light from it.

        Returns uint8 [H,W,3] and uint8 [H,W]: the label that most of a pixel's rays hit, the lower of two at
        a tie.
        """
        return self._draw(data, (labels, shadow))

    def _draw(
        self, data: mujoco.MjData, labelling: tuple[np.ndarray, int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        image = self._static_image.copy()
        centres = self._covers.centres(data)
        seen = _touched(self._eye_cones, centres - self._eye, self._covers.radius)
        shadowed = _touched(self._lamp_cones, centres - self._lamp, self._covers.radius)
        tiles = np.flatnonzero(seen | shadowed)
        # The rays of these tiles, [R] from here on.
        points = self._static_points[tiles].reshape(-1, 3)
        dark = self._static_dark[tiles].reshape(-1, 3)
        lit = self._static_lit[tiles].reshape(-1, 3)
        # A ray that faces away from the light or is shadowed anyway is not dubious.
        dubious = np.repeat(shadowed[tiles], TILE**2) & (lit[:, 1] > 0)
        cast = np.flatnonzero(np.repeat(seen[tiles], TILE**2))
        rays = self._rays[tiles].reshape(-1, 3)[cast]
        geom, distance, normal = self._cast(data, self._eye, rays, MOVING_GROUP)
        found = np.flatnonzero((geom >= 0) & (distance < self._static_distance[tiles].ravel()[cast]))
        hit = cast[found]
        points[hit] = self._eye + rays[found] * distance[found, None]
        dark[hit], lit[hit] = self._shade(data, geom[found], points[hit], normal[found])
        dubious[hit] = lit[hit, 1] > 0
        dubious = np.flatnonzero(dubious)
        hidden = dubious[~self._reached(data, points[dubious], MOVING_GROUP)]
        lit[hidden] = 0
        image[tiles] = _average((dark + lit).reshape(len(tiles), TILE**2, 3))
        segmentation = np.zeros(image.shape[:2], np.uint8)
        if labelling is not None:
            labels, shadow = labelling
            of_rays = np.zeros(len(points), np.uint8)
            of_rays[hidden] = shadow
            of_rays[hit] = labels[geom[found]]
            segmentation[tiles] = _majority(of_rays.reshape(len(tiles), TILE**2))
        return _from_tiles(image, *self._size), _from_tiles(segmentation[..., None], *self._size)[..., 0]

    # --------------------------------------------------------------------------------------------------------

    def _cast_static(self, data: mujoco.MjData) -> None:
        shape = self._rays.shape  # [tiles, rays, 3]
        rays = self._rays.reshape(-1, 3)
        geom, distance, normal = self._cast(data, self._eye, rays, STATIC_GROUP)
        sky = geom < 0
        distance[sky] = np.inf
        points = self._eye + rays * np.where(sky, 1.0, distance)[:, None]
        dark, lit = self._shade(data, np.maximum(geom, 0), points, normal)
        lit *= self._reached(data, points, STATIC_GROUP)[:, None]
        dark[sky], lit[sky] = SKY, 0
        self._static_distance = distance.reshape(shape[:2])
        self._static_points, self._static_dark, self._static_lit = (
            x.reshape(shape) for x in (points, dark, lit)
        )
        self._static_image = _average(self._static_dark + self._static_lit)
        self._eye_cones = _cones(self._rays)
        toward = self._static_points - self._lamp
        self._lamp_cones = _cones(toward / np.linalg.norm(toward, axis=-1, keepdims=True))

    def _cast(self, data, origin, rays, group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Geom (-1 for none) [N], distance [N] and normal [N,3] of the first hit of unit vectors [N,3]."""
        count = len(rays)
        geom, distance, normal = np.empty(count, np.int32), np.empty(count), np.empty((count, 3))
        if count:
            mujoco.mj_multiRay(
                self._model, data, origin, rays.ravel(), _only(group), 1, -1, geom, distance,
                normal.reshape(-1), count, mujoco.mjMAXVAL,
            )  # fmt: skip
        return geom, distance, normal

    def _reached(self, data, points, group) -> np.ndarray:
        """Return whether the light reaches points [N,3] past the geoms of `group`, bool [N]."""
        rays = points - self._lamp
        length = np.sqrt(np.einsum("nk,nk->n", rays, rays))
        geom, distance, _ = self._cast(data, self._lamp, rays / length[:, None], group)
        return (geom < 0) | (distance > length - _BIAS)

    def _shade(self, data, geom, points, normal) -> tuple[np.ndarray, np.ndarray]:
        """Return the colours of points in shadow and the addition by direct light, float32 [N,3] each."""
        albedo = self._albedo(data, geom, points)
        toward = (self._lamp - points).astype(np.float32)
        squared = np.einsum("nk,nk->n", toward, toward)
        cosine = np.einsum("nk,nk->n", toward, normal.astype(np.float32)) / np.sqrt(squared)
        falloff = np.float32(self._lamp @ self._lamp) / squared
        direct = self._light.diffuse * np.maximum(cosine, 0) * falloff
        return albedo * np.float32(self._light.ambient), albedo * direct[:, None].astype(np.float32)

    def _albedo(self, data, geom, points) -> np.ndarray:
        """Return the surface colours at points, float32 [N,3]."""
        surfaces = self._surfaces
        # sin(wave . p) with p in the geom's frame: wave is turned into the world's frame instead, once for
        # each geom.
        wave = np.einsum("gij,gj->gi", data.geom_xmat.reshape(-1, 3, 3), surfaces.wave)
        phase = np.einsum("gi,gi->g", wave, data.geom_xpos)
        stripes = np.sin(np.einsum("ni,ni->n", points, wave[geom]) - phase[geom]).astype(np.float32)
        mix = np.clip(0.5 + 4 * stripes, 0, 1)[:, None]
        color = surfaces.color[geom]
        albedo = color + mix * (surfaces.second[geom] - color)
        grain = surfaces.grain[geom]
        if grain.any():
            albedo *= 1 + (grain * _wood(points))[:, None]
        return albedo


def camera_rays(camera: Camera, rows: int, columns: int) -> np.ndarray:
    """Return unit vectors through the centres of `rows` x `columns` image cells, float64 [rows,columns,3].

    Row 0 is the top.
    """
    right, up, forward = camera.axes()
    size = np.tan(np.radians(camera.field_of_view) / 2) / rows  # half of a cell, one unit ahead
    across, down = (size * (2 * np.arange(count) + 1 - count) for count in (columns, rows))
    rays = forward + across[None, :, None] * right - down[:, None, None] * up
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _in_tiles(rays: np.ndarray) -> np.ndarray:
    """[rows,columns,3] -> [tiles, RAYS**2 * pixels, 3].

    The pixels' first rays, then their second ones, ...
    """
    rows, columns, side = len(rays) // TILE, rays.shape[1] // TILE, TILE // RAYS
    parts = rays.reshape(rows, side, RAYS, columns, side, RAYS, 3).transpose(0, 3, 2, 5, 1, 4, 6)
    return parts.reshape(rows * columns, TILE * TILE, 3)


def _average(colors: np.ndarray) -> np.ndarray:
    """Float colours of rays [tiles, RAYS**2 * pixels, 3] -> uint8 [tiles,pixels,3]."""
    pixels = colors.reshape(len(colors), RAYS**2, colors.shape[1] // RAYS**2, 3)
    mean = sum(pixels[:, ray] for ray in range(RAYS**2)) * np.float32(255 / RAYS**2)
    return (np.minimum(mean, 255) + 0.5).astype(np.uint8)


def _majority(labels: np.ndarray) -> np.ndarray:
    """Return the label that most of a pixel's rays have: [tiles, RAYS**2 * pixels] -> [tiles,pixels]."""
    lowest, low, high, highest = np.sort(labels.reshape(len(labels), RAYS**2, -1), axis=1).swapaxes(0, 1)
    # Of four in order, two equal neighbours are a majority or a tie; if all differ the lowest is as good as
    # any.
    return np.where(lowest == low, low, np.where(low == high, low, np.where(high == highest, high, lowest)))


def _from_tiles(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[tiles,pixels,C] -> [height,width,C]."""
    side = TILE // RAYS
    return (
        pixels.reshape(height // side, width // side, side, side, -1)
        .transpose(0, 2, 1, 3, 4)
        .reshape(height, width, -1)
    )


class _Covers:
    """Spheres that together cover each geom.

    Several for a long one, which a single sphere would cover loosely.
    """

    def __init__(self, model: mujoco.MjModel, geoms: np.ndarray):
        rows = []
        for geom in geoms:
            radius, half = model.geom_size[geom, :2]
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER and half > radius:
                count = int(np.ceil(half / radius))
                rows += [
                    (geom, half * ((2 * i + 1) / count - 1), np.hypot(radius, half / count))
                    for i in range(count)
                ]
            else:
                rows.append((geom, 0, model.geom_rbound[geom]))
        self._geom = np.array([row[0] for row in rows])
        self._along = np.array([row[1] for row in rows])[:, None]  # the geom's own z
        self.radius = np.array([row[2] for row in rows])

    def centres(self, data: mujoco.MjData) -> np.ndarray:
        """Float64 [spheres,3]."""
        return data.geom_xpos[self._geom] + self._along * data.geom_xmat[self._geom, 2::3]


def _cones(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axis [tiles,3] and half angle [tiles] of a cone about each tile's unit vectors [tiles,rays,3]."""
    axis = rays.mean(1)
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    return axis, np.arccos(np.clip(np.einsum("tk,trk->tr", axis, rays).min(1), -1, 1))


def _touched(cones: tuple[np.ndarray, np.ndarray], centres: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Which cones may meet one of the spheres with centres [S,3] relative to the cones' tip, and radii [S].

    Bool [tiles].
    """
    axis, half = cones
    distance = np.linalg.norm(centres, axis=1)
    # They meet if the angle between the axes is at most half + sphere + a little for rounding. No sphere
    # holds the tip.
    sphere = np.arcsin(np.minimum(radius / distance, 1)) + 1e-5
    least = np.outer(np.cos(sphere), np.cos(half)) - np.outer(np.sin(sphere), np.sin(half))
    return (np.einsum("sk,tk->st", centres / distance[:, None], axis) >= least).any(0)


def _only(group: int) -> np.ndarray:
    mask = np.zeros(6, np.uint8)
    mask[group] = 1
    return mask


def _wood(points: np.ndarray) -> np.ndarray:
    """Relative brightness of wood with its grain along x at points [N,3], about -0.1 to 0.1, float32 [N]."""
    x, y = points[:, 0], points[:, 1]
    warp = y + 0.012 * np.sin(7 * x + 3 * np.sin(11 * y))
    grain = 0.05 * np.sin(140 * warp + 2 * np.sin(23 * warp)) * np.sin(31 * warp + 4 * x)
    return (grain + 0.03 * np.sin(9 * warp + 1.7 * x)).astype(np.float32)


def random_light(generator: np.random.Generator) -> Light:
    """Return a light a little different from the usual one."""
    position = np.array(Light.position) + generator.uniform(-1, 1, 3) * (0.25, 0.15, 0.1)
    return Light(
        tuple(position),
        Light.diffuse * generator.uniform(0.9, 1.1),
        Light.ambient * generator.uniform(0.9, 1.1),
    )
