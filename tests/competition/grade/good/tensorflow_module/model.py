"""A tf.Module with a variable and a traced function."""

import tensorflow as tf


class model(tf.Module):
    def __init__(self, path):
        super().__init__()
        self.path = path
        self.kernel = tf.Variable(tf.reshape(tf.cast(tf.range(24), tf.float32) % 7 - 3, (3, 8)))

    @tf.function(reduce_retracing=True)
    def logits(self, X):
        means = tf.reduce_mean(tf.cast(X, tf.float32), axis=(1, 2))
        return tf.reduce_sum(means[:, :, None] * self.kernel, axis=1)

    def predict(self, X):
        return tf.argmax(self.logits(X), axis=-1)
