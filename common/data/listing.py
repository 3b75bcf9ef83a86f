"""What all readers share: the shape of an item and how a folder is described in an error."""

from pathlib import Path

Case = dict[str, str]
"""One case of one patient, with the keys of MONAI items, so that it goes straight into transforms.

``patient``: id that splits go by; ``case``: unique name; ``section``: only where the archive itself fixes the split.
Then paths of image files or DICOM folders: ``image`` and, if there is one, ``label``; of archives with several images
per case, each under the archive's own name for it.
"""


def seen_in(folder: Path, limit: int = 6) -> str:
    """The first names in ``folder``, for the end of a sentence such as "expected ..., found ..."."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "an empty folder"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def require_folder(folder: Path, expected: str) -> None:
    """Raise unless ``folder`` exists.

    Raises:
        FileNotFoundError: names the nearest parent that exists and what the folder should hold.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise FileNotFoundError(f"{folder} is a file; dataset_dir must be a folder that holds {expected}.")
    parent = next(p for p in folder.absolute().parents if p.exists())
    raise FileNotFoundError(
        f"The data folder {folder} does not exist ({parent} holds {seen_in(parent)}). "
        f"Set dataset_dir to a folder that holds {expected}."
    )


def nothing_found(folder: Path, expected: str) -> FileNotFoundError:
    """The error of a folder that exists but has no case of the layout."""
    return FileNotFoundError(f"No case in {folder}: expected {expected}, found {seen_in(folder)}.")
