"""A submission that the server would take for results, not for code."""


class Model:
    pass
