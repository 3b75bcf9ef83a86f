"""Small made-up hearts in the layouts of ACDC and of MM-WHS, written in a moment."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (40, 44, 5)  # more than the 32 x 32 px of the tiny networks
GROUPS = ("NOR", "DCM")
WHOLE_HEART = (600, 205, 500, 550, 420, 820, 850)  # values of the structures in MM-WHS files


def heart(random: np.random.Generator, beat: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels and labels as in ACDC, of ``SHAPE``: blood in a ring of muscle, blood beside it, lungs around it.

    1 is the right ventricle, 2 the myocardium, 3 the left ventricle; the last slice shows no heart.
    """
    x, y, z = np.meshgrid(*(np.arange(length) for length in SHAPE), indexing="ij")
    center = np.array(SHAPE[:2]) / 2 + random.uniform(-2, 2, 2)
    radius = random.uniform(5, 7) * beat * (1 - 0.08 * z)
    distance = np.hypot(x - center[0], y - center[1])
    labels = np.zeros(SHAPE, np.uint8)
    labels[np.hypot(x - center[0] + radius + 3, (y - center[1]) / 1.3) < radius] = 1
    labels[distance < radius + 3] = 2
    labels[distance < radius] = 3
    labels[..., -1] = 0
    body = np.hypot((x - center[0]) / 19, (y - center[1]) / 21) < 1
    image = np.where(body, 60.0, 10.0) + 6 * np.cos(x / 3.0) + np.choose(labels, [0, 140, 40, 150])
    return (image + random.normal(0, 4, SHAPE)).clip(0).astype(np.int16), labels


def write_acdc(root: Path, patients: int) -> Path:
    """Patients with two labelled frames each, every other one in the same ``Group``, pixels of 3 mm."""
    affine = np.diag([-3.0, -3.0, 10.0, 1.0])
    for number in range(1, patients + 1):
        random = np.random.default_rng(number)
        folder = root / f"patient{number:03d}"
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text(f"ED: 1\nES: 9\nGroup: {GROUPS[number % 2]}\nNbFrame: 12\n")
        for frame, beat in ((1, 1.0), (9, 0.75)):
            image, labels = heart(random, beat)
            path = folder / f"{folder.name}_frame{frame:02d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(image, affine), path)
            nibabel.save(nibabel.Nifti1Image(labels, affine), str(path).replace(".nii.gz", "_gt.nii.gz"))
    return root


def write_mmwhs(root: Path, modality: str, patients: int) -> Path:
    """Patients of one modality, axial, pixels of 3 mm; the left atrium of the first one is marked 421.

    CT is in Hounsfield units. The ring of the ACDC hearts is cut into structures so that all seven values come up.
    """
    folder = root / f"{modality}_train"
    folder.mkdir(parents=True)
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    for number in range(1001, 1001 + patients):
        image, labels = heart(np.random.default_rng(number))
        values = np.choose(labels, [0, *WHOLE_HEART[:3]])
        x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
        for place, value in enumerate(WHOLE_HEART[3:]):
            spot = np.hypot(x - 12 - 5 * place, y - 34) < 2.5
            values[spot, :-1] = 421 if (value, number) == (420, 1001) else value
        if modality == "ct":
            image = (image * 4 - 150).astype(np.int16)
        for name, voxels in (("image", image), ("label", values.astype(np.int16))):
            nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / f"{folder.name}_{number}_{name}.nii.gz")
    return root


def relabelled(edit: Callable[[np.ndarray], None]) -> Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image]:
    """An edit of label files, for ``spoiling.change``: ``edit`` changes the voxels in place."""

    def write(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
        voxels = np.array(image.dataobj)
        edit(voxels)
        return nibabel.Nifti1Image(voxels, image.affine)

    return write
