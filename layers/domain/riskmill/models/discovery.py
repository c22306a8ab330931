"""Finds users' models: every module of a package is imported, which registers the models in it."""

import importlib
import pkgutil
from types import ModuleType


def import_all(package: ModuleType) -> list[str]:
    """Import the modules directly in a package, sorted by name, and return their names.

    Raises ImportError, naming the file, for one that cannot be imported: a deployment without a model that somebody
    relies on must not start.
    """
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    for name in names:
        try:
            importlib.import_module(f"{package.__name__}.{name}")
        except Exception as error:
            file = f"{package.__name__.replace('.', '/')}/{name}.py"
            raise ImportError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return names
