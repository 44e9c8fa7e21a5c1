import engines  # noqa: F401  # before torch: it makes waiting OpenMP threads sleep
