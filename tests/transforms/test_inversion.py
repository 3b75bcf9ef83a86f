"""From a file to the network's slices and back: an identity model gives the file's own volume, whatever its format."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Invertd, Orientationd

from common.transforms.foreground import ClearBackgroundd, ForegroundMaskd
from common.transforms.in_plane import FitInPlaned
from common.transforms.intensity import ModalityWindowd
from common.transforms.loading import LoadVolumed
from common.transforms.same_grid import SameGridd
from common.transforms.slicing import SliceBlockd

KEYS = ["source", "target", "mask"]
SHAPE = (41, 34, 29)


def smooth() -> np.ndarray:
    """Integers 20..1020, brightest off the center, so that a flip or a swap of axes is seen."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    blob = np.exp(-4 * ((x - 0.2) ** 2 + (y + 0.1) ** 2 + (z - 0.3) ** 2))
    return np.rint(20 + 1000 * blob).astype(np.uint16)


def affine(codes: str) -> np.ndarray:
    """Oblique affine with odd spacing whose axes run (nearly) along ``codes``."""
    tilt = nibabel.eulerangles.euler2mat(0.1, -0.06, 0.15)
    axes = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), SHAPE)[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ np.linalg.inv(axes) @ np.diag([0.93, 1.17, 1.4])
    matrix[:3, 3] = (-31.7, 12.3, 55.1)
    assert "".join(nibabel.aff2axcodes(matrix)) == codes
    return matrix


def nifti(codes: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        nibabel.save(nibabel.Nifti1Image(smooth(), affine(codes)), folder / "a.nii.gz")
        return folder / "a.nii.gz"

    return write


def metaimage(folder: Path) -> Path:
    import itk

    image = itk.image_from_array(np.ascontiguousarray(smooth().T))  # ITK indexes (z, y, x)
    place = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine("PIR")
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(place[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(place[:3, :3] / spacing)))
    itk.imwrite(image, str(folder / "a.mha"))
    return folder / "a.mha"


def dicom_series(folder: Path) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    place = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine("LPS")
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    voxels = smooth()
    for z in range(SHAPE[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        slice_.Modality, slice_.SeriesInstanceUID, slice_.StudyInstanceUID = "MR", "1.2.3.4", "1.2.3"
        slice_.InstanceNumber = z + 1
        slice_.ImagePositionPatient = [round(value, 9) for value in place[:3, 3] + z * place[:3, 2]]
        directions = (place[:3, :2] / spacing[:2]).T.ravel()  # along a row (x), along a column (y)
        slice_.ImageOrientationPatient = [round(value, 9) for value in directions]
        slice_.PixelSpacing, slice_.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = SHAPE[1], SHAPE[0], 1
        slice_.PhotometricInterpretation, slice_.BitsAllocated, slice_.BitsStored = "MONOCHROME2", 16, 12
        slice_.HighBit, slice_.PixelRepresentation = 11, 0
        slice_.PixelData = np.ascontiguousarray(voxels[:, :, z].T).tobytes()
        slice_.save_as(folder / f"{z:02d}.dcm", enforce_file_format=True)
    return folder


FORMATS = {
    "oblique LPS": nifti("LPS"),
    "oblique RAS": nifti("RAS"),
    "sagittal": nifti("PSR"),
    "coronal": nifti("LIA"),
    "MetaImage": metaimage,
    "DICOM": dicom_series,
}


def to_levels() -> Compose:
    """Everything before the geometry changes."""
    return Compose(
        [
            LoadVolumed(KEYS[:2]),
            SameGridd(KEYS[:2]),
            ForegroundMaskd("source", rule="positive"),
            ClearBackgroundd(KEYS[:2], "mask", ["t1", "t2"]),
            ModalityWindowd(KEYS[:2], ["t1", "t2"], "mask"),
        ]
    )


def there_and_back(path: Path, fit: FitInPlaned, number: int | None = None) -> tuple[MetaTensor, MetaTensor]:
    """The source in [-1, 1] on its own grid, and what an identity model and `Invertd` give, through a `DataLoader`."""
    spatial = Compose([Orientationd(KEYS, axcodes="RAS", labels=None), SliceBlockd(KEYS, "mask", number), fit])
    files = {"source": path, "target": path}
    batch = next(iter(DataLoader(Dataset([files], Compose([to_levels(), spatial])), batch_size=1)))
    (item,) = decollate_batch(batch)
    assert item["source"].shape[1:3] == fit.fit["source"].size
    item["pred"] = MetaTensor(item["source"].as_tensor().clone())  # a network's output: no history, no place
    restored = Invertd("pred", spatial, orig_keys="source", nearest_interp=False)(item)["pred"]
    return to_levels()(files)["source"], restored


def fit(size: tuple[int, int], rule: str) -> FitInPlaned:
    return FitInPlaned(KEYS, size, rule, fill=[-3.0, -3.0, 0.0], nearest=[False, False, True])


def psnr(one: MetaTensor, two: MetaTensor) -> float:
    """In dB, for levels in [-1, 1]."""
    return float(10 * torch.log10(4 / ((one.as_tensor() - two.as_tensor()) ** 2).mean()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("size", [(24, 26), (48, 48), (20, 60)], ids=["crop", "pad", "both"])
def test_a_crop_gives_back_shape_affine_and_every_voxel_inside(
    tmp_path: Path, write: Callable[[Path], Path], size: tuple[int, int]
) -> None:
    source, restored = there_and_back(write(tmp_path), fit(size, "crop"))
    assert restored.shape == source.shape
    torch.testing.assert_close(restored.affine, source.affine, atol=1e-10, rtol=0)
    kept = restored.as_tensor() != -3
    assert torch.equal(restored.as_tensor()[kept], source.as_tensor()[kept])
    axes = Orientationd("a", axcodes="RAS", labels=None)({"a": source})["a"].shape[1:]
    assert kept.sum() == min(axes[0], size[0]) * min(axes[1], size[1]) * axes[2]
    assert restored.meta["filename_or_obj"] == source.meta["filename_or_obj"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("size", [(32, 32), (64, 64)], ids=["smaller", "larger"])
def test_resizing_gives_back_shape_affine_and_a_smooth_image(
    tmp_path: Path, write: Callable[[Path], Path], size: tuple[int, int]
) -> None:
    fitted = FitInPlaned(KEYS, size, "resize", nearest=[False, False, True])
    source, restored = there_and_back(write(tmp_path), fitted)
    assert restored.shape == source.shape
    torch.testing.assert_close(restored.affine, source.affine, atol=1e-10, rtol=0)
    assert psnr(restored, source) > 45
    half_a_pixel_off = (source + source.roll(1, dims=2)) / 2
    assert psnr(half_a_pixel_off, source) < 40  # the control: a misplaced image would not pass


def test_a_block_of_slices_comes_back_where_it_was(tmp_path: Path) -> None:
    source, restored = there_and_back(FORMATS["sagittal"](tmp_path), fit((48, 48), "crop"), number=7)
    assert restored.shape == source.shape
    kept = restored.as_tensor() != -1
    assert torch.equal(restored.as_tensor()[kept], source.as_tensor()[kept])
    along = kept[0].any(dim=2).any(dim=0)  # (34,): the file's axis 1 is the head-foot axis, the slice axis of RAS
    assert along.nonzero().ravel().tolist() == list(range(13, 20))
    assert kept.sum() == 7 * SHAPE[0] * SHAPE[2]
