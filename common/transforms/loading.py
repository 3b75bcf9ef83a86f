"""Read any image file of the project into one shape: channel-first ``(C, X, Y, Z)``, float32, with its affine.

NIfTI by nibabel, DICOM series and MetaImage by ITK, pictures by Pillow, videos by PyAV. Every file that is not what it
should be ends in one `ValueError` that names it; nothing is guessed, squeezed or replaced.
"""

import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

NIFTI = (".nii", ".nii.gz")
ITK = (".mha", ".mhd", ".nrrd", ".dcm")
PICTURES = (".png", ".jpg", ".jpeg")
VIDEOS = (".avi", ".mp4")

# A picture or video counts as colored if more than this share of its pixels has channels further apart than this.
_COLOR_SPREAD, _COLOR_SHARE = 32, 0.01

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class LoadVolume(Transform):
    """Path -> `MetaTensor` ``(C, X, Y, Z)`` of float32 with a 4x4 RAS affine in mm.

    A 3-D volume has one channel; the frames of a cine or video are its channels; a picture has one slice. Pictures
    and videos run with x to the right and y down; they have no geometry, their affine is the identity.

    Args:
        color: True asks for pictures with red, green, blue as the three channels, False for grey ones. Three equal
            channels are grey.
    """

    def __init__(self, color: bool = False) -> None:
        self.color = color

    def __call__(self, path: str | Path) -> MetaTensor:
        """Read ``path`` (a file, or a folder with one DICOM series).

        Raises:
            FileNotFoundError: nothing is there.
            ValueError: empty, truncated, not a number somewhere, of another rank, colored (or grey) against
                expectation, or of a format that is not known; the message names the file and what to do.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
        if path.is_file() and path.stat().st_size == 0:
            raise ValueError(f"{path} is empty (0 bytes). Copy or unpack it again.")
        voxels, affine = self._read(path)
        _check_values(voxels, path)
        meta = {
            "filename_or_obj": str(path),
            "affine": torch.as_tensor(affine, dtype=torch.float64),
            "original_affine": torch.as_tensor(affine, dtype=torch.float64),
            "spatial_shape": np.array(voxels.shape[1:]),
            "original_channel_dim": float("nan") if len(voxels) == 1 else -1,
            "space": "RAS",
        }
        return MetaTensor(torch.from_numpy(np.ascontiguousarray(voxels)), meta=meta)

    def _read(self, path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        name = path.name.lower()
        if self.color and not name.endswith(PICTURES):
            raise ValueError(
                f"{path}: color is read from {', '.join(PICTURES)} only. Set color to false for grey files."
            )
        if path.is_dir() or name.endswith(ITK):
            return _read_itk(path)
        if name.endswith(NIFTI):
            return _read_nifti(path)
        if name.endswith(PICTURES):
            return _read_picture(path, self.color), np.eye(4)
        if name.endswith(VIDEOS):
            return _read_video(path), np.eye(4)
        known = ", ".join((*NIFTI, *ITK, *PICTURES, *VIDEOS))
        raise ValueError(f"{path}: unknown file type. Known are {known} and folders with one DICOM series.")


class LoadVolumed(MapTransform):
    """`LoadVolume` on the paths under ``keys``."""

    def __init__(self, keys: KeysCollection, color: bool = False, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(color)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.load(data[key]) for key in self.key_iterator(dict(data))}}


def _read_nifti(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    try:
        image: Any = nibabel.load(path)
        if image.get_data_dtype().fields is not None:
            raise ValueError(f"{path} holds RGB voxels; one grey channel is expected. Convert it to grey first.")
        if len(image.shape) not in (3, 4):
            raise ValueError(
                f"{path} is {len(image.shape)}-D, shape {tuple(image.shape)}; a 3-D volume or a 4-D cine "
                "(x, y, slice, frame) is expected. Save it with that shape (one slice: shape (x, y, 1))."
            )
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, zlib.error, ImageFileError) as error:
        raise ValueError(
            f"{path} cannot be read, it is truncated or not a NIfTI file ({error}). Copy it again."
        ) from error
    return _frames_first(voxels), np.asarray(image.affine, dtype=np.float64)


def _frames_first(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(X, Y, Z) -> (1, X, Y, Z); (X, Y, Z, T) -> (T, X, Y, Z)."""
    return voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0)


def _read_itk(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    import itk

    files = _dicom_files(path) if path.is_dir() or path.suffix.lower() == ".dcm" else None
    try:
        image = itk.imread([str(file) for file in files] if files else str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be read, it is truncated or not what its name says. Copy it again.") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(
            f"{path} holds {image.GetNumberOfComponentsPerPixel()} values per voxel; one grey channel is expected. "
            "Convert it to grey first."
        )
    if image.GetImageDimension() not in (3, 4):
        raise ValueError(f"{path} is {image.GetImageDimension()}-D; a 3-D volume or a 4-D cine is expected.")
    voxels = np.asarray(itk.array_view_from_image(image)).T.astype(np.float32)  # (..., z, y, x) -> (x, y, z, ...)
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.GetDirection())[:3, :3] * np.asarray(image.GetSpacing())[:3]
    affine[:3, 3] = np.asarray(image.GetOrigin())[:3]
    if files is not None and len(files) > 1:
        affine[:3, 2] = _slice_step(files)
    return _frames_first(voxels), _LPS_TO_RAS @ affine


def _dicom_files(path: Path) -> list[str]:
    """The files of the one series in folder ``path`` (or the one file), ordered along the slice normal."""
    import itk

    if path.is_file():
        return [str(path)]
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(False)
    names.SetDirectory(str(path))
    series = list(names.GetSeriesUIDs())
    if len(series) != 1:
        raise ValueError(
            f"{path} holds {len(series)} DICOM series; exactly one is expected. "
            + (
                "Give a folder with .dcm files."
                if not series
                else f"Put each in its own folder: {', '.join(series[:3])}."
            )
        )
    return [str(name) for name in names.GetFileNames(series[0])]


def _slice_step(files: list[str]) -> NDArray[np.float64]:
    """Vector (LPS mm) from one slice to the next, from the slice positions.

    ITK itself takes the slice normal for the direction, which is wrong for a tilted gantry (a sheared stack).
    """
    import itk

    positions = []
    for file in files:
        reader = itk.GDCMImageIO.New()
        reader.SetFileName(file)
        reader.ReadImageInformation()
        positions.append([reader.GetOrigin(axis) for axis in range(3)])
    steps = np.diff(np.array(positions), axis=0)  # (slices - 1, 3)
    step = steps.mean(axis=0)
    off = np.linalg.norm(steps - step, axis=1) > 0.05 * np.linalg.norm(step) + 1e-3
    if off.any() or not step.any():
        worst = int(np.linalg.norm(steps - step, axis=1).argmax())
        raise ValueError(
            f"{Path(files[0]).parent}: the slices are not evenly spaced (between {Path(files[worst]).name} and "
            f"{Path(files[worst + 1]).name}: {np.linalg.norm(steps[worst]):.2f} mm, on average "
            f"{np.linalg.norm(step):.2f} mm). A slice is missing or there twice."
        )
    return step


def _read_picture(path: Path, color: bool) -> NDArray[np.float32]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            single = picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16")
            alpha = "A" in picture.getbands() or "transparency" in picture.info
            pixels = np.asarray(
                picture.convert("L") if picture.mode == "1" else picture if single else picture.convert("RGBA"),
                dtype=np.float32,
            )
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(
            f"{path} cannot be read, it is truncated or not a picture ({error}). Copy it again."
        ) from error
    if single:
        pixels = pixels[..., None]  # (Y, X, 1)
    elif alpha and (pixels[..., 3] < 255).any():
        raise ValueError(f"{path} has transparent pixels, whose value is undefined. Save it without alpha channel.")
    else:
        pixels = pixels[..., :3]  # (Y, X, 3)
    if color and single:
        raise ValueError(f"{path} is grey, but color is expected. Convert it to RGB, or set color to false.")
    if not color and not single:
        _require_grey(pixels, path)
        pixels = pixels[..., :1]
    return pixels.transpose(2, 1, 0)[..., None]  # (C, X, Y, 1)


def _read_video(path: Path) -> NDArray[np.float32]:
    import av

    frames: list[NDArray[Any]] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                if not frames:
                    _require_grey(frame.to_ndarray(format="rgb24").astype(np.float32), path)
                frames.append(frame.to_ndarray(format="gray"))
            announced = stream.frames
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be read, it is truncated or not a video ({error}). Copy it again.") from error
    if not frames or len(frames) < announced:
        raise ValueError(f"{path} holds {len(frames)} of the {announced} frames it announces. Copy it again.")
    return np.stack(frames).transpose(0, 2, 1)[..., None].astype(np.float32)  # (T, X, Y, 1)


def _require_grey(pixels: NDArray[np.float32], path: Path) -> None:
    """``pixels`` (Y, X, 3)."""
    share = float((np.ptp(pixels, axis=-1) > _COLOR_SPREAD).mean())
    exact = path.suffix.lower() == ".png"  # lossless, so equal channels are exactly equal
    if share > _COLOR_SHARE or (exact and np.ptp(pixels, axis=-1).any()):
        raise ValueError(
            f"{path} is an RGB image, one grey channel is expected. Convert it to grey, or set color to true "
            "where the recipe works in color."
        )


def _check_values(voxels: NDArray[np.float32], path: Path) -> None:
    if voxels.size == 0:
        raise ValueError(f"{path} has no voxels, shape {voxels.shape}. Remove it or copy it again.")
    bad = voxels.size - int(np.isfinite(voxels).sum())
    if bad:
        raise ValueError(
            f"{path} holds {bad} of {voxels.size} values that are NaN or infinite. Export it again, or remove it."
        )
