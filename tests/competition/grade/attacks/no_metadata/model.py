"""Has no metadata, so that the server takes it for results and not for code."""


class Model:
    pass
