"""Has a key in its metadata whose value the server would fetch."""


class Model:
    pass
