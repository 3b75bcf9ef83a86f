"""One volume of integers in several file formats; voxels (X, Y, Z), affine to RAS in mm."""

from pathlib import Path

import nibabel
import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    """Only the qform is valid and says "aligned"; the voxels are twice the values, which the slope tells; no units."""
    image = nibabel.Nifti1Image(2.0 * voxels, affine, dtype=np.int16)
    image.set_sform(None, code=0)
    image.set_qform(affine, code=2)
    image.header.set_slope_inter(0.5, 0)
    nibabel.save(image, path)
    return path


def write_metaimage(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    import itk

    place = LPS @ affine
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(voxels.astype(np.int16).T))  # ITK indexes (z, y, x)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(place[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(place[:3, :3] / spacing)))
    itk.imwrite(image, str(path))
    return path


def write_dicom(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    """One file a slice, in an order that their names do not tell."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    place = LPS @ affine
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    for z in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.Modality, one.SeriesInstanceUID, one.StudyInstanceUID = "MR", "1.2.3.4", "1.2.3"
        one.InstanceNumber = z + 1
        one.ImagePositionPatient = [round(value, 9) for value in place[:3, 3] + z * place[:3, 2]]
        directions = (place[:3, :2] / spacing[:2]).T.ravel()  # along a row (x), along a column (y)
        one.ImageOrientationPatient = [round(value, 9) for value in directions]
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        one.Rows, one.Columns, one.SamplesPerPixel = voxels.shape[1], voxels.shape[0], 1
        one.PhotometricInterpretation, one.BitsAllocated, one.BitsStored = "MONOCHROME2", 16, 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = np.ascontiguousarray(voxels[:, :, z].astype(np.uint16).T).tobytes()
        one.save_as(folder / f"{generate_uid()}.dcm", enforce_file_format=True)
    return folder
