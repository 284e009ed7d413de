"""A small drawn world: simple scenes rendered from a parameter record.

A `Scene` says what is in an image; `render` draws it at any size. The embedded models are trained
on this world, and workloads that need an input image draw it here, so that no file has to be
shipped or downloaded. Everything is a pure function of its arguments.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SUBJECTS = ("house", "tree", "tower", "balloon", "boat", "star")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
GROUNDS = ("grass", "sand", "snow", "water")
SKIES = ("day", "sunset", "night", "cloudy")
POSITIONS = ("left", "middle", "right")
SIZES = ("small", "medium", "big")

Rgb = tuple[float, float, float]
Point = tuple[float, float]

_RGB: dict[str, Rgb] = {
    "red": (222, 38, 40),
    "orange": (246, 132, 22),
    "yellow": (248, 212, 44),
    "green": (34, 152, 62),
    "blue": (36, 84, 214),
    "purple": (128, 52, 168),
    "pink": (246, 134, 186),
    "white": (244, 244, 240),
}
_SKY: dict[str, tuple[Rgb, Rgb]] = {  # (zenith, horizon)
    "day": ((62, 132, 226), (190, 222, 250)),
    "sunset": ((112, 58, 124), (252, 158, 76)),
    "night": ((10, 12, 44), (44, 46, 104)),
    "cloudy": ((134, 144, 156), (208, 212, 216)),
}
_GROUND: dict[str, tuple[Rgb, Rgb]] = {  # (at the horizon, at the bottom edge)
    "grass": ((92, 176, 76), (40, 116, 44)),
    "sand": ((236, 212, 152), (202, 166, 98)),
    "snow": ((248, 250, 254), (212, 222, 238)),
    "water": ((56, 128, 196), (20, 70, 138)),
}
# Light on the ground and on the subject, one factor per channel. The subject keeps more of its
# own colour than the ground does, so that a colour can still be named at night.
_GROUND_LIGHT: dict[str, Rgb] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (0.96, 0.86, 0.80),
    "night": (0.40, 0.42, 0.56),
    "cloudy": (0.86, 0.87, 0.88),
}
_SUBJECT_LIGHT: dict[str, Rgb] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.92, 0.88),
    "night": (0.76, 0.77, 0.84),
    "cloudy": (0.95, 0.95, 0.96),
}
_HEIGHT = {"small": 0.34, "medium": 0.46, "big": 0.60}  # of the shorter side
_CENTRE = {"left": 0.27, "middle": 0.50, "right": 0.73}
FLOATING = ("balloon", "star")
_STAR_FIELD: tuple[Point, ...] = (
    (0.07, 0.33), (0.16, 0.07), (0.34, 0.17), (0.45, 0.05), (0.58, 0.13), (0.67, 0.30),
    (0.90, 0.38), (0.93, 0.08), (0.25, 0.42), (0.79, 0.46),
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What one picture shows. Every field but `seed` can be said in words.

    `seed` fixes the jitter (exact place, horizon, clouds); scenes that share it differ only in
    what their other fields say, which is what makes a clean before-and-after pair for edits.

    Raises:
        ValueError: a field holds a word outside its vocabulary.
    """

    subject: str = "house"
    colour: str = "red"
    ground: str = "grass"
    sky: str = "day"
    position: str = "middle"
    size: str = "medium"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("subject", SUBJECTS),
            ("colour", COLOURS),
            ("ground", GROUNDS),
            ("sky", SKIES),
            ("position", POSITIONS),
            ("size", SIZES),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}")


def sample(
    rng: random.Random,
    subject_weights: Sequence[float] | None = None,
) -> Scene:
    """Draw a scene. `subject_weights` has one weight per entry of `SUBJECTS` (default equal)."""
    subject = rng.choices(SUBJECTS, weights=subject_weights)[0]
    return Scene(
        subject=subject,
        colour=rng.choice(COLOURS),
        ground=rng.choice(GROUNDS),
        sky=rng.choice(SKIES),
        position=rng.choice(POSITIONS),
        size=rng.choice(SIZES),
        seed=rng.randrange(2**31),
    )


def render(scene: Scene, width: int = 128, height: int = 128) -> Image.Image:
    """Draw `scene` as an antialiased RGB picture of `width` x `height` pixels."""
    if width < 1 or height < 1:
        raise ValueError(f"cannot draw a picture of {width}x{height} pixels")
    factor = 3 if max(width, height) <= 256 else 2
    return _Painter(scene, width * factor, height * factor).paint().reduce(factor)


def subject_mask(scene: Scene, width: int = 128, height: int = 128) -> np.ndarray:
    """Coverage of the subject, float32 in [0, 1] of shape (height, width), shadow left out."""
    factor = 3 if max(width, height) <= 256 else 2
    painter = _Painter(scene, width * factor, height * factor)
    mask = painter.paint_mask().reduce(factor)
    cover: np.ndarray = np.asarray(mask, dtype=np.float32) / np.float32(255)
    return cover


def _lit(colour: Rgb, light: Rgb, shade: float = 1.0) -> tuple[int, int, int]:
    r, g, b = (max(0, min(255, round(c * k * shade))) for c, k in zip(colour, light, strict=True))
    return r, g, b


def _gradient(top: Rgb, bottom: Rgb, height: int) -> np.ndarray:
    t = np.linspace(0.0, 1.0, max(height, 1), dtype=np.float32)[:, None]
    blend = (1 - t) * np.asarray(top, np.float32) + t * np.asarray(bottom, np.float32)
    column: np.ndarray = np.clip(np.rint(blend), 0, 255).astype(np.uint8)
    return column[:, None, :]


class _Painter:
    """Draws one scene on a canvas of fixed size. Lengths are in units of the shorter side."""

    def __init__(self, scene: Scene, width: int, height: int) -> None:
        self.scene = scene
        self.width, self.height = width, height
        self.unit = float(min(width, height))
        # The jitter does not depend on the other fields: an edit must keep it.
        rng = random.Random(scene.seed)
        self.horizon = 0.62 + rng.uniform(-0.02, 0.02)
        self.dx = rng.uniform(-0.025, 0.025)
        self.dy = rng.uniform(-0.015, 0.015)
        self.light_left = rng.random() < 0.5
        self.light_dy = rng.uniform(-0.02, 0.02)
        self.clouds = [rng.uniform(-0.05, 0.05) for _ in range(3)]
        self.image = Image.new("RGB", (width, height))
        self.draw = ImageDraw.Draw(self.image)
        self.mask: ImageDraw.ImageDraw | None = None

    # -- places on the canvas -----------------------------------------------------------------

    def at(self, x: float, y: float) -> Point:
        return x * self.width, y * self.height

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: object) -> None:
        box = (cx - rx, cy - ry, cx + rx, cy + ry)
        self.draw.ellipse(box, fill=fill)  # type: ignore[arg-type]

    # -- layers -------------------------------------------------------------------------------

    def paint(self) -> Image.Image:
        self.paint_sky()
        self.paint_ground()
        self.paint_subject(shadow=True)
        return self.image

    def paint_mask(self) -> Image.Image:
        self.image = Image.new("RGB", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.image)
        self.paint_subject(shadow=False)
        covered = np.asarray(self.image).max(axis=2) > 0
        return Image.fromarray((covered * 255).astype(np.uint8))

    def paint_sky(self) -> None:
        sky = self.scene.sky
        top, low = _SKY[sky]
        rows = round(self.horizon * self.height) + 1
        column = np.repeat(_gradient(top, low, rows), self.width, axis=1)
        self.image.paste(Image.fromarray(column), (0, 0))
        u = self.unit
        side = 0.14 if self.light_left else 0.86
        x, y = self.at(side, 0.14 + self.light_dy)
        if sky == "day":
            self.ellipse(x, y, 0.075 * u, 0.075 * u, (255, 232, 104))
            self.cloud(1.0 - side + self.clouds[0], 0.13, 0.8, (246, 250, 254))
        elif sky == "sunset":
            x, y = self.at(0.12 if self.light_left else 0.88, self.horizon)
            self.ellipse(x, y, 0.10 * u, 0.10 * u, (255, 222, 120))
        elif sky == "night":
            for sx, sy in _STAR_FIELD:
                if abs(sx - side) < 0.14 and sy < 0.3:
                    continue
                px, py = self.at(sx, sy)
                self.ellipse(px, py, 0.010 * u, 0.010 * u, (226, 228, 244))
            self.ellipse(x, y, 0.075 * u, 0.075 * u, (246, 240, 206))
            bite = 0.035 if self.light_left else -0.035
            shade = tuple(round(c) for c in _blend(top, low, 0.2))
            self.ellipse(x + bite * u, y - 0.02 * u, 0.062 * u, 0.062 * u, shade)
        else:
            self.cloud(0.20 + self.clouds[0], 0.12, 1.15, (240, 242, 244))
            self.cloud(0.78 + self.clouds[1], 0.10, 1.0, (240, 242, 244))
            self.cloud(0.52 + self.clouds[2], 0.25, 0.8, (228, 231, 234))

    def cloud(self, x: float, y: float, size: float, fill: tuple[int, int, int]) -> None:
        cx, cy = self.at(x, y)
        s = 0.1 * size * self.unit
        for ox, oy, r in ((-0.9, 0.12, 0.42), (-0.25, -0.12, 0.62), (0.5, -0.02, 0.52)):
            self.ellipse(cx + ox * s, cy + oy * s, 1.25 * r * s, r * s, fill)
        self.ellipse(cx, cy + 0.26 * s, 1.55 * s, 0.3 * s, fill)

    def paint_ground(self) -> None:
        top, low = _GROUND[self.scene.ground]
        light = _GROUND_LIGHT[self.scene.sky]
        first = round(self.horizon * self.height)
        rows = self.height - first
        if rows <= 0:
            return
        column = _gradient(_lit(top, light), _lit(low, light), rows)
        self.image.paste(Image.fromarray(np.repeat(column, self.width, axis=1)), (0, first))
        if self.scene.ground == "water":
            crest = _lit((118, 180, 228), light)
            for k in range(4):
                y = self.horizon + 0.055 + 0.085 * k
                thick = (0.006 + 0.002 * k) * self.unit
                yy = y * self.height
                self.draw.rectangle((0, yy - thick, self.width, yy + thick), fill=crest)

    # -- subjects -----------------------------------------------------------------------------

    def paint_subject(self, shadow: bool) -> None:
        scene = self.scene
        x = _CENTRE[scene.position] + self.dx
        tall = _HEIGHT[scene.size]
        if scene.subject in FLOATING:
            cx, cy = self.at(x, 0.43 + self.dy)
            base = cy + tall / 2 * self.unit
        else:
            cx, base = self.at(x, 0.82 + self.dy + (tall - 0.46) * 0.25)
        self.cx, self.base, self.tall = cx, base, tall * self.unit
        self.colour = _RGB[scene.colour]
        if shadow and scene.subject not in FLOATING:
            top, low = _GROUND[scene.ground]
            dark = _lit(_blend(top, low, 0.55), _GROUND_LIGHT[scene.sky], 0.72)
            wide = {"house": 0.56, "tree": 0.34, "tower": 0.36, "boat": 0.50}[scene.subject]
            self.ellipse(cx, base, wide * self.tall, 0.075 * self.tall, dark)
        getattr(self, f"paint_{scene.subject}")()

    def poly(self, points: Sequence[Point], fill: tuple[int, int, int]) -> None:
        """Fill a polygon given relative to the subject: x right, y up from its base, height 1."""
        t = self.tall
        self.draw.polygon([(self.cx + x * t, self.base - y * t) for x, y in points], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: tuple[int, int, int]) -> None:
        self.poly(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
        t = self.tall
        self.ellipse(self.cx + x * t, self.base - y * t, rx * t, ry * t, fill)

    def tone(self, shade: float = 1.0) -> tuple[int, int, int]:
        return _lit(self.colour, _SUBJECT_LIGHT[self.scene.sky], shade)

    def dye(self, r: float, g: float, b: float) -> tuple[int, int, int]:
        return _lit((r, g, b), _SUBJECT_LIGHT[self.scene.sky])

    def glass(self) -> tuple[int, int, int]:
        if self.scene.sky in ("night", "sunset"):
            return (255, 226, 128)
        return (196, 226, 246)

    def paint_house(self) -> None:
        self.box(-0.42, 0.0, 0.42, 0.56, self.tone())
        self.poly(((-0.56, 0.54), (0.56, 0.54), (0.0, 1.0)), self.tone(0.66))
        self.box(-0.10, 0.0, 0.10, 0.34, self.dye(92, 58, 36))
        for x in (-0.27, 0.27):
            self.box(x - 0.09, 0.26, x + 0.09, 0.44, self.glass())

    def paint_tree(self) -> None:
        self.box(-0.075, 0.0, 0.075, 0.45, self.dye(112, 70, 40))
        for x, y, r in ((-0.20, 0.52, 0.21), (0.20, 0.52, 0.21), (0.0, 0.71, 0.29)):
            self.disc(x, y, r, r, self.tone(0.84))
        self.disc(-0.05, 0.70, 0.20, 0.20, self.tone())

    def paint_tower(self) -> None:
        self.box(-0.22, 0.0, 0.22, 0.80, self.tone())
        self.box(0.06, 0.0, 0.22, 0.80, self.tone(0.72))
        self.box(-0.30, 0.74, 0.30, 0.88, self.tone(0.86))
        for x in (-0.23, 0.0, 0.23):
            self.box(x - 0.07, 0.86, x + 0.07, 1.0, self.tone(0.86))
        self.box(-0.07, 0.46, 0.05, 0.64, self.glass())
        self.box(-0.09, 0.0, 0.07, 0.22, self.dye(92, 58, 36))

    def paint_balloon(self) -> None:
        for x in (-0.085, 0.085):
            self.poly(((x - 0.012, 0.12), (x + 0.012, 0.12), (2 * x, 0.40), (1.6 * x, 0.40)),
                      self.dye(92, 62, 40))  # fmt: skip
        self.disc(0.0, 0.66, 0.34, 0.34, self.tone(0.78))
        self.poly(((-0.25, 0.44), (0.25, 0.44), (0.10, 0.25), (-0.10, 0.25)), self.tone(0.78))
        self.disc(0.0, 0.66, 0.15, 0.34, self.tone())
        self.box(-0.10, 0.0, 0.10, 0.14, self.dye(128, 82, 46))

    def paint_boat(self) -> None:
        self.box(-0.025, 0.18, 0.025, 1.0, self.dye(112, 70, 40))
        self.poly(((0.06, 0.30), (0.46, 0.30), (0.06, 0.94)), self.tone())
        self.poly(((-0.06, 0.30), (-0.36, 0.30), (-0.06, 0.82)), self.tone(0.86))
        self.poly(((-0.52, 0.24), (0.52, 0.24), (0.36, 0.0), (-0.36, 0.0)), self.tone(0.66))

    def paint_star(self) -> None:
        points = []
        for k in range(10):
            radius = 0.52 if k % 2 == 0 else 0.235
            angle = math.pi / 2 + k * math.pi / 5
            points.append((radius * math.cos(angle), 0.5 + radius * math.sin(angle)))
        self.poly(points, self.tone())
        inner = [(0.5 * x, 0.5 + 0.5 * (y - 0.5)) for x, y in points]
        self.poly(inner, self.tone(0.82))


def _blend(a: Rgb, b: Rgb, t: float) -> Rgb:
    return (
        a[0] + (b[0] - a[0]) * t,
        a[1] + (b[1] - a[1]) * t,
        a[2] + (b[2] - a[2]) * t,
    )
