"""Pixels → backbone → features → head."""

import keras

# A user's keras.json may say otherwise. All arrays of this package are [n, h, w, 3], and computed in float32 unless a
# recipe says so.
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
