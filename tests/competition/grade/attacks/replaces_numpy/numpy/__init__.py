"""A numpy that lies."""


class ndarray:
    shape, dtype = (16,), "int64"
