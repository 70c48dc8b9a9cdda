"""A sample submission. It predicts class 0 for every image: replace the two marked places with your own network.

The server calls it like this:

    network = model(folder_that_contains_this_file)
    network.predict(X)
"""

from pathlib import Path

import tensorflow as tf

BATCH_SIZE = 32  # images at a time, to limit the memory


class model:  # lower case: the server requires this name
    """A classifier.

    Args:
        path: folder with the files of the zip.
    """

    def __init__(self, path):
        self.names = Path(path, "classes.txt").read_text("utf-8").splitlines()  # in the order of the class numbers
        # 1. Load your network here, for example: self.network = tf.saved_model.load(str(Path(path, "network")))

    def predict(self, X):
        """Class numbers, an integer tensor [n], of X, a tensor [n, height, width, 3] with values 0 to 255."""
        batches = [self.probabilities_of(X[start : start + BATCH_SIZE]) for start in range(0, len(X), BATCH_SIZE)]
        return tf.argmax(tf.concat(batches, axis=0), axis=-1)

    def probabilities_of(self, images):
        """Probabilities, float32 [b, classes], of b images. Each must depend on its own image only."""
        # 2. Call your network here, for example: return self.network(tf.cast(images, tf.float32))
        return tf.one_hot(tf.zeros(len(images), tf.int32), len(self.names))
