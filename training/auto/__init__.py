"""Trains the best model for any labelled images within a number of minutes.

1. Heads on features of the pretrained backbone. Layers, strength and kind are selected on held-out images.
2. If there is time, a fine-tuning of the whole backbone, kept unless it is clearly worse on the same held-out images.
3. Other heads on the fine-tuned backbone, kept only if one is better than its softmax.
4. If there is time, the fine-tuning again on all images.

Each step is a run of `training.run` with a recipe of its own, saved in `plan.json`, so that it can be repeated. The
folder `best` in the output is always the best run so far.
"""
