"""The camera of the simulated pushing: from places on the table to pixels and back, without MuJoCo."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Where it stands, what it looks at (metres), and its vertical angle of view in degrees.
    """

    position: tuple[float, float, float] = (0.0, -0.66, 0.66)
    target: tuple[float, float, float] = (0.0, 0.005, 0.02)
    field_of_view: float = 41.0

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return unit vectors to the right, up and forward."""
        forward = np.subtract(self.target, self.position, dtype=np.float64)
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        return right, np.cross(right, forward), forward

    def matrix(self, height: int, width: int) -> np.ndarray:
        """Return the matrix of `project`, float64 [3,4].

        Of a point's homogeneous coordinates it makes the two of a pixel, both times the depth, and the depth.
        """
        pixels_a_unit = height / (2 * np.tan(np.radians(self.field_of_view) / 2))
        right, up, forward = self.axes()
        rows = np.stack(
            [
                pixels_a_unit * right + (width - 1) / 2 * forward,
                -pixels_a_unit * up + (height - 1) / 2 * forward,
                forward,
            ]
        )
        return np.concatenate([rows, -rows @ np.array(self.position)[:, None]], 1)

    def project(self, points: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return where points appear in an image of `height` x `width` pixels.

        Args:
            points: float [...,3], metres, in front of the camera.

        Returns float64 [...,2]: pixels to the right and down; the middle of the first pixel is (0, 0). What
        lies outside the picture has coordinates outside it.
        """
        matrix = self.matrix(height, width)
        projected = np.asarray(points, np.float64) @ matrix[:, :3].T + matrix[:, 3]
        return projected[..., :2] / projected[..., 2:]

    def unproject(
        self, pixels: np.ndarray, height: int, width: int, z: float | np.ndarray = 0.0
    ) -> np.ndarray:
        """Return the points at height `z` (metres) that appear at `pixels`, the inverse of `project`.

        Args:
            pixels: float [...,2], to the right and down, of an image of `height` x `width` pixels.
            z: the same for all, or [...,1].

        Returns float64 [...,3], metres.
        """
        right, up, forward = self.axes()
        pixels = np.asarray(pixels, np.float64)
        units_a_pixel = 2 * np.tan(np.radians(self.field_of_view) / 2) / height
        across = (pixels[..., :1] - (width - 1) / 2) * units_a_pixel
        down = (pixels[..., 1:] - (height - 1) / 2) * units_a_pixel
        rays = forward + across * right - down * up
        distance = (z - self.position[2]) / rays[..., 2:]
        return np.array(self.position) + distance * rays
