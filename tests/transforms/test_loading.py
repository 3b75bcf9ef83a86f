"""LoadVolume: every format lands in one shape with the right place in space; every bad file is named."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, SaveImaged

from common.transforms.loading import LoadVolume, LoadVolumed

OBLIQUE = np.array([[0.0, -1.25, 0.3, 12.5], [1.1, 0.0, 0.0, -7.0], [0.0, 0.2, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def test_a_volume_is_one_channel_with_its_own_voxels_and_affine(tmp_path: Path) -> None:
    voxels = noise(5, 4, 3)
    image = LoadVolume()(nifti(tmp_path / "a.nii.gz", voxels))
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), voxels[None])
    np.testing.assert_allclose(image.affine.numpy(), OBLIQUE, atol=1e-6)


def test_frames_of_a_cine_become_channels(tmp_path: Path) -> None:
    voxels = noise(5, 4, 3, 6)
    image = LoadVolume()(nifti(tmp_path / "a.nii", voxels))
    assert image.shape == (6, 5, 4, 3)
    np.testing.assert_array_equal(image[2].numpy(), voxels[..., 2])


def test_stored_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    stored = nibabel.Nifti1Image(noise(4, 4, 2), OBLIQUE)
    stored.header.set_slope_inter(0.5, -10.0)  # nibabel then writes the voxels as they are
    nibabel.save(stored, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(LoadVolume()(tmp_path / "a.nii.gz")[0].numpy(), 0.5 * noise(4, 4, 2) - 10.0)


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 3)], ids=["volume", "cine"])
def test_saved_again_the_file_has_the_same_voxels_and_affine(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Identity pipeline: what MONAI's writer makes of our tensors is the file we read."""
    voxels = noise(*shape)
    path = nifti(tmp_path / "a.nii.gz", voxels)
    save = SaveImaged("image", output_dir=tmp_path, output_postfix="copy", separate_folder=False, print_log=False)
    Compose([LoadVolumed("image"), save])({"image": str(path)})
    copy = nibabel.load(tmp_path / "a_copy.nii.gz")
    np.testing.assert_array_equal(copy.get_fdata(), voxels)
    np.testing.assert_allclose(copy.affine, OBLIQUE, atol=1e-5)


def test_metaimage_voxels_lie_where_itk_says_in_ras(tmp_path: Path) -> None:
    """Oracle: ITK's own index-to-point map, whose LPS points have the signs of x and y turned."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(noise(5, 4, 3).T))  # ITK indexes (z, y, x)
    image.SetSpacing([0.7, 1.3, 4.0])
    image.SetOrigin([3.0, -8.0, 11.0])
    rotation = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    image.SetDirection(itk.matrix_from_array(rotation))
    itk.imwrite(image, str(tmp_path / "a.mha"))
    loaded = LoadVolume()(tmp_path / "a.mha")
    np.testing.assert_array_equal(loaded[0].numpy(), noise(5, 4, 3))
    for index in ((0, 0, 0), (4, 0, 0), (1, 3, 2)):
        point = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose((loaded.affine.numpy() @ (*index, 1))[:3], point, atol=1e-6)


def dicom_series(folder: Path, positions: list[tuple[float, float, float]], series: str = "1.2.3.4") -> Path:
    """One small MR slice per position; row direction +x, column direction tilted about x."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(exist_ok=True)
    for number, position in enumerate(positions):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        slice_.Modality, slice_.SeriesInstanceUID, slice_.StudyInstanceUID = "MR", series, "1.2.3"
        slice_.InstanceNumber, slice_.ImagePositionPatient = number + 1, list(position)
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 0.96, -0.28]
        slice_.PixelSpacing, slice_.SliceThickness = [0.5, 0.75], 5.0  # between rows (y), between columns (x)
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = 3, 4, 1
        slice_.PhotometricInterpretation, slice_.BitsAllocated, slice_.BitsStored = "MONOCHROME2", 16, 12
        slice_.HighBit, slice_.PixelRepresentation = 11, 0
        slice_.PixelData = (np.arange(12, dtype=np.uint16) + 100 * number).tobytes()
        slice_.save_as(folder / f"{series}_{number}.dcm", enforce_file_format=True)
    return folder


def test_a_tilted_dicom_series_is_a_sheared_stack(tmp_path: Path) -> None:
    """The third column of the affine is the step between slice positions, not the slice normal."""
    step = np.array([0.0, 0.0, 6.0])  # the gantry moves along z although the slices are tilted about x
    folder = dicom_series(tmp_path / "series", [tuple(np.array([-10.0, 5.0, 2.0]) + k * step) for k in range(4)])
    image = LoadVolume()(folder)
    assert image.shape == (1, 4, 3, 4)
    order = 0 if image[0, 0, 0, 0] == 0 else 3  # GDCM sorts along the slice normal, either way round
    np.testing.assert_allclose(image[0, 2, 1].numpy(), np.abs(order - np.arange(4)) * 100 + 6)
    np.testing.assert_allclose(np.abs(image.affine.numpy()[:3, 2]), step, atol=1e-6)
    np.testing.assert_allclose(image.affine.numpy()[:3, 0], [-0.75, 0, 0], atol=1e-6)
    np.testing.assert_allclose(image.affine.numpy()[:3, 1], [0, -0.48, -0.14], atol=1e-6)


def picture(path: Path, pixels: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_runs_with_x_to_the_right(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)  # 3 rows (y), 4 columns (x)
    image = LoadVolume()(picture(tmp_path / "a.png", pixels))
    assert image.shape == (1, 4, 3, 1)
    assert image[0, 3, 1, 0] == pixels[1, 3]


def test_three_equal_channels_are_grey(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = LoadVolume()(picture(tmp_path / "a.png", np.stack([pixels] * 3, axis=-1)))
    np.testing.assert_array_equal(image[0, :, :, 0].numpy(), pixels.T)


def test_color_pictures_keep_red_green_blue(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    image = LoadVolume(color=True)(picture(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(image[..., 0].numpy(), pixels.transpose(2, 1, 0))


def video(path: Path, frames: list[np.ndarray]) -> Path:
    """Frames (Y, X, 3) as MJPEG."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30, options={"q:v": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def ramp_frames() -> list[np.ndarray]:
    ramp = np.tile(np.linspace(20, 200, 32, dtype=np.uint8), (16, 1))  # brighter to the right
    return [np.repeat((ramp + 5 * t)[..., None], 3, axis=-1) for t in range(4)]


def test_frames_of_a_video_become_channels(tmp_path: Path) -> None:
    frames = ramp_frames()
    image = LoadVolume()(video(tmp_path / "a.avi", frames))
    assert image.shape == (4, 32, 16, 1)
    for t, frame in enumerate(frames):
        assert np.abs(image[t, :, :, 0].numpy() - frame[..., 0].T).max() < 4  # JPEG


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def rgb_nifti(path: Path) -> Path:
    voxels = np.zeros((4, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return path


def with_nan(path: Path) -> Path:
    voxels = np.ones((4, 4, 2), dtype=np.float32)
    voxels[1, 2, 1] = np.nan
    return nifti(path, voxels)


def transparent(path: Path) -> Path:
    return picture(path, np.dstack([np.zeros((4, 4, 3), np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)]))


COLORS = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)

BAD_FILES = {
    "truncated volume": ("a.nii.gz", lambda path: truncated(nifti(path, noise(30, 30, 10))), "truncated"),
    "volume that is no volume": ("a.nii", lambda path: path.write_text("hello" * 100) and path, "not a NIfTI"),
    "empty file": ("a.nii.gz", empty, "empty"),
    "not a number": ("a.nii.gz", with_nan, "1 of 32 values that are NaN"),
    "2-D": ("a.nii.gz", lambda path: nifti(path, noise(8, 8)), "2-D"),
    "5-D": ("a.nii.gz", lambda path: nifti(path, noise(8, 8, 2, 1, 3)), "5-D"),
    "RGB volume": ("a.nii.gz", rgb_nifti, "RGB voxels"),
    "RGB picture": ("a.png", lambda path: picture(path, COLORS), "grey channel is expected"),
    "RGB JPEG": ("a.jpg", lambda path: picture(path, COLORS), "grey channel is expected"),
    "RGB video": ("a.avi", lambda path: video(path, [np.full((16, 32, 3), (200, 30, 30), np.uint8)]), "grey channel"),
    "transparent picture": ("a.png", transparent, "transparent"),
    "truncated picture": ("a.png", lambda path: truncated(picture(path, COLORS)), "truncated"),
    "truncated video": ("a.avi", lambda path: truncated(video(path, ramp_frames())), "Copy it again"),
    "truncated MetaImage": ("a.mha", lambda path: path.write_text("ObjectType = Image\n") and path, "truncated"),
    "unknown type": ("a.txt", lambda path: path.write_text("hello") and path, "unknown file type"),
    "folder without DICOM": ("series", lambda path: path.mkdir() or path, "0 DICOM series"),
    "two DICOM series": (
        "series",
        lambda path: dicom_series(dicom_series(path, [(0, 0, 0)]), [(0, 0, 5)], series="1.2.3.5"),
        "2 DICOM series",
    ),
    "missing DICOM slice": (
        "series",
        lambda path: dicom_series(path, [(0, 0, 5.0 * k) for k in (0, 1, 2, 4, 5)]),
        "not evenly spaced",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "make", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_named_and_explained(tmp_path: Path, name: str, make, message: str) -> None:
    path = make(tmp_path / name)
    with pytest.raises(ValueError, match=message) as error:
        LoadVolume()(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value).strip() or path.suffix == ".mha"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.nii\.gz does not exist"):
        LoadVolume()(tmp_path / "nowhere.nii.gz")


def test_a_grey_picture_where_color_is_expected_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="grey, but color is expected"):
        LoadVolume(color=True)(picture(tmp_path / "a.png", np.zeros((4, 4), np.uint8)))


def test_the_dictionary_form_reads_each_key_and_keeps_the_rest(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", noise(4, 4, 2))
    item = LoadVolumed(["image", "label"], allow_missing_keys=True)({"image": path, "patient": "p"})
    assert torch.equal(item["image"], LoadVolume()(path))
    assert item["patient"] == "p"
