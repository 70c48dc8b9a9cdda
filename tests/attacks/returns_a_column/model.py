"""A column of class numbers, from TensorFlow."""

import tensorflow as tf


class model:
    def __init__(self, path):
        self.path = path

    def predict(self, X):
        return tf.zeros((len(X), 1), tf.int64)
