"""One field of radiance to pictures: render, write, compare with views held out. In a worker."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nf2vec_cli.config.fit import FitConfig
from nf2vec_cli.core.orbit import ELEVATION, RADIUS, focal_length, orbit
from nf2vec_cli.core.render import camera_rays
from nf2vec_cli.errors import InputError
from nf2vec_cli.fields.nerf import in_unit
from nf2vec_cli.metrics import psnr
from nf2vec_cli.shapes.camera_file import Shots
from nf2vec_cli.shapes.fingerprint import fingerprint
from nf2vec_cli.shapes.pictures import colour_of
from nf2vec_cli.shapes.view_cache import views_of
from nf2vec_cli.shapes.views import Views
from nf2vec_cli.shapes.write import write_bytes
from nf2vec_cli.tasks.look import WHITE, in_bytes
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.radiance_shape import reach_of
from nf2vec_cli.tasks.sheet import SIZE
from nf2vec_cli.tasks.turntable import write_film

STILLS, FRAMES = 8, 36  # pictures of an orbit: as PNG, and of a turntable
PIXELS = 200  # of their sides
CLEAR = 1 / 512  # opacity that rounds to none


@dataclass(frozen=True)
class Film:
    """What pictures to make of each object.

    count: of an orbit; None: 8, or 36 of a turntable. size: pixels of their sides. elevation: of
    the orbit, in degrees. background: red, green and blue in [0, 1]; None: none, PNG with alpha.
    shots: cameras in the place of the orbit. up: the axis that points up; None: as the store's own
    cameras have it.
    """

    count: int | None = None
    size: int = PIXELS
    elevation: float = ELEVATION
    background: tuple[float, float, float] | None = WHITE
    shots: Shots | None = None
    up: str | None = None


@dataclass(frozen=True)
class Filmed:
    """One object's pictures.

    file: a folder of PNG files, or a turntable. pictures: how many there are. psnr: of what the
    field shows where the views were taken that were held out, in decibels, on white; None: they
    are not there any more, or not compared. coverage: mean share of a picture that is covered.
    """

    id: str
    file: str | None
    pictures: int = 0
    coverage: float | None = None
    psnr: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Shoot:
    """One object to take pictures of, with all that a worker needs for it.

    source: where its pictures or its mesh may be; digest: of them, as they were fitted. cache:
    where pictures of meshes are kept.
    """

    id: str
    field: Renderable
    transform: NDArray[np.float64]
    source: tuple[Path, ...]
    digest: bytes
    file: Path  # a folder, if suffix is png
    suffix: str
    up: str
    config: FitConfig
    film: Film = Film()
    cache: Path | None = None


def shoot(job: Shoot) -> Filmed:
    """Render and write one object's pictures, and compare the field with views held out."""
    pictures, coverage = _pictures(job)
    held = held_views(job)
    quality = None if held is None else _psnr(job.field, held)
    if not coverage:
        problem = "its pictures are empty: nothing of the field is left, or in sight"
        return Filmed(job.id, None, coverage=0.0, psnr=quality, problem=problem)
    if job.suffix != "png":
        write_film(pictures, job.file)
    else:
        for number, one in enumerate(pictures):
            write_bytes(png(one), job.file / f"{number:03}.png")
    return Filmed(job.id, str(job.file), len(pictures), round(coverage, 4), quality)


def compared(job: Shoot) -> tuple[NDArray[np.uint8], ...]:
    """Draw a view that was held out, and the field from the same place; the field alone without."""
    held = held_views(job)
    if held is None:
        pose = orbit(1, radius=RADIUS * reach_of(job.field), up=job.up)
        seen, _ = render_view(job.field, pose[0], focal_length(SIZE), (SIZE, SIZE), WHITE)
        return np.full_like(seen, 235), seen
    poses, focal = in_unit(held, held.held)
    truth = on_white(held)[0]
    height, width = truth.shape[:2]
    scale = SIZE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    seen, _ = render_view(job.field, poses[0], float(focal[0]) * size[0] / width, size, WHITE)
    shown = np.asarray(Image.fromarray((truth * 255).round().astype(np.uint8)).resize(size))
    return _squared(shown), _squared(seen)


def render_view(
    seen: Renderable,
    pose: Tensor,  # [3, 4]
    focal: float,
    size: tuple[int, int],
    background: tuple[float, float, float] | None,
) -> tuple[NDArray[np.uint8], float]:
    """Render one picture [H, W, 3], or [H, W, 4] without background, and its mean opacity."""
    width, height = size
    rays = camera_rays(pose[None], torch.tensor([focal], dtype=torch.float32), width, height)
    found = seen.render(rays, background=background or (0.0, 0.0, 0.0))
    colour, opacity = found.colour, found.opacity[:, None]
    if background is None:  # straight, not premultiplied
        colour = torch.cat([colour / opacity.clamp_min(CLEAR), opacity], 1)
    picture = in_bytes(colour).reshape(height, width, -1)
    covered = float(torch.where(opacity < CLEAR, 0, opacity).mean())
    return picture, covered


def held_views(job: Shoot) -> Views | None:
    """Read the object's views if they are where they were, as they were; else None."""
    config = job.config
    for path in job.source:
        try:
            if fingerprint(path, kind="nerf")[0] == job.digest:
                views = views_of(
                    path,
                    views=config.views,
                    size=config.size,
                    seed=config.seed,
                    how=config.normalise,
                    background=colour_of(config.background) if config.background else None,
                    cache=job.cache,
                    digest=job.digest,
                )
                return views if views.held.any() else None
        except (OSError, InputError):
            continue
    return None


def on_white(views: Views) -> NDArray[np.float32]:  # [V, H, W, 3]
    """Give the views that are held out, in [0, 1], on white."""
    pixels = views.pixels[views.held].astype(np.float32) / np.float32(255)
    found: NDArray[np.float32] = pixels[..., :3] * pixels[..., 3:] + (1 - pixels[..., 3:])
    return found


def _pictures(job: Shoot) -> tuple[list[NDArray[np.uint8]], float]:
    film = job.film
    poses, focal, sizes = _cameras(job)
    made = [
        render_view(job.field, pose, length, size, film.background)
        for pose, length, size in zip(poses, focal, sizes, strict=True)
    ]
    return [one for one, _ in made], float(np.mean([share for _, share in made]))


def _cameras(job: Shoot) -> tuple[Tensor, list[float], list[tuple[int, int]]]:
    """Give cameras in unit space: those of the file, or an orbit as wide as it takes."""
    film = job.film
    if film.shots is not None:
        unit = film.shots.poses.copy()
        unit[:, :, 3] = (unit[:, :, 3] - job.transform[:3]) / job.transform[3]
        sizes = [(int(width), int(height)) for width, height in film.shots.size]
        return torch.from_numpy(unit.astype(np.float32)), film.shots.focal.tolist(), sizes
    count = film.count or (STILLS if job.suffix == "png" else FRAMES)
    poses = orbit(count, radius=RADIUS * reach_of(job.field), elevation=film.elevation, up=job.up)
    return poses, [focal_length(film.size)] * count, [(film.size, film.size)] * count


def _psnr(seen: Renderable, views: Views) -> float:
    poses, focal = in_unit(views, views.held)
    truth = on_white(views)
    height, width = truth.shape[1:3]
    rays = camera_rays(poses, focal, width, height)
    shown = seen.render(rays, background=WHITE).colour.numpy()
    return round(psnr(shown, truth.reshape(-1, 3)), 2)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Write a picture, RGB or RGBA, as the bytes of a PNG file."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def _squared(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a picture into the middle of a white square of SIZE."""
    height, width = picture.shape[:2]
    square = np.full((SIZE, SIZE, 3), 255, np.uint8)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    square[top : top + height, left : left + width] = picture
    return square
