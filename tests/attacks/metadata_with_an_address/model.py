"""A key in the metadata that the server would fetch."""


class Model:
    pass
