"""Logistic regression on features of a frozen InceptionV3: python twenty_lines.py TRAIN TEST WEIGHTS"""

import sys

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

train_folder, test_folder, weights = sys.argv[1:]
model = keras.applications.InceptionV3(
    include_top=False, weights=None if weights == "none" else weights, pooling="avg", input_shape=(192, 192, 3)
)


def load(folder):
    data = keras.utils.image_dataset_from_directory(folder, image_size=(192, 192), shuffle=False, verbose=False)
    x, y = zip(*((x.numpy(), y.numpy()) for x, y in data), strict=True)
    x = keras.applications.inception_v3.preprocess_input(np.concatenate(x))
    return [model.predict(view, verbose=0) for view in (x, x[:, :, ::-1])], np.concatenate(y)


(train, y), (test, truth) = load(train_folder), load(test_folder)
scaler = StandardScaler().fit(np.concatenate(train))
classifier = LogisticRegression(C=0.03, max_iter=1000).fit(scaler.transform(np.concatenate(train)), np.tile(y, 2))
probabilities = np.mean([classifier.predict_proba(scaler.transform(view)) for view in test], axis=0)
print((probabilities.argmax(axis=1) == truth).mean())
