"""Where the project keeps what it fetched or built: see `engines.paths`, which all packages share."""

from engines.paths import CACHE_VARIABLE, FOLDER, cache_dir

__all__ = ["CACHE_VARIABLE", "FOLDER", "cache_dir"]
