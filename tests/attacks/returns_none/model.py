"""Nothing at all."""


class Model:
    def predict(self, X):
        pass
