"""Fine-tuning of the whole InceptionV3: python forty_lines.py TRAIN TEST WEIGHTS EPOCHS"""

import sys

import keras
import numpy as np
from keras import layers

train_folder, test_folder, weights, epochs = *sys.argv[1:4], int(sys.argv[4])
keras.utils.set_random_seed(0)
keras.mixed_precision.set_global_policy("mixed_bfloat16")
options = {"image_size": (192, 192), "label_mode": "categorical", "verbose": False}
train = keras.utils.image_dataset_from_directory(train_folder, batch_size=32, **options)
test = keras.utils.image_dataset_from_directory(test_folder, shuffle=False, **options)
augment = [
    layers.RandomFlip("horizontal"),
    layers.RandomZoom(0.15),
    layers.RandomTranslation(0.08, 0.08),
    layers.RandomRotation(10 / 360),
    layers.RandomBrightness(0.2),
    layers.RandomContrast(0.2),
]
backbone = keras.applications.InceptionV3(
    include_top=False, weights=None if weights == "none" else weights, pooling="avg", input_shape=(192, 192, 3)
)
if epochs < 15:  # too few steps for the mean over 100 batches
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9
pixels = keras.Input((192, 192, 3))
x = backbone(layers.Rescaling(1 / 127.5, offset=-1)(pixels))
answer = layers.Dense(len(train.class_names), activation="softmax", dtype="float32")(layers.Dropout(0.3)(x))
model = keras.Model(pixels, answer)
batches = train.cache().map(lambda x, y: (keras.Sequential(augment)(x, training=True), y)).prefetch(2)
steps = epochs * len(train)
rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=3e-4, warmup_steps=len(train))
loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
model.compile(keras.optimizers.AdamW(rate, weight_decay=0.05), loss, metrics=["accuracy"])
model.fit(batches, epochs=epochs, verbose=2)
x, y = zip(*((x.numpy(), y.numpy()) for x, y in test), strict=True)
x = np.concatenate(x)
probabilities = model.predict(x, verbose=0) + model.predict(x[:, :, ::-1], verbose=0)
print((probabilities.argmax(axis=1) == np.concatenate(y).argmax(axis=1)).mean())
