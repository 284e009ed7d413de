"""Files and answers that may come from anybody: read within limits, written through no link.

All limits stand here. `FileError` is an OSError, so that whoever says "cannot be read" says why.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import stat
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

MIB = 1024**2

JSON_BYTES = 256 * MIB
"""Of plan.json, a baseline, fidelity.json, perceptual.jsonl, a file of rows; of one record."""
CONFIG_BYTES = 16 * MIB
"""Of a model's or a component's own JSON."""
YAML_BYTES = 4 * MIB
"""Of a configuration, which somebody wrote by hand."""
TABLE_BYTES = 512 * MIB
"""Of a file to audit."""
IMAGE_BYTES = 1024 * MIB
PIXELS = 178_956_970
"""Of one image that is unpacked: Pillow's own limit."""
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Those that Pillow reads by itself; for others it starts programs."""
HEADER_BYTES = 100_000_000
"""Of a safetensors file's header: the format's own limit."""
ANSWER_BYTES = 16 * MIB
ANSWER_S = 60.0
"""Of a process that is asked something."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FileError(OSError):
    """A file is refused; ``strerror`` is the reason, as a part of a sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)

    def __str__(self) -> str:
        return str(self.strerror)


def inside(folder: Path, name: str) -> Path:
    """Return where ``name``, as a record gives it, lies below a run folder.

    Raises:
        FileError: it is absolute, leads out of the folder, also by a link, or is no path at all.
    """
    try:
        file = (folder / name).resolve()
        if file.is_relative_to(folder.resolve()):
            return file
    except (ValueError, RuntimeError, OSError):  # a zero byte, a ring of links, too long a name
        raise FileError(errno.EINVAL, f"{name!r} is no path of a file") from None
    raise FileError(errno.EPERM, f"{name} lies outside the run folder")


def open_file(path: Path, most: int) -> BinaryIO:
    """Open a file to read.

    Raises:
        OSError: it is not there, is no regular file, or has more than ``most`` bytes.
    """
    # A pipe without a writer would be waited for.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            what = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            code = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise FileError(code, f"it is {what} and no file")
        if found.st_size > most:
            raise _too_large(f"has {found.st_size:,} bytes", most)
    except OSError:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def read(path: Path, most: int = JSON_BYTES) -> bytes:
    """Return a file's bytes; raise OSError as `open_file` does."""
    with open_file(path, most) as stream:
        data = stream.read(most + 1)
    if len(data) > most:  # some files of the system do not say their size
        raise _too_large("has more bytes", most)
    return data


def _too_large(has: str, most: int) -> FileError:
    return FileError(errno.EFBIG, f"it {has}, and at most {most:,} are read")


def image(path: Path, convert: Callable[[Any], Any] = lambda image: image.convert("RGB")) -> Any:
    """Return what ``convert`` makes of an image file that Pillow has opened; RGB by default.

    Raises:
        OSError: it cannot be read, is no image of a known format, or has more than `PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    with open_file(path, IMAGE_BYTES) as stream:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                opened = Image.open(stream, formats=_formats())
            with opened:
                width, height = opened.size
                if width * height > PIXELS:
                    raise FileError(
                        errno.EFBIG, f"it has {width}x{height} pixels, and at most {PIXELS:,} are"
                        " unpacked",
                    )  # fmt: skip
                return convert(opened)
        except UnidentifiedImageError:
            raise FileError(errno.EINVAL, "it is no image that can be read") from None
        except Image.DecompressionBombError:
            reason = f"it has more than the {PIXELS:,} pixels that are unpacked"
            raise FileError(errno.EFBIG, reason) from None
        except OSError:
            raise
        except Exception as error:  # decoders raise what they like
            why = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise FileError(errno.EINVAL, f"it is no whole image ({why})") from error


def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [each for each in IMAGE_FORMATS if each in Image.OPEN]


def folder(path: Path) -> Path:
    """Make a folder, and those above it, unless it is there; return it.

    Raises:
        OSError: it cannot be made, or is a link, which nothing is written through.
    """
    if path.is_symlink():
        raise FileError(errno.ELOOP, f"{path.name} is a link, and nothing is written through one")
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, data: str | bytes, *, sync: bool = False) -> None:
    """Replace a file, so that a reader sees the old one or the new one; a link is replaced itself.

    Raises:
        OSError: it could not be written; the old file is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    content = data.encode(errors="replace") if isinstance(data, str) else data
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(create(partial, os.O_WRONLY | os.O_EXCL), "wb") as stream:
            stream.write(content)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def create(path: Path, flags: int) -> int:
    """Return a descriptor of a regular file to write, which is made unless it is there.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe or a device.
    """
    no_wait = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | no_wait, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            reason = f"{path.name} is a link or a pipe, and nothing is written through one"
            raise FileError(error.errno, reason) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileError(errno.EINVAL, f"{path.name} is no regular file")
    return fd


def answer(
    command: Sequence[str],
    *,
    seconds: float = ANSWER_S,
    most: int = ANSWER_BYTES,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Return what a command prints. It and what it has started are ended at a limit.

    Raises:
        OSError: it cannot be started, fails, or goes beyond a limit.
    """
    found = bytearray()
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while len(found) <= most:
                    if not selector.select(max(0.0, deadline - time.monotonic())):
                        raise FileError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")
                    block = os.read(process.stdout.fileno(), 65536)
                    if not block:
                        break
                    found += block
            if len(found) > most:
                raise _too_large("answers with more bytes", most)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise FileError(errno.ETIMEDOUT, f"no end within {seconds:g} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if code:
        raise FileError(errno.EIO, f"it ended with status {code}")
    return bytes(found)
