"""Pictures of what the judge of objects finds: outlines and centres over predicted and true frames."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.measure import find_contours

from data_tools.truth import FIRST_OBJECT, PALETTE

from ..evaluation.futures import SequenceFutures
from ..evaluation.judge import Judge
from ..evaluation.objects import FoundObjects, ObjectTruth, find_objects, judged_objects, read_object_truth
from ..sequences import SequenceDataset
from .rendering import to_video

SCALE = 4
"""Pixels of a picture for one of the frame."""
ARM_OF_CROSS = 5


def object_videos(
    judge: Judge, dataset: SequenceDataset, number: int, futures: SequenceFutures
) -> dict[str, np.ndarray]:
    """Return the truth and the prediction of a sequence with what the judge finds in them.

    Each object has its colour: the outline of the mask that is found, a cross at its centre and a circle at
    the true one. Of an object that is not found the circle is all that there is; objects that are not judged
    have none. Videos are uint8 [T,H,W,3], `SCALE` times as large; the given frames are as they are.
    """
    n_past = len(futures.past)
    device = futures.past.device
    truth = read_object_truth(dataset, range(number, number + 1), n_past, device)
    videos = {}
    for name, future in {"found_ref": futures.truth, "found_pred": futures.pred}.items():
        found = find_objects(judge, futures.past[-1:], future[None].clamp(0, 1), truth)
        frames = [_enlarged(frame) for frame in to_video(futures.past, future)]
        for time, picture in enumerate(frames[n_past:]):
            _draw_objects(picture, truth, found, time)
        videos[name] = np.stack([np.asarray(picture) for picture in frames])
    return videos


def _enlarged(frame: np.ndarray) -> Image.Image:
    height, width = frame.shape[:2]
    return Image.fromarray(frame).resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)


def _draw_objects(picture: Image.Image, truth: ObjectTruth, found: FoundObjects, time: int) -> None:
    """Draw the judged objects of one frame of the first sequence of a batch."""
    draw = ImageDraw.Draw(picture)
    for number in torch.nonzero(judged_objects(truth)[0, time])[:, 0].tolist():
        colour = PALETTE[min(FIRST_OBJECT + number, len(PALETTE) - 1)]
        x, y = _place(truth.centres[0, time, number])
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), outline=(255, 255, 255), fill=colour)
        if not found.is_there[0, time, number]:
            continue
        mask = np.pad(found.masks[0, time, number].cpu().numpy().astype(float), 1)
        for contour in find_contours(mask, 0.5):
            # of the padded mask, rows first; the middle of the first pixel is (0, 0)
            points = [tuple(SCALE * (place - 0.5)) for place in contour[:, ::-1]]
            draw.line(points, fill=colour, width=2)
        x, y = _place(found.centres[0, time, number])
        draw.line((x - ARM_OF_CROSS, y, x + ARM_OF_CROSS, y), fill=colour, width=2)
        draw.line((x, y - ARM_OF_CROSS, x, y + ARM_OF_CROSS), fill=colour, width=2)


def _place(centre: torch.Tensor) -> tuple[float, float]:
    """Return where a place in pixels of the frame, [2], is in the picture."""
    x, y = (SCALE * (centre + 0.5)).tolist()
    return x, y
