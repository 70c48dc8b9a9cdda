"""Makes each prediction depend on the number of images in the batch.

1, 3, the 16 images of the test and a sample of at most 8 of them leave different remainders.
"""

from support import classes


class Model:
    def predict(self, X):
        return (classes(X) + len(X) % 7) % 8
